"""Read the header values of a radiograph: pixel spacing with its source, sex, UIDs, a patient hash, modality, regions, view."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass

from pydicom.dataset import Dataset

from boneage_ray.anatomy.growth import Sex
from boneage_ray.anatomy.regions import CODES, View, region_words, view_of
from boneage_ray.archives.archive import SPACINGS_MM
from boneage_ray.archives.cells import parse_sex, parse_spacing
from boneage_ray.archives.instances import PICTURE_SERIES
from boneage_ray.decoding.dicom.values import numbers, raw_text, sequence, text, whole_text

# In this order; the first that is there decides.
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_SQUARE = 0.01
_UIDS = {"study_uid": "StudyInstanceUID", "series_uid": "SeriesInstanceUID", "sop_uid": "SOPInstanceUID"}


@dataclass(frozen=True)
class PixelSpacing:
    """mm per pixel with the element it was read from, both None without one; and flags."""

    mm: float | None
    source: str | None
    flags: tuple[str, ...] = ()


def read_spacing(tags: Dataset) -> PixelSpacing:
    """Pixel spacing, PS3.3 10.7.1.3: PixelSpacing, else ImagerPixelSpacing, else NominalScannedPixelSpacing.

    Flags: `spacing_at_detector`: measured at the detector or film and not corrected for magnification, also when PixelSpacing
    only repeats ImagerPixelSpacing without a calibration. `spacing_unusable`: one of them is not two plausible numbers, and the
    next is used (None if there is none); 1 mm both ways, without a calibration, is what writers put who know none.
    `spacing_irregular`: it has decimal commas or one value, or is stored as plain text; it was read as what it can only mean.
    `spacing_not_square`: row and column spacing differ by more than 1 % (None is given: one number cannot describe both, and
    nothing is resampled).
    """
    given = {name: found for name in _SPACINGS if (found := numbers(tags, name))}
    calibrated = bool(text(tags, "PixelSpacingCalibrationType"))
    unusable: tuple[str, ...] = ()
    for name, stated in given.items():
        found = stated if _is_pair(stated) else _as_meant(tags, name, stated)
        if not _is_pair(found) or (found == [1.0, 1.0] and not calibrated):
            unusable = ("spacing_unusable",)
            continue
        row, column = found  # DICOM's order: between rows (y) first
        if abs(row - column) > _SQUARE * min(row, column):
            return PixelSpacing(None, None, (*unusable, "spacing_not_square"))
        repeats = found == given.get("ImagerPixelSpacing") and not calibrated
        flags = ("spacing_at_detector",) if repeats or name != "PixelSpacing" else ()
        irregular = () if found == stated else ("spacing_irregular",)
        return PixelSpacing((row + column) / 2, f"dicom:{name}", (*unusable, *irregular, *flags))
    return PixelSpacing(None, None, unusable)


def _is_pair(found: list[float]) -> bool:
    return len(found) == 2 and all(math.isfinite(mm) and SPACINGS_MM[0] <= mm <= SPACINGS_MM[1] for mm in found)


def _as_meant(tags: Dataset, name: str, stated: list[float]) -> list[float]:
    """Two numbers of a spacing that is not written as two decimal strings, where it can mean nothing else; else no numbers."""
    values = [parse_spacing(part.strip(" \0")) for part in raw_text(tags, name).split("\\")]
    if len(stated) > 2 or len(values) > 2 or None in values:
        return []
    pair = [value for value in values if value is not None]
    return pair * 2 if len(pair) == 1 else pair


def read_sex(tags: Dataset) -> Sex | None:
    """F or M, also in words; None for O (other), empty, several values, and anything else."""
    return parse_sex(whole_text(tags, "PatientSex"))


def read_uids(tags: Dataset) -> dict[str, str]:
    """study_uid, series_uid and sop_uid, where they are UIDs: free text in their place could name a person."""
    found = {key: text(tags, keyword) for key, keyword in _UIDS.items()}
    return {key: uid for key, uid in found.items() if re.fullmatch(r"[0-9.]{1,64}", uid)}


def read_patient(tags: Dataset) -> str | None:
    """32 hexadecimal digits that are equal for equal PatientID and IssuerOfPatientID; None without an id.

    The hash groups the images of a patient without showing the id. It is no anonymisation: with a list of ids one can find
    out which of them it is.
    """
    patient = text(tags, "PatientID")
    if not patient:
        return None
    return hashlib.sha256(f"{patient}\n{text(tags, 'IssuerOfPatientID')}".encode()).hexdigest()[:32]


def read_modality(tags: Dataset) -> str | None:
    """The modality in capitals, if it is a code string."""
    value = text(tags, "Modality").upper()
    return value if re.fullmatch(r"[A-Z0-9]{1,16}", value) else None


def read_is_result(tags: Dataset) -> bool:
    """Whether this is a picture of results that `boneage export` made."""
    return (text(tags, "Modality"), text(tags, "SeriesDescription")) == ("OT", PICTURE_SERIES)


def read_regions(tags: Dataset) -> tuple[str, ...]:
    """The known words of BodyPartExamined and AnatomicRegionSequence (anatomy/regions.py); of other text nothing is kept."""
    codes, meanings = _concepts(tags, "AnatomicRegionSequence")
    words = (*region_words(whole_text(tags, "BodyPartExamined")), *(CODES[code] for code in codes if code in CODES))
    return tuple(dict.fromkeys((*words, *(word for meaning in meanings for word in region_words(meaning)))))


def read_view(tags: Dataset) -> View | None:
    """The view by ViewPosition, else by ViewCodeSequence."""
    return view_of(whole_text(tags, "ViewPosition").split("\\")) or view_of(_concepts(tags, "ViewCodeSequence")[1])


def _concepts(tags: Dataset, keyword: str) -> tuple[list[str], list[str]]:
    """Code values and code meanings of the items of a sequence; none where it is damaged."""
    items = sequence(tags, keyword) or []
    return [text(item, "CodeValue") for item in items], [text(item, "CodeMeaning") for item in items]


def read_year(tags: Dataset) -> str | None:
    """The year of the study, of the acquisition or of the image: a day would tell more than is counted anywhere."""
    dates = (text(tags, name) for name in ("StudyDate", "AcquisitionDate", "ContentDate", "SeriesDate"))
    years = (found[1] for date in dates if (found := re.fullmatch(r"((?:19|20)\d\d)[.-]?\d\d[.-]?\d\d", date)))
    return next(years, None)


def read_institution(tags: Dataset) -> str | None:
    """The institution as the file names it; of a practice it may be the name of a physician."""
    return " ".join(text(tags, "InstitutionName").split())[:64] or None
