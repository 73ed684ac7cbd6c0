"""Read the directories of a TIFF file (TIFF 6.0; BigTIFF): its pages, and the tags that describe how a page is stored.

All reads are checked against the end of the file, and each directory is read once. tifffile is not used: it leaves out a tag
whose values lie beyond the end of a cut file and goes on with defaults, raises TypeError or ValueError for some damaged tags,
and takes 0.1 ms a file, where a plain picture of 2000 x 1600 takes 0.3 ms in all.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from boneage_ray.decoding.raster.layout import decode_problem

SUBFILE, OLD_SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 254, 255, 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR, PREDICTOR = 273, 274, 277, 278, 279, 284, 317
COLOUR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, EXTRA_SAMPLES = 320, 322, 323, 324, 325, 338
SAMPLE_FORMAT, JPEG_TABLES = 339, 347
_WANTED = frozenset(
    {
        SUBFILE,
        OLD_SUBFILE,
        WIDTH,
        HEIGHT,
        BITS,
        COMPRESSION,
        PHOTOMETRIC,
        FILL_ORDER,
        STRIP_OFFSETS,
        ORIENTATION,
        SAMPLES,
    }
    | {ROWS_PER_STRIP, STRIP_BYTES, PLANAR, PREDICTOR, COLOUR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES}
    | {EXTRA_SAMPLES, SAMPLE_FORMAT, JPEG_TABLES}
)
_TYPES = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}
_SIZES = {kind: np.dtype(name).itemsize for kind, name in _TYPES.items()} | {5: 8, 10: 8, 11: 4, 12: 8}
_REDUCED, _MASK, _OLD_REDUCED = 1, 4, 2  # bits of NewSubfileType, and a value of SubfileType
_MAX_PAGES = 1000

_POINTERS = frozenset((330, 34665, 34853, 40965))  # to directories of their own: SubIFDs, EXIF, GPS, interoperability

Tags = dict[int, npt.NDArray[Any]]
Extents = list[tuple[int, int]]  # start and end of what the directories take up in the file


@dataclass(frozen=True)
class _File:
    data: bytes
    order: str  # < or >
    big: bool
    extents: Extents

    def number(self, code: str, at: int) -> int:
        if at + struct.calcsize(code) > len(self.data):
            raise decode_problem("truncated", "TIFF ends inside its directory")
        return int(struct.unpack_from(self.order + code, self.data, at)[0])


def pages_of(data: bytes) -> tuple[str, list[Tags], Extents]:
    """Byte order, the tags of each page, and where the directories lie; thumbnails and masks are no pages.

    Raises `InputProblem`.
    """
    order = "<" if data[:1] == b"I" else ">"
    file = _File(data, order, data[2:4] in (b"+\0", b"\0+"), [])
    file.extents.append((0, 16 if file.big else 8))
    at = file.number("Q", 8) if file.big else file.number("I", 4)
    seen: set[int] = set()
    pages: list[Tags] = []
    others: list[Tags] = []
    while at:
        if at in seen or len(seen) >= _MAX_PAGES:
            raise decode_problem("unreadable", "TIFF whose directories form a circle or never end")
        seen.add(at)
        tags, at = _directory(file, at)
        (others if _is_no_page(tags) else pages).append(tags)
    if not pages and not others:
        raise decode_problem("no_pixels", "TIFF without a page")
    return order, pages or others[:1], file.extents


def one(tags: Tags, tag: int, default: int) -> int:
    """The first value of a tag."""
    return int(tags[tag][0]) if tag in tags and tags[tag].size else default


def _is_no_page(tags: Tags) -> bool:
    return bool(one(tags, SUBFILE, 0) & (_REDUCED | _MASK)) or one(tags, OLD_SUBFILE, 0) == _OLD_REDUCED


def _directory(file: _File, at: int) -> tuple[Tags, int]:
    """The tags of the directory at this byte, and where the next one is (0: there is none)."""
    count_code, entry, inline, number = ("Q", 20, 8, "Q") if file.big else ("H", 12, 4, "I")
    count = file.number(count_code, at)
    at += struct.calcsize(count_code)
    if at + count * entry > len(file.data):
        raise decode_problem("truncated", "TIFF ends inside its directory")
    file.extents.append((at - struct.calcsize(count_code), at + count * entry + struct.calcsize(number)))
    tags: Tags = {}
    for k in range(count):
        here = at + k * entry
        tag, kind = file.number("H", here), file.number("H", here + 2)
        length = file.number(number, here + 4)
        _note_extent(file, tag, length * _SIZES.get(kind, 1), here + entry - inline, inline)
        if tag not in _WANTED or kind not in _TYPES:
            continue
        dtype = np.dtype(file.order + _TYPES[kind])
        where = here + entry - inline
        if length * dtype.itemsize > inline:
            where = file.number(number, where)
        if where + length * dtype.itemsize > len(file.data):
            raise decode_problem("truncated", f"TIFF ends before the values of tag {tag}")
        tags[tag] = np.frombuffer(file.data, dtype, length, where)
    return tags, file.number(number, at + count * entry)


def _note_extent(file: _File, tag: int, size: int, at: int, inline: int) -> None:
    """Record where the values of an entry lie, if outside of it, or the directory that it points to."""
    if size > inline or tag in _POINTERS:
        start = file.number("Q" if file.big else "I", at)
        file.extents.append((start, start + size))
