"""Decode the pixel data element to stored values in every transfer syntax of radiographs (PS3.5 sections 8 and 10).

Some files state a transfer syntax that their pixels contradict. They are read where the pixels prove what they are: native ones
by a length that is that of the image to the byte, a codestream by its own header, RLE by segments that fill their planes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from boneage_ray.decoding.dicom.bits import from_codestream, from_words, wide_values
from boneage_ray.decoding.dicom.codestream import KINDS, Codestream, decode_codestream, is_codestream
from boneage_ray.decoding.dicom.file import DicomFile, name_of
from boneage_ray.decoding.dicom.layout import LOSSLESS, NATIVE, RLE, PixelLayout
from boneage_ray.decoding.dicom.native import needed_bytes, read_native
from boneage_ray.decoding.dicom.rle import decode_rle, is_rle
from boneage_ray.decoding.dicom.tail import CODESTREAM_STARTS, check_tail, one_frame, split_items
from boneage_ray.errors import InputProblem

_CONTRADICTED = ("transfer_syntax_wrong",)
_ITEM_START = b"\xfe\xff\x00\xe0"


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
    stored otherwise than the file says), `colour_space_wrong` (a codestream says another colour space than the header).
    Raises `InputProblem` truncated when the file holds fewer pixels than it declares, unreadable when they are damaged.
    """
    data, uncompressed = file.pixel.data, file.pixel.length == _even(needed_bytes(layout))
    if uncompressed and file.syntax in NATIVE:
        pixels, flags = read_native(file, layout)
        return _of_words(pixels, layout, file, flags)
    if file.pixel.length is None or bytes(data[:4]) == _ITEM_START:
        items = split_items(file.pixel)
        flags = (*_zeros_behind(items.rest, file), *(() if items.ended else ("end_mark_missing",)))
        return _compressed(one_frame(items.found), file, layout, flags)
    if uncompressed:
        pixels, flags = read_native(file, layout)
        return _of_words(pixels, layout, file, (*flags, *_CONTRADICTED))
    if (whole := bytes(data)).startswith(CODESTREAM_STARTS):  # not divided into items, which no transfer syntax allows
        if len(whole) < (file.pixel.length or 0):
            raise InputProblem("decode", "truncated", f"pixel data hold {len(whole)} bytes of {file.pixel.length}")
        return _compressed(whole, file, layout, (*_zeros_behind(file.pixel.rest, file), *_CONTRADICTED))
    if file.syntax in NATIVE:
        pixels, flags = read_native(file, layout)
        return _of_words(pixels, layout, file, flags)
    stated = f"the file states {name_of(file.syntax)}"
    message = f"{stated}; its pixel data are not divided into items, nor as long as uncompressed pixels"
    raise InputProblem("decode", "unreadable", message)


def _even(length: int) -> int:
    return length + length % 2


def _zeros_behind(rest: memoryview, file: DicomFile) -> tuple[str, ...]:
    return ("zeros_after_pixels",) if check_tail(rest, file) else ()


def _compressed(data: bytes, file: DicomFile, layout: PixelLayout, flags: tuple[str, ...]) -> Frame:
    rle = is_rle(data, layout.samples * layout.allocated // 8)
    if is_codestream(data) and not rle:
        return _of_codestream(data, file, layout, flags)
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


def _of_codestream(data: bytes, file: DicomFile, layout: PixelLayout, flags: tuple[str, ...]) -> Frame:
    if layout.wide:
        raise InputProblem("decode", "unsupported_format", f"compressed pixels of {layout.allocated} bits")
    if "end_mark_missing" in flags and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        message = "compressed pixel data end without end mark, and the image without its own"
        raise InputProblem("decode", "truncated", message)
    pixels, header = decode_codestream(data, layout.shape)
    if _CONTRADICTED[0] not in flags and file.syntax and header.kind not in KINDS.get(file.syntax, ()):
        flags = (*flags, *_CONTRADICTED)
    layout, more = _with_colour(layout, header)
    flags = (*flags, *more)
    if layout.allocated == 8 and layout.samples == 3:
        return Frame(pixels, layout, flags)
    lossy = file.syntax not in LOSSLESS or not header.lossless
    values, corrected, more = from_codestream(pixels, layout, header, lossy, file.tags)
    return Frame(values, corrected, (*flags, *more))


def _with_colour(layout: PixelLayout, header: Codestream) -> tuple[PixelLayout, tuple[str, ...]]:
    """The layout with the colour space that a JPEG says of its samples: many writers convert them and forget the header."""
    if header.colour is None or (header.colour == "RGB") == (layout.photometric == "RGB"):
        return layout, ()
    photometric = "RGB" if header.colour == "RGB" else "YBR_FULL"
    return replace(layout, photometric=photometric), ("colour_space_wrong",)


def _of_words(pixels: npt.NDArray[Any], layout: PixelLayout, file: DicomFile, flags: tuple[str, ...]) -> Frame:
    if layout.floating or (layout.allocated == 8 and layout.samples == 3):
        return Frame(pixels, layout, flags)
    values, corrected, more = from_words(pixels, layout, file.tags)
    return Frame(wide_values(values, corrected) if layout.wide else values, corrected, (*flags, *more))
