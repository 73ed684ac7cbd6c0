"""An archive lists its inputs, each with what its labels or metadata say, and accounts for what does not fit together."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from boneage_ray.anatomy.growth import Sex
from boneage_ray.errors import Reason

# How images are named where names say it; DICOM files often have no ending at all.
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", ".ima")
_ENDING = re.compile(r"\.(?=[0-9]*[a-z])[a-z0-9]{1,8}", re.IGNORECASE)

Points = tuple[tuple[float, float], ...]


SPACINGS_MM = (0.001, 10.0)  # sizes that a pixel may have; outside, the number means something else


@dataclass(frozen=True)
class Input:
    """One thing of an archive that must be accounted for: a file, or a label that leads to none (`uri` is then empty).

    Ages in months, spacing in mm per pixel; None is unknown. Sources of sex and spacing: metadata, option. `patient`, as the
    metadata name it, only keeps a patient on one side of a split and is never written out. `source`: which set it belongs to.
    `split`: where a published split puts it. Points are (x, y) in pixels of the original image, in the order of
    anatomy/cephalometry.py.
    `problem`: (reason, message), when listing showed already that it cannot be used. `position`: for a member of a zip or tar
    file, where its bytes lie, as archives/zips.py and archives/tars.py write it. `mask`: the URI of its hand mask
    (archives/masks.py).
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


def asked(uri: str, sex: Sex | None, pixel_spacing_mm: float | None) -> Input:
    """One file with what was said of it by options, as `score --sex --pixel-spacing-mm` would list it."""
    return Input(
        uri=uri,
        record_id=stem_of(uri),
        sex=sex,
        sex_source="option" if sex else "unknown",
        pixel_spacing_mm=pixel_spacing_mm,
        pixel_spacing_source="option" if pixel_spacing_mm else None,
    )


def note(record_id: str, reason: Reason, message: str) -> Input:
    """The row of what belongs to no file: a label or an annotation that cannot be used, or leads to none."""
    return Input("", record_id, problem=(reason, message))


class Archive(ABC):
    """A listing, lazy: the first input is there before the last was found. The order is the same every time."""

    @abstractmethod
    def inputs(self) -> Iterator[Input]:
        """Everything to account for, in order: files, those with a problem too, and at the end labels without a file."""


def stem_of(uri: str) -> str:
    """The file name without folder and extension; a number is no extension, as in names made of DICOM UIDs.

    >>> stem_of("s3://a/b/1377.png"), stem_of("scans.zip!/1377.dcm"), stem_of("a/1.2.840.113"), stem_of(".hidden")
    ('1377', '1377', '1.2.840.113', '.hidden')
    """
    name = uri.rstrip("/").rsplit("/", 1)[-1]
    start = name.rfind(".")
    return name[:start] if start > 0 and _ENDING.fullmatch(name, start) else name
