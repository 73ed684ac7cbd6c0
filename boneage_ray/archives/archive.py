"""An archive lists its inputs with their labels and metadata, and reports whatever cannot be joined."""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from boneage_ray.anatomy.growth import Sex
from boneage_ray.errors import Reason

# Extensions of images; DICOM files often have none.
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", ".ima")
_ENDING = re.compile(r"\.(?=[0-9]*[a-z])[a-z0-9]{1,8}", re.IGNORECASE)

Points = tuple[tuple[float, float], ...]


SPACINGS_MM = (0.001, 10.0)  # plausible pixel spacings


@dataclass(frozen=True)
class Input:
    """One listed file of an archive, or a label without a file (`uri` is then empty).

    Ages are in months, spacing in mm per pixel; None is unknown. Sources of sex and spacing: metadata, option. `patient`, from
    the metadata, only keeps a patient on one side of a split and is never written out. `source`: the data set it belongs to.
    `split`: its published split. Points are (x, y) in pixels of the original image, in the order of anatomy/cephalometry.py.
    `problem`: (reason, message), if it cannot be used. `position`: the byte range of a zip or tar entry, as written by
    archives/zips.py and archives/tars.py. `mask`: the URI of its hand mask (archives/masks.py). `table_rows`: the count of the
    rows of a table that the problem leaves unused. `is_remark`: a word on a table, which is no input and no lost label.
    `chronological_age_months`: by the years of a table, which may be its label too. `version`: of the file's content and of its
    mask's, as the storage tells it; inputs are compared without it. `closed`: it, or what is in it, cannot be examined now.
    """

    uri: str
    record_id: str
    age_months: float | None = None
    sex: Sex | None = None
    pixel_spacing_mm: float | None = None
    sex_source: str = "unknown"
    pixel_spacing_source: str | None = None
    size_bytes: int | None = None
    patient: str | None = None
    source: str | None = None
    split: str | None = None
    vertebral: Points | None = None
    facial: Points | None = None
    problem: tuple[Reason, str] | None = None
    position: str | None = None
    mask: str | None = None
    table_rows: int | None = None
    is_remark: bool | None = None
    chronological_age_months: float | None = None
    version: str | None = field(default=None, compare=False)
    closed: bool | None = None


def asked(
    uri: str, sex: Sex | None, pixel_spacing_mm: float | None, chronological_age_months: float | None = None
) -> Input:
    """One file with the values of options, as `explain --sex --pixel-spacing-mm` and a request give them."""
    return Input(
        uri=uri,
        record_id=stem_of(uri),
        sex=sex,
        sex_source="option" if sex else "unknown",
        pixel_spacing_mm=pixel_spacing_mm,
        pixel_spacing_source="option" if pixel_spacing_mm else None,
        chronological_age_months=chronological_age_months,
    )


def note(record_id: str, reason: Reason, message: str, table_rows: int | None = None) -> Input:
    """An input without a file: a label or annotation that cannot be used or has no image."""
    return Input("", record_id, problem=(reason, message), table_rows=table_rows)


def remark(record_id: str, reason: Reason, message: str, table_rows: int | None = None) -> Input:
    """A word on a table or a row of it, whose image, if it has one, is used all the same."""
    return Input("", record_id, problem=(reason, message), table_rows=table_rows, is_remark=True)


class Archive(ABC):
    """A lazy listing of inputs, always in the same order."""

    @abstractmethod
    def inputs(self) -> Iterator[Input]:
        """All inputs in order: files, also those with a problem, and at the end labels without a file."""

    @property
    def accounts(self) -> list[dict[str, Any]]:
        """What was taken from which column of each table (`Table.account`), known before any file is read."""
        return []

    def check_join(self) -> None:  # noqa: B027  an archive without a table has nothing to check
        """Raise `UsageError` if none of the rows of its tables belongs to a file; lists names until one does."""


def stem_of(uri: str) -> str:
    """The file name without folder and extension, in Unicode NFC; a number, as in a DICOM UID, is not an extension.

    NFC, because macOS writes the letters of folders and zip files apart from their accents, and tables do not.

    >>> stem_of("s3://a/b/1377.png"), stem_of("scans.zip!/1377.dcm"), stem_of("a/1.2.840.113"), stem_of(".hidden")
    ('1377', '1377', '1.2.840.113', '.hidden')
    """
    return composed(without_ending(uri.rstrip("/").rsplit("/", 1)[-1]))


def without_ending(path: str) -> str:
    """A path without the extension of its last part."""
    start = path.rfind(".")
    bare = start > path.rfind("/") + 1 and _ENDING.fullmatch(path, start)
    return path[:start] if bare else path


def composed(name: str) -> str:
    """A name in Unicode NFC, in which names are compared."""
    return unicodedata.normalize("NFC", name)
