"""Decode the pixel data element to stored values in every transfer syntax of radiographs (PS3.5 sections 8 and 10).

Some files state a transfer syntax that their pixels contradict. They are read where the pixels prove what they are: native ones
by a length that is that of the image to the byte, a codestream by its own header, RLE by segments that fill their planes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from boneage_ray.decoding.dicom.bits import from_codestream, from_words, wide_values
from boneage_ray.decoding.dicom.codestream import KINDS, decode_codestream, is_codestream, read_header
from boneage_ray.decoding.dicom.file import DicomFile, name_of
from boneage_ray.decoding.dicom.layout import LOSSLESS, NATIVE, RLE, PixelLayout
from boneage_ray.decoding.dicom.native import needed_bytes, read_native
from boneage_ray.decoding.dicom.rle import decode_rle, is_rle
from boneage_ray.decoding.dicom.tail import check_tail, one_frame, split_items
from boneage_ray.errors import InputProblem

_CONTRADICTED = ("transfer_syntax_wrong",)


@dataclass(frozen=True)
class Frame:
    """(rows, columns) bit patterns of `layout.stored` bits, uint8 or uint16, sign not yet taken; of colour (rows, columns, 3).

    Of more than 16 bits they are values, not bit patterns. `layout`: that of the header, corrected where the pixels show it to be
    wrong. `flags`: warnings.
    """

    pixels: npt.NDArray[Any]
    layout: PixelLayout
    flags: tuple[str, ...] = ()


def decode_frame(file: DicomFile, layout: PixelLayout) -> Frame:
    """Decode the frame of a file.

    Flags: `bits_stored_wrong` and `bits_outside_stored` (bits.py), `pixel_data_longer` (surplus bytes that are no part of the
    picture: native.py, rle.py), `zeros_after_pixels` (the file goes on with zeros that belong to no element),
    `end_mark_missing` (a compressed frame is whole, and the file ends with it), `transfer_syntax_wrong` (the pixels prove to be
    stored otherwise than the file says).
    Raises `InputProblem` truncated when the file holds fewer pixels than it declares, unreadable when they are damaged.
    """
    data = file.pixel.data
    divided = file.pixel.length is None or bytes(data[:4]) == b"\xfe\xff\x00\xe0"
    if file.syntax not in NATIVE and not divided and file.pixel.length != _even(needed_bytes(layout)):
        stated = f"the file states {name_of(file.syntax)}"
        message = f"{stated}; its pixel data are not divided into items, nor as long as uncompressed pixels"
        raise InputProblem("decode", "unreadable", message)
    if file.syntax in NATIVE and not (divided and file.pixel.length != _even(needed_bytes(layout))):
        pixels, flags = read_native(file, layout)
        return _of_words(pixels, layout, file, flags)
    if not divided:
        pixels, flags = read_native(file, layout)
        return _of_words(pixels, layout, file, (*flags, *_CONTRADICTED))
    return _encapsulated(file, layout)


def _even(length: int) -> int:
    return length + length % 2


def _encapsulated(file: DicomFile, layout: PixelLayout) -> Frame:
    items = split_items(file.pixel)
    check_tail(items.rest, file)
    data = one_frame(items.found)
    flags: tuple[str, ...] = () if items.ended else ("end_mark_missing",)
    rle = is_rle(data, layout.samples * layout.allocated // 8)
    if is_codestream(data) and not rle:
        if layout.wide:
            raise InputProblem("decode", "unsupported_format", f"compressed pixels of {layout.allocated} bits")
        if not items.ended and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
            raise InputProblem(
                "decode", "truncated", "compressed pixel data end without end mark, and the image without its own"
            )
        pixels, precision = decode_codestream(data, layout.shape)
        known = not file.syntax or read_header(data).kind in KINDS.get(file.syntax, ())
        flags = flags if known else (*flags, *_CONTRADICTED)
        if layout.allocated == 8 and layout.samples == 3:
            return Frame(pixels, layout, flags)
        values, corrected, more = from_codestream(pixels, layout, precision, file.syntax not in LOSSLESS, file.tags)
        return Frame(values, corrected, (*flags, *more))
    if file.syntax != RLE and not rle:
        stated = name_of(file.syntax) if file.syntax else "no transfer syntax"
        message = f"the file states {stated}; its compressed pixel data are neither JPEG, JPEG-LS, JPEG 2000 nor RLE"
        raise InputProblem("decode", "unreadable", message)
    planes, longer = decode_rle(data, layout.shape, layout.allocated // 8)
    flags = (
        *flags,
        *(("pixel_data_longer",) if longer else ()),
        *(() if file.syntax in (RLE, "") else _CONTRADICTED),
    )
    return _of_words(np.moveaxis(planes, 0, -1) if layout.samples == 3 else planes, layout, file, flags)


def _of_words(pixels: npt.NDArray[Any], layout: PixelLayout, file: DicomFile, flags: tuple[str, ...]) -> Frame:
    if layout.floating or (layout.allocated == 8 and layout.samples == 3):
        return Frame(pixels, layout, flags)
    if layout.wide:
        return Frame(wide_values(pixels, layout), layout, flags)
    values, corrected, more = from_words(pixels, layout, file.tags)
    return Frame(values, corrected, (*flags, *more))
