"""Pixels of more than 16 bits, integers and floating point (PS3.3 C.7.6.24 and C.7.6.25), become levels that gray.py can map."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from boneage_ray.decoding.dicom.file import DicomFile
from boneage_ray.decoding.dicom.gray import Levels, Shown, Table, show
from boneage_ray.decoding.dicom.layout import PixelLayout
from boneage_ray.decoding.dicom.values import numbers
from boneage_ray.decoding.lookup import row_blocks
from boneage_ray.errors import InputProblem

_TOP = 65535  # levels; 0 is no value
_SAMPLED = 1 << 20


def from_wide(file: DicomFile, frame: npt.NDArray[Any], layout: PixelLayout, voi: Literal["file", "none"]) -> Shown:
    """(rows, columns) values to gray, uint16.

    Values that are no finite number, and padding, are black. Flags: `levels_reduced` (more than 65,535 different values: they are
    rounded, by no more than 1/32,767 of their range and less where most of them lie), and `values_not_finite`. Raises
    `InputProblem` unreadable where no value is finite.
    """
    values, exact, all_finite = _levels_of(file, frame)
    middles = (values[1:] + values[:-1]) / 2
    levels = np.zeros(frame.shape, np.uint16)
    for rows in row_blocks(frame):
        block = frame[rows].astype(np.float64)
        levels[rows] = np.where(_is_value(file, block), 1 + np.searchsorted(middles, block), 0)
    table = np.concatenate((values[:1], values))
    meaning = Levels(table, np.arange(len(table)) == 0, deep=True, signed=bool(values[0] < 0))
    shown = show(file, levels, meaning, layout.photometric, voi)
    flags = (*(() if exact else ("levels_reduced",)), *(() if all_finite else ("values_not_finite",)))
    return shown._replace(flags=(*shown.flags, *flags))


def _levels_of(file: DicomFile, frame: npt.NDArray[Any]) -> tuple[Table, bool, bool]:
    """At most 65,535 values in rising order; whether they are all that the frame has; whether all pixels are finite numbers."""
    found, exact, all_finite, low, high = np.empty(0), True, True, np.inf, -np.inf
    for rows in row_blocks(frame):
        all_finite = all_finite and bool(np.isfinite(frame[rows]).all())
        used = frame[rows][_is_value(file, frame[rows])].astype(np.float64)
        if used.size:
            low, high = min(low, float(used.min())), max(high, float(used.max()))
        if exact:
            found = np.union1d(found, used)
            exact = len(found) <= _TOP
    if not low <= high or not np.isfinite(high - low):
        message = "none of the floating-point pixels is a finite number, or they are beyond all measure"
        raise InputProblem("decode", "unreadable", message)
    if exact:
        return found, exact, all_finite
    sample = frame.ravel()[:: max(1, frame.size // _SAMPLED)]
    most = np.quantile(sample[_is_value(file, sample)].astype(np.float64), np.linspace(0, 1, _TOP // 2))
    return np.union1d(np.linspace(low, high, _TOP // 2 + 1), most), exact, all_finite


def _is_value(file: DicomFile, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isfinite(values) & ~_is_padding(file, values))


def _is_padding(file: DicomFile, values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    kind = "DoubleFloat" if file.pixel.keyword.startswith("Double") else "Float"
    ends = [
        *numbers(file.tags, f"{kind}PixelPaddingValue")[:1],
        *numbers(file.tags, f"{kind}PixelPaddingRangeLimit")[:1],
    ]
    return np.asarray((values >= min(ends)) & (values <= max(ends)) if ends else np.zeros(values.shape, bool))
