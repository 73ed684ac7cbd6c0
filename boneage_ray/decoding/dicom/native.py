"""Read uncompressed pixels (PS3.5, 8.1 and 8.2) and decide what their element holds beyond the image.

The length of the element is the only check on Rows, Columns and BitsAllocated: where they are too small, it is longer than its
image. Surplus bytes are therefore padding only where the picture itself shows that its rows are as long as Columns says: a row
resembles the next one more than anything else. Otherwise they may belong to the picture, and the file is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from boneage_ray.decoding.dicom.file import DicomFile
from boneage_ray.decoding.dicom.layout import PixelLayout
from boneage_ray.decoding.dicom.tail import check_tail
from boneage_ray.errors import InputProblem

_NEAR = 64  # samples a row by which Columns is tried to be wrong
_COMPARED = 1 << 18  # samples that are compared
_CLEARLY = 1.01


def needed_bytes(layout: PixelLayout) -> int:
    """Bytes of native pixel data."""
    return _samples(layout) * layout.allocated // 8


def read_native(file: DicomFile, layout: PixelLayout) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """(rows, columns) or (rows, columns, 3) samples as they are in the file, and flags.

    Raises `InputProblem` truncated for fewer bytes than the image needs, unreadable where surplus bytes may belong to it or
    where no DICOM follows.
    """
    needed, found, declared = needed_bytes(layout), len(file.pixel.data), file.pixel.length or 0
    if found < max(needed, declared):
        raise InputProblem("decode", "truncated", f"pixel data hold {found} bytes, {max(needed, declared)} are needed")
    flags = ("zeros_after_pixels",) if check_tail(file.pixel.rest, file) else ()
    surplus = declared - needed
    # Rows or Columns wrong by one already leave a line.
    line = min(needed // layout.rows, needed // layout.columns)
    if surplus > needed % 2 and surplus >= line and not _is_padding(file, layout, surplus):
        message = (
            f"pixel data declare {declared} bytes, {needed} are expected of {layout.columns} x {layout.rows} pixels"
        )
        raise InputProblem("decode", "unreadable", message)
    if surplus > needed % 2:  # the length of an element is even
        flags = (*flags, "pixel_data_longer")
    return _shaped(_values(file, layout, _samples(layout)), layout), flags


def _samples(layout: PixelLayout) -> int:
    halved = layout.photometric == "YBR_FULL_422"  # four bytes, Y Y Cb Cr, for two pixels
    return layout.rows * layout.columns * (2 if halved else layout.samples)


def _values(file: DicomFile, layout: PixelLayout, count: int) -> npt.NDArray[Any]:
    """The first `count` samples of the element."""
    if layout.allocated > 8:
        kind = "f" if layout.floating else "u"
        return np.frombuffer(file.pixel.data, f"{'>' if file.big_endian else '<'}{kind}{layout.allocated // 8}", count)
    if not (file.big_endian and file.pixel.vr == "OW"):
        return np.frombuffer(file.pixel.data, np.uint8, count)
    words = np.frombuffer(file.pixel.data, "<u2", len(file.pixel.data) // 2).byteswap().view(np.uint8)
    if len(words) < count:
        raise InputProblem("decode", "truncated", "pixel data in words of two bytes end with half a word")
    return words[:count]


def _shaped(values: npt.NDArray[Any], layout: PixelLayout) -> npt.NDArray[Any]:
    if layout.photometric == "YBR_FULL_422":
        return values.reshape(-1, 4)[:, :2].reshape(layout.rows, layout.columns)
    if layout.samples == 1:
        return values.reshape(layout.rows, layout.columns)
    if layout.planar:
        return np.moveaxis(values.reshape(3, layout.rows, layout.columns), 0, -1)
    return values.reshape(layout.rows, layout.columns, 3)


def _is_padding(file: DicomFile, layout: PixelLayout, surplus: int) -> bool:
    """Whether `surplus` bytes behind the image, a line or more, are no part of the picture."""
    size = layout.allocated // 8
    values = _values(file, layout, (file.pixel.length or 0) // size)
    if layout.floating:
        values = np.nan_to_num(values)
    image, behind = values[: _samples(layout)], values[_samples(layout) :]
    line = _samples(layout) // layout.rows // (layout.samples if layout.planar else 1)
    rows_are_right = _rows_are_right(image, line)
    if len(behind) and (behind == behind[0]).all():
        return rows_are_right
    # More rows than the header says: in whole ones, or such as go on with the picture.
    goes_on = len(behind) >= line and _differs(values[len(image) - line : len(image) + line], line) < 4 * _differs(
        image, line
    )
    return rows_are_right and surplus % (line * size) != 0 and not goes_on


def _rows_are_right(image: npt.NDArray[Any], line: int) -> bool:
    """Whether samples a `line` apart differ less than those of any other distance near to it, but not near to none."""
    near = [
        other
        for other in range(max(line // 2 + 1, line - _NEAR), line + _NEAR + 1)
        if other != line and 2 * other < len(image)
    ]
    if not near or 2 * line >= len(image):
        return False
    return _CLEARLY * _differs(image, line) < min(_differs(image, other) for other in near)


def _differs(image: npt.NDArray[Any], distance: int) -> float:
    """The mean difference of samples that are so far apart."""
    step = max(1, len(image) // _COMPARED)
    first, second = image[:-distance:step].astype(np.float64), image[distance::step].astype(np.float64)
    return float(np.abs(first - second).mean())
