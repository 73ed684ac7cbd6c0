"""An archive lists its inputs, each with what its labels or metadata say, and accounts for what does not fit together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from boneage_ray.anatomy.growth import Sex
from boneage_ray.errors import Reason

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class Input:
    """One file of an archive. Ages in months, spacing in mm per pixel; None is unknown. Sources: metadata, option."""

    uri: str
    record_id: str
    age_months: float | None = None
    sex: Sex | None = None
    pixel_spacing_mm: float | None = None
    sex_source: str = "unknown"
    pixel_spacing_source: str | None = None


@dataclass(frozen=True)
class Unmatched:
    """A label without an image, an image without a label, or a label that cannot be used."""

    uri: str
    record_id: str
    reason: Reason
    message: str


class Archive(ABC):
    """A listing, read once from start to end; the order is the same every time."""

    @abstractmethod
    def inputs(self) -> Iterator[Input]:
        """Every file that can be worked on."""

    @abstractmethod
    def unmatched(self) -> list[Unmatched]:
        """What was found but cannot be worked on; complete once `inputs` was read to the end."""


def stem_of(uri: str) -> str:
    """The file name without folder and extension: `s3://a/b/1377.png` -> `1377`."""
    return uri.rstrip("/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
