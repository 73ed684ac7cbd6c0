"""A decoded radiograph holds the pixels and the values of the file's header that are used later."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from boneage_ray.anatomy.growth import Sex
from boneage_ray.anatomy.regions import View


@dataclass(frozen=True)
class Radiograph:
    """Gray pixels, upright as stored; the highest value is white (air is black, bone is bright).

    `pixels`: (height, width), uint8 or uint16. `pixel_spacing_mm`: mm per pixel, or None with source None.
    `chronological_age_months`: on the day of the image. `uids`: study_uid, series_uid, sop_uid, where the file has them.
    `patient`: a hash that is equal for all images of one patient, never the id itself. `modality`: the code of the header.
    `regions`: the words of anatomy/regions.py by which the header names the body part. `view`: the view by the header. `voi`: in
    words, the window or VOI LUT of the file, if the picture has less than half of its contrast under it. `flags`: warnings that
    do not stop the file from being used. `is_result`: `boneage export` made it.
    """

    pixels: npt.NDArray[Any]
    sex: Sex | None = None
    pixel_spacing_mm: float | None = None
    pixel_spacing_source: str | None = None
    chronological_age_months: float | None = None
    uids: dict[str, str] = field(default_factory=dict)
    patient: str | None = None
    modality: str | None = None
    regions: tuple[str, ...] = ()
    view: View | None = None
    voi: str | None = None
    flags: tuple[str, ...] = ()
    is_result: bool = False
