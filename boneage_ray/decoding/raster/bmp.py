"""Decode BMP: Windows bitmaps of every header size, and those of OS/2.

A BMP has no checksum. Header, colour table, rows and end of file must meet without a gap: surplus bytes mean that the header is
wrong or that bytes were inserted. Libraries do not check this: Pillow and OpenCV return 60 rows of a picture of 61 whose header
declares 60, and shifted pixels where 4 bytes were inserted. Of run lengths, Pillow cuts a run that is longer than its row,
OpenCV fills missing rows, and imagecodecs reads none; Pillow refuses 32-bit colour masks in the order R, G, B.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from boneage_ray.decoding.raster.gray import gray_of, gray_of_palette
from boneage_ray.decoding.raster.layout import RasterLayout, check_limits, decode_problem

_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_PADDING = 3  # bytes after the last row that some writers leave; less than the shortest row
_PROFILED = 124  # the one header that may have a colour profile after the rows
_PLAIN, _RLE8, _RLE4, _MASKS, _ALPHA_MASKS = 0, 1, 2, 3, 6


class _Header(NamedTuple):
    file_size: int  # as the header declares; 0 or wrong from some writers
    start: int  # of the pixels
    size: int  # of this header
    width: int
    height: int  # negative: the first row is the top one
    bits: int
    compression: int
    colours: int


def looks_like_bmp(data: bytes) -> bool:
    """Whether the file starts with BM and a known header size; a file cut inside its header counts as BMP too."""
    if not data.startswith(b"BM"):
        return False
    return len(data) < 18 or struct.unpack_from("<I", data, 14)[0] in _HEADERS


def decode_bmp(data: bytes, max_megapixels: float) -> tuple[npt.NDArray[Any], int]:
    """Gray pixels, and orientation 1, because a BMP has none. Raises `InputProblem`."""
    header = _header(data)
    height = abs(header.height)
    check_limits(RasterLayout(header.width, height, channels=max(1, header.bits // 8)), max_megapixels)
    if header.compression in (_RLE8, _RLE4):
        pixels = gray_of_palette(_run_lengths(data, header), _palette(data, header))
    else:
        pixels = _plain(data, header)
    return (pixels if header.height < 0 else pixels[::-1]), 1


def _header(data: bytes) -> _Header:
    try:
        file_size, _, start, size = struct.unpack_from("<4I", data, 2)
        if size == 12:
            width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
            compression = colours = 0
        else:
            width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
            compression, colours = 0, 0
            if size >= 40:
                compression, _, _, _, colours = struct.unpack_from("<IIiiI", data, 30)
                (_,) = struct.unpack_from("<I", data, 50)
    except struct.error:
        raise decode_problem("truncated", "BMP ends inside its header") from None
    allowed = {_PLAIN: (1, 4, 8, 16, 24, 32), _RLE8: (8,), _RLE4: (4,), _MASKS: (16, 32), _ALPHA_MASKS: (16, 32)}
    if bits not in allowed.get(compression, ()):
        raise decode_problem("unsupported_format", f"BMP of {bits} bits a pixel and compression {compression}")
    return _Header(file_size, start, size, width, height, bits, compression, colours)


def _palette_end(header: _Header) -> int:
    """Where the colour table ends by its header, or the header itself where there is none."""
    table = 14 + header.size
    if header.bits > 8:
        return table
    return table + (3 if header.size == 12 else 4) * min(header.colours or 1 << header.bits, 1 << header.bits)


def _palette(data: bytes, header: _Header) -> npt.NDArray[np.uint8]:
    """(n, 3) RGB."""
    entry = 3 if header.size == 12 else 4
    start, end = 14 + header.size, _palette_end(header)
    if end == start or end > min(len(data), header.start):
        raise decode_problem("unreadable", "BMP without its whole colour table before its pixels")
    table = np.frombuffer(data, np.uint8, end - start, start).reshape(-1, entry)
    return table[:, 2::-1]


def _check_end(data: bytes, header: _Header, end: int) -> None:
    """Refuse a file that goes on after its pixels, which end at `end`."""
    if header.size == _PROFILED and len(data) >= 14 + _PROFILED:
        offset, size = struct.unpack_from("<II", data, 14 + 112)
        if offset and size and 14 + offset >= end:
            end = 14 + offset + size
    surplus = len(data) - end
    # Where the file's own size agrees with its header, not one byte may be left.
    if surplus > (0 if header.file_size == end else _PADDING):
        raise decode_problem("unreadable", f"BMP with {surplus} bytes more than its header and pixels account for")


def _plain(data: bytes, header: _Header) -> npt.NDArray[Any]:
    width, height = header.width, abs(header.height)
    stride = (width * header.bits + 31) // 32 * 4
    if header.start + stride * height > len(data):
        missing = height - max(0, len(data) - header.start) // stride
        raise decode_problem("truncated", f"BMP ends before its last {missing} rows")
    if header.start < 14 + header.size:
        raise decode_problem("unreadable", "BMP whose pixels would begin inside its header")
    _check_end(data, header, header.start + stride * height)
    rows = np.frombuffer(data, np.uint8, stride * height, header.start).reshape(height, stride)
    if header.bits <= 8:
        return gray_of_palette(_indices(rows, header.bits)[:, :width], _palette(data, header))
    if header.compression == _PLAIN and header.bits >= 24:
        colours = rows[:, : width * header.bits // 8].reshape(height, width, header.bits // 8)
        return gray_of(colours[:, :, 2::-1])
    return gray_of(_masked(rows[:, : width * header.bits // 8], data, header))


def _indices(rows: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    if bits == 8:
        return rows
    if bits == 4:
        return np.stack([rows >> 4, rows & 15], axis=-1).reshape(len(rows), -1)
    return np.unpackbits(rows, axis=1)


def _masked(rows: npt.NDArray[np.uint8], data: bytes, header: _Header) -> npt.NDArray[np.uint8]:
    """(height, width, 3) of pixels whose channels lie where three masks say."""
    masks = (0x7C00, 0x03E0, 0x001F)  # 5 bits each, where a file of 16-bit pixels has no masks
    if header.compression != _PLAIN:
        if len(data) < 66 or header.start < 66:
            raise decode_problem("unreadable", "BMP without its colour masks")
        masks = struct.unpack_from("<III", data, 54)
    values = np.ascontiguousarray(rows).view(f"<u{header.bits // 8}")
    colours = np.empty((*values.shape, 3), np.uint8)
    for channel, mask in enumerate(masks):
        if mask == 0 or mask >= 2**header.bits:
            raise decode_problem("unreadable", f"BMP with the colour mask {mask:#x}")
        shift = (mask & -mask).bit_length() - 1
        top = mask >> shift
        table = (np.arange(256) * 255 + top // 2) // top if top < 256 else None
        level = (values & values.dtype.type(mask)) >> values.dtype.type(shift)
        wide = level >> values.dtype.type(max(0, top.bit_length() - 8))
        colours[:, :, channel] = wide if table is None else table.clip(0, 255).astype(np.uint8)[wide]
    return colours


def _run_lengths(data: bytes, header: _Header) -> npt.NDArray[np.uint8]:
    """(height, width) palette entries of an RLE8 or RLE4 bitmap. Pixels that it jumps over are entry 0."""
    out = np.zeros((abs(header.height), header.width), np.uint8)
    x = y = 0
    at, per_byte = header.start, 8 // header.bits
    while at + 2 <= len(data):
        count, value = data[at], data[at + 1]
        at += 2
        if count:
            run = _indices(np.full((1, -(-count // per_byte)), value, np.uint8), header.bits)[0, :count]
        elif value == 0:
            x, y = 0, y + 1
            continue
        elif value == 1:
            if y < len(out) - 1:
                raise decode_problem("truncated", f"BMP whose run lengths end {len(out) - 1 - y} rows too early")
            _check_end(data, header, at)
            return out
        elif value == 2 and at + 2 <= len(data):
            x, y, at = x + data[at], y + data[at + 1], at + 2
            continue
        else:
            size = -(-value // per_byte)
            run = _indices(np.frombuffer(data[at : at + size], np.uint8)[None], header.bits)[0, :value]
            at += size + size % 2
            count = value
        if y >= len(out) or x + count > header.width or len(run) < count:
            break
        out[y, x : x + count] = run
        x += count
    raise decode_problem(
        "truncated" if at >= len(data) else "unreadable", "BMP whose run lengths do not end where its picture does"
    )
