"""What every exported DICOM object has around its content: patient and study of its source, a series of its own, its maker.

UIDs follow from the source, the row and the version of this package: what is exported twice is the same object, not a second one.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from boneage_ray import __version__
from boneage_ray.archives.instances import PICTURE_SERIES
from boneage_ray.export.codes import OWN_SCHEME, OWN_SCHEME_NAME, OWN_SCHEME_UID, Concept
from boneage_ray.records.schema import Row

MAKER = "boneage-ray"
_OF_THE_IMAGE = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Laterality", "LossyImageCompression")


@dataclass(frozen=True)
class ObjectKind:
    """A kind of exported object: what its file name begins with, SOP class, modality, and number and name of its series."""

    name: str
    sop_class: str
    modality: str
    series_number: int
    series: str


REPORT = ObjectKind("sr", "1.2.840.10008.5.1.4.1.1.88.33", "SR", 9801, "Skeletal maturity, report")
PRESENTATION = ObjectKind("pr", "1.2.840.10008.5.1.4.1.1.11.1", "PR", 9803, "Skeletal maturity, overlay")
CAPTURE = ObjectKind("sc", "1.2.840.10008.5.1.4.1.1.7", "OT", 9802, PICTURE_SERIES)


def derived_uid(*parts: object) -> str:
    """A UID below 2.25, equal for equal parts."""
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


@cache
def _device_uid(model_sha256: str | None) -> str:
    return derived_uid("device", model_sha256)


def device_uid(row: Row) -> str:
    """The UID of the model as an observer, equal wherever that bundle is used."""
    return _device_uid(row["model_sha256"])


def object_uid(kind: ObjectKind, row: Row) -> str:
    """The SOP Instance UID of a row's object; the place of the input does not count."""
    content = {name: value for name, value in row.items() if name != "input_uri"}
    return derived_uid(kind.name, __version__, content)


def object_name(kind: ObjectKind, row: Row) -> str:
    """The path of a row's object below the place of the export: a folder a study. It names no patient and no input."""
    return f"{row['study_uid'] or 'no-study'}/{kind.name}-{object_uid(kind, row)}.dcm"


def enveloped(kind: ObjectKind, row: Row, header: Dataset, ended: datetime) -> Dataset:
    """A new object with all but its content. Its patient and study are those of `header`; times are local."""
    made = Dataset()
    with disable_value_validation():
        for element in header:
            if element.keyword not in _OF_THE_IMAGE:
                made.add(element)
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.file_meta.ImplementationClassUID = UID(OWN_SCHEME_UID)
        made.file_meta.ImplementationVersionName = f"BONEAGE {__version__}"[:16]
        made.SOPClassUID, made.SOPInstanceUID = UID(kind.sop_class), UID(object_uid(kind, row))
        local = ended.astimezone()
        made.InstanceCreationDate = made.ContentDate = made.SeriesDate = local.strftime("%Y%m%d")
        made.InstanceCreationTime = made.ContentTime = made.SeriesTime = local.strftime("%H%M%S")
        made.SeriesInstanceUID = derived_uid(
            "series", kind.name, header.StudyInstanceUID, row["model_sha256"], __version__
        )
        made.SeriesNumber, made.SeriesDescription, made.Modality = kind.series_number, kind.series, kind.modality
        made.Manufacturer, made.ManufacturerModelName = MAKER, printable_ascii(row["model"])
        made.SoftwareVersions = printable_ascii(row["package_version"])
        made.DeviceSerialNumber = row["model_sha256"] or ""
        made.CodingSchemeIdentificationSequence = Sequence([_own_scheme()])
    return made


def _own_scheme() -> Dataset:
    item = Dataset()
    item.CodingSchemeDesignator, item.CodingSchemeUID = OWN_SCHEME, OWN_SCHEME_UID
    item.CodingSchemeName, item.CodingSchemeResponsibleOrganization = OWN_SCHEME_NAME, MAKER
    return item


def reference(header: Dataset) -> Dataset:
    """An item that refers to the source image."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return item


def code_item(concept: Concept) -> Dataset:
    """A concept as an item of a code sequence."""
    item = Dataset()
    setattr(item, "CodeValue" if len(concept.value) <= 16 else "LongCodeValue", concept.value)
    item.CodingSchemeDesignator, item.CodeMeaning = concept.scheme, concept.meaning
    return item


def printable_ascii(value: str | None) -> str:
    """A text for an element of at most 64 letters that any character set has; a backslash would separate values."""
    text = (value or "").encode("ascii", "replace").decode()
    return "".join(letter if letter.isprintable() and letter != "\\" else "?" for letter in text)[:64]


def dicom_bytes(made: Dataset) -> bytes:
    """An object as the bytes of a file."""
    buffer = io.BytesIO()
    with disable_value_validation():
        made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
