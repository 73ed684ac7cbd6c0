"""Decode PNG (W3C Recommendation, third edition) by libpng.

Only the four chunks of the picture reach the decoder: a text or profile chunk, which may be a decompression bomb, is never
decompressed. libpng refuses a chunk with a wrong CRC and data that end early, so missing pixels are never filled in. It only logs
a warning about data for more rows than the header declares; here such a file is refused, because its header is wrong.
"""

from __future__ import annotations

import logging
import struct
import threading
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from boneage_ray.decoding.raster.exif import exif_orientation
from boneage_ray.decoding.raster.gray import gray_of
from boneage_ray.decoding.raster.layout import RasterLayout, check_limits, decode_problem, one_page

START = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type
_PICTURE = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))  # of Adam7
_SURPLUS = "Too much image data"


@dataclass
class _Chunks:
    pieces: list[tuple[int, int]] = field(default_factory=list)  # of the chunks that hold the picture: start, end
    compressed: int = 0
    orientation: int = 1
    frames: int = 1
    others: bool = False


class _Warnings(logging.Filter):
    """Keep libpng's warnings off stderr, and record the one about surplus data for the thread that caused it."""

    def __init__(self) -> None:
        super().__init__()
        self.noted = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if _SURPLUS in message:
            self.noted.surplus = True
        return not message.startswith("PNG")


_WARNINGS = _Warnings()


def decode_png(data: bytes, max_megapixels: float) -> tuple[npt.NDArray[Any], int]:
    """Gray pixels as stored, and their orientation. Raises `InputProblem`."""
    import imagecodecs

    layout = _header(data)
    check_limits(layout, max_megapixels)
    chunks = _walk(data)
    one_page(chunks.frames)
    if chunks.compressed > 2 * layout.width * layout.height * layout.channels * ((layout.bits + 7) // 8) + 2**16:
        raise decode_problem("unreadable", "PNG with far more data than its pixels need")
    if layout.width * layout.height * _stored_bits(data) > 8 * 1100 * chunks.compressed:
        raise decode_problem(
            "unreadable", "PNG with far less data than its pixels need"
        )  # deflate gains at most a factor of 1032
    if chunks.others:
        data = START + b"".join(data[start:end] for start, end in chunks.pieces)
    try:
        pixels, surplus = _decoded(data)
    except (imagecodecs.PngError, ValueError) as error:
        raise decode_problem("unreadable", "PNG could not be decoded; its data are damaged") from error
    if surplus:
        raise decode_problem("unreadable", "PNG with data for more rows than its header declares")
    if pixels.shape[:2] != (layout.height, layout.width) or pixels.dtype not in (np.uint8, np.uint16):
        raise decode_problem("unreadable", "PNG could not be decoded; its pixels are not those of its header")
    return gray_of(pixels), chunks.orientation


def _decoded(data: bytes) -> tuple[npt.NDArray[Any], bool]:
    """The pixels, and whether the data hold more than these."""
    import imagecodecs

    logger = logging.getLogger("imagecodecs")
    logger.addFilter(_WARNINGS)  # once, however often it is called
    if logger.level != logging.WARNING:  # setting it empties the caches of all loggers
        logger.setLevel(logging.WARNING)
    _WARNINGS.noted.surplus = False
    pixels = imagecodecs.png_decode(data)
    if logger.isEnabledFor(logging.WARNING):
        return pixels, _WARNINGS.noted.surplus
    # All logging is disabled (logging.disable): surplus data show only by decompressing once more.
    packed = b"".join(
        data[start + 8 : end - 4] for start, end in _walk(data).pieces if data[start + 4 : start + 8] == b"IDAT"
    )
    needed = _inflated_bytes(data)
    return pixels, len(zlib.decompressobj().decompress(packed, needed + 1)) > needed


def _inflated_bytes(data: bytes) -> int:
    """Bytes of all filtered rows that the header declares, each with its filter byte."""
    width, height = struct.unpack_from(">II", data, 16)
    passes = _PASSES if data[28] else ((0, 0, 1, 1),)
    total = 0
    for top, left, down, right in passes:
        rows, columns = -(-max(0, height - top) // down), -(-max(0, width - left) // right)
        total += rows * (1 + (columns * _stored_bits(data) + 7) // 8) if columns else 0
    return total


def _header(data: bytes) -> RasterLayout:
    """The layout, from IHDR alone."""
    if len(data) < 33 or data[12:16] != b"IHDR" or zlib.crc32(data[12:29]) != struct.unpack_from(">I", data, 29)[0]:
        raise decode_problem("unreadable", "starts as a PNG, but its header is damaged or cut off")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    if colour not in _CHANNELS:
        raise decode_problem("unreadable", f"PNG of colour type {colour}, which does not exist")
    return RasterLayout(width, height, _CHANNELS[colour], 8 if colour == 3 else bits)


def _stored_bits(data: bytes) -> int:
    """Bits a pixel before they are compressed; an entry of a palette is one number."""
    return data[24] * (1 if data[25] == 3 else _CHANNELS[data[25]])


def _walk(data: bytes) -> _Chunks:
    found = _Chunks()
    at, seen = len(START), b""
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            break
        if kind in _PICTURE:
            found.pieces.append((at, end))
            found.compressed += length if kind == b"IDAT" else 0
        else:
            found.others = True
            _note(kind, data[at + 8 : min(end - 4, at + 8 + 2**16)], found)
        seen = kind
        if kind == b"IEND":
            return found
        at = end
    where = "inside its data" if seen in (b"IHDR", b"PLTE", b"IDAT") else "before its last chunk"
    raise decode_problem("truncated", f"PNG ends {where}")


def _note(kind: bytes, body: bytes, found: _Chunks) -> None:
    if kind == b"eXIf":
        found.orientation = exif_orientation(body)
    elif kind == b"acTL" and len(body) >= 4:  # animated: the number of frames
        found.frames = max(1, struct.unpack_from(">I", body)[0])
