"""The DICOM file that a result row is of: read again for its references, patient and study, never for a new score.

What of the patient and study goes into a report or picture of the same study is listed here and goes nowhere else.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from boneage_ray.archives.archive import Input
from boneage_ray.archives.read import read_input
from boneage_ray.decoding.decode import decode
from boneage_ray.decoding.dicom.file import read_file
from boneage_ray.decoding.dicom.values import text, whole_text
from boneage_ray.errors import InputProblem
from boneage_ray.preparation.enhance import to_uint8
from boneage_ray.records.schema import Row

MAX_MEGAPIXELS = 100.0
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
# Elements of patient and study that the standard wants in every object, perhaps empty; then those that need not be there.
_ALWAYS = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_ALWAYS_STUDY = ("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName")
_IF_THERE = ("IssuerOfPatientID", "PatientAge", "StudyDescription")
COPIED = (*_ALWAYS, *_ALWAYS_STUDY, *_IF_THERE)
_FORMS = {
    "PatientBirthDate": r"\d{8}",
    "StudyDate": r"\d{8}",
    "StudyTime": r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?",
    "PatientSex": r"[MFO]",
    "PatientAge": r"\d{3}[DWMY]",
}
_SIDES = ("ImageLaterality", "Laterality")
_UID = re.compile(r"[0-9.]{1,64}")
_UTF_8 = "ISO_IR 192"


@dataclass(frozen=True)
class LeftOut:
    """Why a row has no object: a code, and one line for a person."""

    reason: str
    message: str


@dataclass(frozen=True)
class Source:
    """The file of a row: its bytes, and the elements of its header that an object of the same study takes over."""

    row: Row
    data: bytes
    header: Dataset

    def picture(self) -> NDArray[np.uint8]:
        """The radiograph (H, W) as 8 bits, bones bright, as it was scored. Raises `InputProblem`."""
        gray = to_uint8(decode(self.data, MAX_MEGAPIXELS).pixels)
        return 255 - gray if "inverted_corrected" in self.row["flags"] else gray


def find_source(row: Row) -> Source | LeftOut:
    """Read the file of a row, which must be the DICOM file that was scored, unchanged."""
    if why := _no_file(row):
        return why
    data = read_input(Input(row["input_uri"], ""))
    if isinstance(data, InputProblem):
        return LeftOut(data.reason, data.message)
    if row["input_sha256"] and hashlib.sha256(data).hexdigest() != row["input_sha256"]:
        return LeftOut("changed", "the file has changed since it was scored: score it again")
    try:
        header = source_header(data)
    except InputProblem as problem:
        return LeftOut(problem.reason, problem.message)
    missing = [keyword for keyword in _UIDS if keyword not in header]
    if missing:
        return LeftOut("no_uid", f"the DICOM file has no {' and no '.join(missing)}: nothing can refer to it")
    return Source(row, data, header)


def _no_file(row: Row) -> LeftOut | None:
    """Why there is no file to look for; `boneage score --keep` may have left less than a URI (scoring/kept.py)."""
    if row["sop_uid"] is None:
        return LeftOut(
            "not_dicom", "no DICOM file, or one without a SOP Instance UID: there is no study to add an object to"
        )
    if row["input_uri"].startswith("/") or "://" in row["input_uri"]:
        return None
    return LeftOut("not_kept", "it was scored with another --keep than uri: its row does not say where its file is")


def source_header(data: bytes) -> Dataset:
    """The elements that are taken over, as a new data set: empty where they must be but are not, or are no valid value.

    Raises `InputProblem` for what is no DICOM image.
    """
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")  # pydicom quotes element values in its warnings
        tags = read_file(data, MAX_MEGAPIXELS).tags
        header = Dataset()
        for keyword in _UIDS:
            if _UID.fullmatch(text(tags, keyword)):
                setattr(header, keyword, text(tags, keyword))
        values = {keyword: _valid(keyword, text(tags, keyword)) for keyword in COPIED}
        for keyword, value in values.items():
            if value or keyword not in _IF_THERE:
                setattr(header, keyword, value)
        number = text(tags, "InstanceNumber")
        header.InstanceNumber = int(number) if re.fullmatch(r"[1-9]\d{0,8}", number) else 1
        header.Laterality = next((side for name in _SIDES if (side := text(tags, name)) in ("L", "R")), "")
        header.LossyImageCompression = "01" if text(tags, "LossyImageCompression") == "01" else "00"
        charset = character_set(list(values.values()), whole_text(tags, "SpecificCharacterSet"))
        if charset:
            header.SpecificCharacterSet = charset
    return header


def _valid(keyword: str, value: str) -> str:
    """The value, or nothing where it has not the form that its element needs: others would refuse the whole object."""
    form = _FORMS.get(keyword)
    if form is not None:
        return value if re.fullmatch(form, value) else ""
    return "".join(letter for letter in value if letter.isprintable() and (letter != "\\"))


def character_set(values: list[str], stated: str) -> list[str] | str | None:
    """The character set in which the values can be written: none for ASCII, else that of the source, else UTF-8."""
    if all(value.isascii() for value in values):
        return None
    sets = stated.split("\\")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of a set that it does not know, or that lacks a letter
        encodings = convert_encodings(sets)
        if any(decode_bytes(encode_string(value, encodings), encodings, set()) != value for value in values):
            return _UTF_8
    return sets if len(sets) > 1 else sets[0]
