"""Decode the pixel data element to stored values in every transfer syntax of radiographs (PS3.5 sections 8 and 10).

Native pixels have no checksum. Damage shows where the element is not as long as its image, or where no valid DICOM follows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from boneage_ray.decoding.dicom.bits import from_codestream, from_words
from boneage_ray.decoding.dicom.codestream import decode_codestream
from boneage_ray.decoding.dicom.file import DicomFile, name_of
from boneage_ray.decoding.dicom.layout import LOSSLESS, NATIVE, RLE, PixelLayout
from boneage_ray.decoding.dicom.rle import decode_rle
from boneage_ray.decoding.dicom.tail import check_tail, one_frame, split_items
from boneage_ray.errors import InputProblem


@dataclass(frozen=True)
class Frame:
    """(rows, columns) uint8 or uint16: bit patterns of `layout.stored` bits, sign not yet taken; of colour the luminance, uint8.

    `layout`: that of the header, corrected where the pixels show it to be wrong. `flags`: warnings.
    """

    pixels: npt.NDArray[Any]
    layout: PixelLayout
    flags: tuple[str, ...] = ()


def decode_frame(file: DicomFile, layout: PixelLayout) -> Frame:
    """Decode the frame of a file.

    Flags: `bits_stored_wrong` and `bits_outside_stored` (bits.py), `pixel_data_longer` (native pixel data of more bytes
    than the image has, though fewer than a row or a column: ignored), `zeros_after_pixels` (the file goes on with zeros
    that belong to no element).
    Raises `InputProblem` truncated when the file holds fewer pixels than it declares, unreadable when they are damaged.
    """
    if file.syntax in NATIVE:
        if file.pixel.length is None:
            raise InputProblem("decode", "unreadable", f"compressed pixel data in a file of {name_of(file.syntax)}")
        flags = _check_native(file, layout)
        return _frame(_native(file, layout), layout, file, flags)
    items, rest = split_items(file.pixel)
    check_tail(rest, file)
    data = one_frame(items)
    if file.syntax == RLE:
        pixels = decode_rle(data, layout.shape, layout.allocated // 8)
        return _frame(np.moveaxis(pixels, 0, -1) if layout.samples == 3 else pixels, layout, file)
    pixels, precision = decode_codestream(data, layout.shape)
    if layout.samples == 3:
        return _frame(pixels, layout, file)
    return Frame(*from_codestream(pixels, layout, precision, file.syntax not in LOSSLESS, file.tags))


def _frame(pixels: npt.NDArray[Any], layout: PixelLayout, file: DicomFile, flags: tuple[str, ...] = ()) -> Frame:
    if layout.samples == 3:
        return Frame(_luminance(pixels, layout) if pixels.ndim == 3 else pixels, layout, flags)
    values, more = from_words(pixels, layout, file.tags)
    return Frame(values, layout, (*flags, *more))


def _needed(layout: PixelLayout) -> tuple[int, int]:
    """Samples and bytes of native pixel data."""
    halved = layout.photometric == "YBR_FULL_422"  # four bytes, Y Y Cb Cr, for two pixels
    count = layout.rows * layout.columns * (2 if halved else layout.samples)
    return count, count * layout.allocated // 8


def _check_native(file: DicomFile, layout: PixelLayout) -> tuple[str, ...]:
    """Refuse pixel data of the wrong length or followed by bytes that are no DICOM; returns flags."""
    _, needed = _needed(layout)
    found, declared = len(file.pixel.data), file.pixel.length or 0
    if found < max(needed, declared):
        raise InputProblem("decode", "truncated", f"pixel data hold {found} bytes, {max(needed, declared)} are needed")
    flags = ("zeros_after_pixels",) if check_tail(file.pixel.rest, file) else ()
    surplus = declared - needed
    if surplus <= needed % 2:  # the length of an element is even
        return flags
    # Rows or Columns wrong by one already leave this much.
    line = min(needed // layout.rows, needed // layout.columns)
    if surplus >= line:
        message = (
            f"pixel data declare {declared} bytes, {needed} are expected of {layout.columns} x {layout.rows} pixels"
        )
        raise InputProblem("decode", "unreadable", message)
    return (*flags, "pixel_data_longer")


def _native(file: DicomFile, layout: PixelLayout) -> npt.NDArray[Any]:
    count, _ = _needed(layout)
    if layout.allocated == 16:
        values = np.frombuffer(file.pixel.data, ">u2" if file.big_endian else "<u2", count)
        return values.reshape(layout.rows, layout.columns)
    if file.big_endian and file.pixel.vr == "OW":
        words = np.frombuffer(file.pixel.data, "<u2", len(file.pixel.data) // 2).byteswap().view(np.uint8)
        if len(words) < count:
            raise InputProblem("decode", "truncated", "pixel data in words of two bytes end with half a word")
        values = words[:count]
    else:
        values = np.frombuffer(file.pixel.data, np.uint8, count)
    if layout.photometric == "YBR_FULL_422":
        return values.reshape(-1, 4)[:, :2].reshape(layout.rows, layout.columns)
    if layout.samples == 1:
        return values.reshape(layout.rows, layout.columns)
    if layout.planar:
        return np.moveaxis(values.reshape(3, layout.rows, layout.columns), 0, -1)
    return values.reshape(layout.rows, layout.columns, 3)


def _luminance(pixels: npt.NDArray[Any], layout: PixelLayout) -> npt.NDArray[Any]:
    """Luminance of (rows, columns, 3) uint8 by ITU-R BT.601: the first sample of Y Cb Cr, the weighted sum of RGB."""
    if layout.photometric.startswith("YBR_FULL"):
        return np.ascontiguousarray(pixels[..., 0])
    gray: npt.NDArray[Any] = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    return gray
