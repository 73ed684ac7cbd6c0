"""One decoded radiograph: pixels and what the file says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from boneage_ray.anatomy.growth import Sex


@dataclass(frozen=True)
class Radiograph:
    """Gray pixels, upright as stored; the highest value is white (air is black, bone is bright).

    `pixels`: (height, width), uint8 or uint16. `pixel_spacing_mm`: mm per pixel, or None with source None.
    `uids`: study_uid, series_uid, sop_uid, where the file has them. `patient`: a hash by which images of one patient are known
    for such, never the id itself. `body_part`: what the file says was radiographed, or None. `flags`: soft warnings.
    """

    pixels: npt.NDArray[Any]
    sex: Sex | None = None
    pixel_spacing_mm: float | None = None
    pixel_spacing_source: str | None = None
    uids: dict[str, str] = field(default_factory=dict)
    patient: str | None = None
    body_part: str | None = None
    flags: tuple[str, ...] = ()
