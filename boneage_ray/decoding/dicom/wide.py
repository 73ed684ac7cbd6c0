"""Pixels of more than 16 bits, integers and floating point (PS3.3 C.7.6.24 and C.7.6.25), become levels that gray.py can map."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from boneage_ray.decoding.dicom.file import DicomFile
from boneage_ray.decoding.dicom.gray import Levels, Shown, show
from boneage_ray.decoding.dicom.layout import PixelLayout
from boneage_ray.decoding.dicom.values import numbers
from boneage_ray.decoding.lookup import row_blocks
from boneage_ray.errors import InputProblem

_TOP = 65535


def from_wide(file: DicomFile, frame: npt.NDArray[Any], layout: PixelLayout, voi: Literal["file", "none"]) -> Shown:
    """(rows, columns) values to gray, uint16: 65,535 equal steps from the least to the greatest of them.

    Values that are no finite number, and padding, are black. Flags: `levels_reduced`, and `values_not_finite` where there are
    such. Raises `InputProblem` unreadable where no value is finite.
    """
    low, high, not_finite = np.inf, -np.inf, False
    for rows in row_blocks(frame):
        finite = np.isfinite(frame[rows])
        not_finite = not_finite or not finite.all()
        used = frame[rows][finite & ~_is_padding(file, frame[rows])]
        if used.size:
            low, high = min(low, float(used.min())), max(high, float(used.max()))
    if low > high:
        raise InputProblem("decode", "unreadable", "none of the floating-point pixels is a finite number")
    levels = np.zeros(frame.shape, np.uint16)  # 0: no value
    for rows in row_blocks(frame):
        block = frame[rows].astype(np.float64)
        used = np.isfinite(block) & ~_is_padding(file, block)
        steps = (np.where(used, block, low) - low) / ((high - low) or 1.0)
        levels[rows] = np.where(used, 1 + np.rint(steps * (_TOP - 1)), 0)
    values = low + (high - low) * np.maximum(np.arange(_TOP + 1) - 1, 0) / (_TOP - 1)
    padding = np.arange(_TOP + 1) == 0
    shown = show(file, levels, Levels(values, padding, deep=True, signed=low < 0), layout.photometric, voi)
    flags = ("levels_reduced", *(("values_not_finite",) if not_finite else ()))
    return shown._replace(flags=(*shown.flags, *flags))


def _is_padding(file: DicomFile, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    kind = "DoubleFloat" if file.pixel.keyword.startswith("Double") else "Float"
    ends = [
        *numbers(file.tags, f"{kind}PixelPaddingValue")[:1],
        *numbers(file.tags, f"{kind}PixelPaddingRangeLimit")[:1],
    ]
    return np.asarray((values >= min(ends)) & (values <= max(ends)) if ends else np.zeros(values.shape, bool))
