"""Decode compressed frames of DICOM by imagecodecs: JPEG (baseline, extended, lossless), JPEG-LS, JPEG 2000 and HTJ2K.

The kind of a codestream is read from its own header and not from the transfer syntax, which some writers get wrong. Its size is
compared with Rows and Columns before it is decompressed, so that a small image cannot hide a huge one.

JPEG of 8 bits goes through the same decoder as JPEG files, which stops at the first error. JPEG of 12 bits and lossless JPEG have
no such decoder: damage shows in a missing end marker and in the lengths of the DICOM items around the frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import imagecodecs
import numpy as np
import numpy.typing as npt

from boneage_ray.decoding.raster import jpeg
from boneage_ray.decoding.raster.layout import RasterLayout
from boneage_ray.errors import InputProblem

Kind = Literal["jpeg", "jpeg-lossless", "jpeg-ls", "jpeg2000", "htj2k"]
Colour = Literal["RGB", "YBR"]
_JPEG_START, _J2K_START, _END = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\xff\xd9"
# Start-of-frame markers, ITU-T T.81 table B.1 and T.87: those that radiographs come in.
_FRAMES: dict[int, Kind] = {0xC0: "jpeg", 0xC1: "jpeg", 0xC2: "jpeg", 0xC3: "jpeg-lossless", 0xF7: "jpeg-ls"}
_OTHER_FRAMES = frozenset((*range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
_START_OF_SCAN, _LS_PRESET, _LS_SIZES = 0xDA, 0xF8, 4
_MAX_SCANS = 100  # each scan of a progressive JPEG passes over the whole image again
_JFIF, _ADOBE = 0xE0, 0xEE  # they say what the components mean
_COLOUR_MARKERS = (_JFIF, _ADOBE)
_BY_NUMBERS, _NAMED_RGB = 0, b"RGB"  # components that are numbered by letters
_AS_RGB = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"  # T.872, 6.5.3
_SYNTAXES: dict[tuple[Kind, ...], tuple[str, ...]] = {
    ("jpeg",): ("50", "51"),
    ("jpeg-lossless",): ("57", "70"),
    ("jpeg-ls",): ("80", "81"),
    ("jpeg2000",): ("90", "91"),
    ("htj2k",): ("201", "202", "203"),
}
# Transfer syntax -> the kinds of codestreams that it allows.
KINDS = {f"1.2.840.10008.1.2.4.{end}": kinds for kinds, ends in _SYNTAXES.items() for end in ends}
_HT_MARKER, _J2K_CODING, _J2K_TILE = b"\xff\x50", b"\xff\x52", b"\xff\x90"
_JP2_START, _JP2_ROOM = b"\0\0\0\x0cjP  ", 1 << 16
_MAX_TILES = 4096


@dataclass(frozen=True)
class Codestream:
    """The values that the header of a codestream declares."""

    kind: Kind
    width: int
    height: int
    components: int
    precision: int  # bits of a sample
    lossless: bool
    tiles: int = 1
    colour: Colour | None = None  # of three samples, where the codestream says it


def decode_codestream(frame: bytes, shape: tuple[int, int, int]) -> tuple[npt.NDArray[Any], Codestream]:
    """Decode one frame to (rows, columns) or (rows, columns, 3), 8 or 16 bits, as stored; the second value is its header.

    `shape`: rows, columns, samples that the DICOM header declares. Three samples are what PhotometricInterpretation calls
    them; but JPEG 2000 undoes its own colour transform. Raises `InputProblem`: unreadable, truncated, or too_large when the
    codestream is larger than `shape`.
    """
    header = read_header(frame)
    _check(header, shape)
    if header.kind in ("jpeg", "htj2k", "jpeg-lossless") and _END not in frame[-4096:]:
        # These decoders fill what is missing with gray; a cut image must not get an age.
        raise InputProblem("decode", "truncated", f"the {header.kind} data end before their end marker")
    try:
        pixels = _decoded(frame, header)
    except (RuntimeError, ValueError, TypeError, OSError):
        raise InputProblem("decode", "unreadable", f"the {header.kind} data are damaged") from None
    expected = shape[:2] if shape[2] == 1 else shape
    if pixels.shape != expected or pixels.dtype.itemsize > 2:
        raise InputProblem("decode", "unreadable", f"the {header.kind} data decode to {pixels.shape}, not {expected}")
    return pixels, header


def _decoded(frame: bytes, header: Codestream) -> npt.NDArray[Any]:
    if header.kind == "jpeg-ls":
        return imagecodecs.jpegls_decode(frame)
    if header.kind in ("jpeg2000", "htj2k"):
        # OpenJPEG for both: OpenJPH decodes HTJ2K in half the time, but reports damage on stderr and as unraisable errors.
        return imagecodecs.jpeg2k_decode(frame[_jpeg2000_start(frame) :])
    if header.kind == "jpeg" and header.precision == 8:
        return _eight_bits(frame, header)
    if header.components == 3:  # declared to be RGB on both sides, the samples stay as they are: Y Cb Cr too
        return imagecodecs.jpeg8_decode(frame, colorspace="rgb", outcolorspace="rgb")
    try:
        return imagecodecs.jpeg8_decode(frame)
    except RuntimeError:
        if header.kind != "jpeg-lossless":
            raise
        return imagecodecs.jpegsof3_decode(frame)  # twice as slow, but reads the rare precisions of process 14


def _eight_bits(frame: bytes, header: Codestream) -> npt.NDArray[Any]:
    """(rows, columns) or (rows, columns, 3); three samples as they are, RGB or Y Cb Cr."""
    markers = jpeg.walk(frame, header.width * header.height / 1e6 + 1e-3)
    if not markers.ended or any(markers.missing.values()):
        raise InputProblem("decode", "truncated", "the jpeg data end before their last scan")
    if header.components == 1:
        return jpeg.gray_jpeg(frame, RasterLayout(header.width, header.height))
    import simplejpeg  # type: ignore[import-untyped]

    # Marked as RGB, the samples are not converted: in DICOM the photometric interpretation defines them.
    kept = [frame[start:end] for marker, start, end in _segments(frame) if marker not in _COLOUR_MARKERS]
    scans = [end for _, _, end in _segments(frame)][-1]
    stream = b"".join((_JPEG_START, _AS_RGB, *kept, frame[scans:]))
    return np.asarray(simplejpeg.decode_jpeg(stream, colorspace="RGB", strict=True))


def is_codestream(frame: bytes) -> bool:
    """Whether a frame begins as JPEG, JPEG-LS or JPEG 2000."""
    return frame.startswith(_JPEG_START) or _jpeg2000_start(frame) >= 0


def _jpeg2000_start(frame: bytes) -> int:
    """Where a JPEG 2000 codestream begins: some writers leave the JP2 boxes around it; -1 for another frame."""
    return frame.find(_J2K_START, 0, _JP2_ROOM if frame.startswith(_JP2_START) else len(_J2K_START))


def read_header(frame: bytes) -> Codestream:
    """Read kind and size of a codestream from its own header. Raises `InputProblem` unreadable."""
    if frame.startswith(_JPEG_START):
        return _jpeg_header(frame)
    at = _jpeg2000_start(frame)
    if at >= 0 and len(frame) >= at + 43:
        return _jpeg2000_header(frame, at)
    raise InputProblem("decode", "unreadable", "the compressed pixel data are neither JPEG, JPEG-LS nor JPEG 2000")


def _jpeg_header(frame: bytes) -> Codestream:
    """ITU-T T.81 B.2: segments up to the first scan."""
    found: Codestream | None = None
    said: dict[int, Colour] = {}
    near = 0
    for marker, at, end in _segments(frame):
        if marker in _OTHER_FRAMES:
            raise InputProblem("decode", "unreadable", f"a JPEG process that is not read (marker FF{marker:02X})")
        if (marker in _FRAMES and found) or (marker == _LS_PRESET and frame[at + 4] == _LS_SIZES):
            raise InputProblem("decode", "unreadable", "the JPEG header states its size twice")
        if marker in _FRAMES:
            precision, height, width, components = struct.unpack_from(">BHHB", frame, at + 4)
            found = Codestream(_FRAMES[marker], width, height, components, precision, False)
            if components == 3 and frame[at + 10 : at + 19 : 3] == _NAMED_RGB:
                said[_BY_NUMBERS] = "RGB"
        if marker in _COLOUR_MARKERS and (colour := _said_colour(marker, frame[at + 4 : end])):
            said[marker] = colour
        if marker == _START_OF_SCAN:
            near = frame[at + 5 + 2 * frame[at + 4]]  # T.87: the error that JPEG-LS allows
    if found is None:
        raise InputProblem("decode", "unreadable", "the JPEG header states no size")
    lossless = found.kind == "jpeg-lossless" or (found.kind == "jpeg-ls" and near == 0)
    colour = said.get(_JFIF) or said.get(_ADOBE) or said.get(_BY_NUMBERS)  # in the order of libjpeg
    found = replace(found, lossless=lossless, colour=colour if found.components == 3 else None)
    if frame.count(bytes((0xFF, _START_OF_SCAN))) > _MAX_SCANS:
        raise InputProblem("decode", "unreadable", "the JPEG has more scans than any radiograph needs")
    return found


def _said_colour(marker: int, body: bytes) -> Colour | None:
    """The colour space that JFIF, always Y Cb Cr, or the transform of an Adobe segment says."""
    if marker == _JFIF:
        return "YBR" if body.startswith(b"JFIF\0") else None
    if not body.startswith(b"Adobe") or len(body) < 12 or body[11] > 1:
        return None
    return "YBR" if body[11] else "RGB"


def _segments(frame: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of the segments up to the first scan header, which is the last one."""
    at, marker = 2, 0
    while marker != _START_OF_SCAN:
        while frame[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if len(frame) < at + 10 or frame[at] != 0xFF:
            raise InputProblem("decode", "unreadable", "the JPEG header is damaged or cut off")
        marker, (length,) = frame[at + 1], struct.unpack_from(">H", frame, at + 2)
        yield marker, at, at + 2 + length
        at += 2 + length


def _jpeg2000_header(frame: bytes, at: int) -> Codestream:
    """ITU-T T.800 A.5.1, the SIZ segment; a CAP segment right after it means HTJ2K (T.814)."""
    (length,) = struct.unpack_from(">H", frame, at + 4)
    right, bottom, left, top, tile_width, tile_height = struct.unpack_from(">6I", frame, at + 8)
    components, depth = struct.unpack_from(">HB", frame, at + 40)
    if not (tile_width and tile_height and left < right and top < bottom):
        raise InputProblem("decode", "unreadable", "the JPEG 2000 header declares an impossible size")
    tiles = -(-right // tile_width) * -(-bottom // tile_height)
    after = at + 4 + length
    kind: Kind = "htj2k" if frame[after : after + 2] == _HT_MARKER else "jpeg2000"
    lossless = _is_reversible(frame, after)
    return Codestream(kind, right - left, bottom - top, components, (depth & 0x7F) + 1, lossless, tiles)


def _is_reversible(frame: bytes, at: int) -> bool:
    """Whether the COD segment (ITU-T T.800 A.6.1) names the reversible wavelet; `at`: a marker of the main header."""
    while len(frame) >= at + 14 and frame[at] == 0xFF and frame[at : at + 2] != _J2K_TILE:
        if frame[at : at + 2] == _J2K_CODING:
            return frame[at + 13] == 1
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return False


def _check(header: Codestream, shape: tuple[int, int, int]) -> None:
    rows, columns, samples = shape
    declared = f"the {header.kind} data are {header.width} x {header.height} x {header.components}"
    if header.width * header.height > rows * columns:
        raise InputProblem(
            "decode", "too_large", f"{declared}, more than the {columns} x {rows} that the header declares"
        )
    if (header.height, header.width, header.components) != shape:
        raise InputProblem("decode", "unreadable", f"{declared}, the header declares {columns} x {rows} x {samples}")
    if header.precision > 16:
        raise InputProblem("decode", "unreadable", f"{declared} of {header.precision} bits")
    if header.tiles > _MAX_TILES:
        raise InputProblem("decode", "unreadable", f"the {header.kind} data have more tiles than any radiograph needs")
