"""Compressed frames of DICOM: JPEG (baseline, extended, lossless), JPEG-LS, JPEG 2000 and HTJ2K, by imagecodecs.

What a codestream is, is told by its own header and not by the transfer syntax, which some writers get wrong; and its size is
compared with Rows and Columns before a pixel is inflated, so that a small image cannot hide a huge one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Literal

import imagecodecs
import numpy as np
import numpy.typing as npt

from boneage_ray.errors import InputProblem

Kind = Literal["jpeg", "jpeg-lossless", "jpeg-ls", "jpeg2000", "htj2k"]
_JPEG_START, _J2K_START, _END = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\xff\xd9"
# Start-of-frame markers, ITU-T T.81 table B.1 and T.87: those that radiographs come in.
_FRAMES: dict[int, Kind] = {0xC0: "jpeg", 0xC1: "jpeg", 0xC2: "jpeg", 0xC3: "jpeg-lossless", 0xF7: "jpeg-ls"}
_OTHER_FRAMES = frozenset((*range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
_START_OF_SCAN, _LS_PRESET, _LS_SIZES = 0xDA, 0xF8, 4
_MAX_SCANS = 100  # each scan of a progressive JPEG passes over the whole image again
_HT_MARKER = b"\xff\x50"
_MAX_TILES = 4096


@dataclass(frozen=True)
class Codestream:
    """What the header of a codestream declares."""

    kind: Kind
    width: int
    height: int
    components: int
    tiles: int = 1


def decode_codestream(frame: bytes, shape: tuple[int, int, int]) -> npt.NDArray[Any]:
    """One frame to (rows, columns) or (rows, columns, 3), 8 or 16 bits, as the codestream stores it.

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
    return pixels


def _decoded(frame: bytes, header: Codestream) -> npt.NDArray[Any]:
    if header.kind == "jpeg-ls":
        return imagecodecs.jpegls_decode(frame)
    if header.kind in ("jpeg2000", "htj2k"):
        # OpenJPEG for both: OpenJPH decodes HTJ2K in half the time, but tells of damage on stderr and as unraisable errors.
        return imagecodecs.jpeg2k_decode(frame[frame.index(_J2K_START) :])
    if header.components == 3:  # declared to be RGB on both sides, the samples stay as they are: Y Cb Cr too
        return imagecodecs.jpeg8_decode(frame, colorspace="rgb", outcolorspace="rgb")
    try:
        return imagecodecs.jpeg8_decode(frame)
    except RuntimeError:
        if header.kind != "jpeg-lossless":
            raise
        return imagecodecs.jpegsof3_decode(frame)  # twice as slow, but reads the rare precisions of process 14


def read_header(frame: bytes) -> Codestream:
    """Kind and size of a codestream, by its own header. Raises `InputProblem` unreadable."""
    if frame.startswith(_JPEG_START):
        return _jpeg_header(frame)
    at = frame.find(_J2K_START, 0, 512)  # some writers leave the JP2 boxes around it
    if at >= 0 and len(frame) >= at + 42:
        return _jpeg2000_header(frame, at)
    raise InputProblem("decode", "unreadable", "the compressed pixel data are neither JPEG, JPEG-LS nor JPEG 2000")


def _jpeg_header(frame: bytes) -> Codestream:
    """ITU-T T.81 B.2: segments up to the first scan."""
    found: Codestream | None = None
    at, marker = 2, 0
    while marker != _START_OF_SCAN:
        while frame[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if len(frame) < at + 10 or frame[at] != 0xFF:
            raise InputProblem("decode", "unreadable", "the JPEG header is damaged or cut off")
        marker, (length,) = frame[at + 1], struct.unpack_from(">H", frame, at + 2)
        if marker in _OTHER_FRAMES:
            raise InputProblem("decode", "unreadable", f"a JPEG process that is not read (marker FF{marker:02X})")
        if (marker in _FRAMES and found) or (marker == _LS_PRESET and frame[at + 4] == _LS_SIZES):
            raise InputProblem("decode", "unreadable", "the JPEG header states its size twice")
        if marker in _FRAMES:
            height, width, components = struct.unpack_from(">HHB", frame, at + 5)
            found = Codestream(_FRAMES[marker], width, height, components)
        at += 2 + length
    if found is None:
        raise InputProblem("decode", "unreadable", "the JPEG header states no size")
    if frame.count(bytes((0xFF, _START_OF_SCAN))) > _MAX_SCANS:
        raise InputProblem("decode", "unreadable", "the JPEG has more scans than any radiograph needs")
    return found


def _jpeg2000_header(frame: bytes, at: int) -> Codestream:
    """ITU-T T.800 A.5.1, the SIZ segment; a CAP segment right after it means HTJ2K (T.814)."""
    (length,) = struct.unpack_from(">H", frame, at + 4)
    right, bottom, left, top, tile_width, tile_height = struct.unpack_from(">6I", frame, at + 8)
    (components,) = struct.unpack_from(">H", frame, at + 40)
    if not (tile_width and tile_height and left < right and top < bottom):
        raise InputProblem("decode", "unreadable", "the JPEG 2000 header declares an impossible size")
    tiles = -(-right // tile_width) * -(-bottom // tile_height)
    after = at + 4 + length
    kind: Kind = "htj2k" if frame[after : after + 2] == _HT_MARKER else "jpeg2000"
    return Codestream(kind, right - left, bottom - top, components, tiles)


def _check(header: Codestream, shape: tuple[int, int, int]) -> None:
    rows, columns, samples = shape
    declared = f"the {header.kind} data are {header.width} x {header.height} x {header.components}"
    if header.width * header.height > rows * columns:
        raise InputProblem(
            "decode", "too_large", f"{declared}, more than the {columns} x {rows} that the header declares"
        )
    if (header.height, header.width, header.components) != shape:
        raise InputProblem("decode", "unreadable", f"{declared}, the header declares {columns} x {rows} x {samples}")
    if header.tiles > _MAX_TILES:
        raise InputProblem("decode", "unreadable", f"the {header.kind} data have more tiles than any radiograph needs")


def decode_rle(frame: bytes, shape: tuple[int, int, int], size: int) -> npt.NDArray[Any]:
    """One RLE frame (PS3.5 annex G) of `size` bytes a sample to (rows, columns) or planes (3, rows, columns)."""
    rows, columns, samples = shape
    segments = int.from_bytes(frame[:4], "little")
    if len(frame) < 64 or segments != samples * size:
        message = f"the RLE data have {segments} segments, {samples * size} are needed"
        raise InputProblem("decode", "unreadable", message)
    wanted = rows * columns * samples * size
    try:
        # Into a buffer of the declared size: RLE blows up to 64 times.
        values = imagecodecs.dicomrle_decode(frame, dtype=f"<u{size}", out=bytearray(wanted))
    except (RuntimeError, ValueError):
        raise InputProblem("decode", "unreadable", "the RLE data are damaged or longer than declared") from None
    if len(values) != wanted:
        message = f"the RLE data decode to {len(values)} bytes, {wanted} are needed"
        raise InputProblem("decode", "truncated", message)
    pixels = np.frombuffer(values, f"<u{size}")
    return pixels.reshape((rows, columns) if samples == 1 else (samples, rows, columns))
