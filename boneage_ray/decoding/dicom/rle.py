"""Decode RLE frames of DICOM (PS3.5 annex G): each byte plane is one segment of PackBits, the high byte first.

imagecodecs decodes the segments; the table of segments is checked here. The libraries that decode whole frames check it too
little: imagecodecs.dicomrle_decode ends the process (SIGSEGV) on an offset beyond the frame, pydicom and pylibjpeg-rle ignore
the surplus bytes of a segment that decodes to more than its plane, and pydicom takes four times as long.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from boneage_ray.errors import InputProblem

_HEADER = 64


def is_rle(frame: bytes, segments: int) -> bool:
    """Whether a frame begins with a table of so many segments, the first right behind it."""
    return len(frame) >= _HEADER and struct.unpack_from("<II", frame) == (segments, _HEADER)


def decode_rle(frame: bytes, shape: tuple[int, int, int], size: int) -> tuple[npt.NDArray[Any], bool]:
    """Decode one RLE frame of `size` bytes a sample to (rows, columns) or planes (3, rows, columns).

    The second value: whether a segment goes on behind its plane, which is read only where each row of it is coded by itself, as
    the standard asks: bytes lost or put in would end the rows elsewhere. Raises `InputProblem`: unreadable or truncated.
    """
    rows, columns, samples = shape
    bounds = _bounds(frame, samples * size)
    out = np.empty((samples, rows * columns, size), np.uint8)
    longer = False
    for k, (start, end) in enumerate(pairwise(bounds)):
        plane = _plane(frame[start:end], rows * columns)
        if plane is None:
            longer, plane = True, _plane(_rows_of(frame[start:end], rows, columns), rows * columns)
        if plane is None:
            raise _too_long()
        out[k // size, :, size - 1 - k % size] = plane
    pixels = out.view(f"<u{size}")
    return pixels.reshape((rows, columns) if samples == 1 else (samples, rows, columns)), longer


def _bounds(frame: bytes, needed: int) -> list[int]:
    """Where each segment begins, and where the last one ends."""
    segments = int.from_bytes(frame[:4], "little")
    if len(frame) < _HEADER or segments != needed:
        raise InputProblem("decode", "unreadable", f"the RLE data have {segments} segments, {needed} are needed")
    bounds = [*struct.unpack_from(f"<{segments}I", frame, 4), len(frame)]
    if bounds[0] != _HEADER or any(end <= start for start, end in pairwise(bounds)):
        raise InputProblem("decode", "unreadable", "the RLE data have a damaged table of segments")
    return bounds


def _plane(segment: bytes, wanted: int) -> npt.NDArray[np.uint8] | None:
    """The plane of a segment; None where it decodes to more. Raises `InputProblem` truncated where it decodes to less."""
    try:
        # Into a buffer of one byte more than the declared size: RLE expands up to 64 times.
        values = imagecodecs.packbits_decode(segment, out=wanted + 1)
    except (RuntimeError, ValueError):
        return None
    if len(values) < wanted:
        message = f"a segment of the RLE data decodes to {len(values)} bytes, {wanted} are needed"
        raise InputProblem("decode", "truncated", message)
    return np.frombuffer(values, np.uint8) if len(values) == wanted else None


def _rows_of(segment: bytes, rows: int, columns: int) -> bytes:
    """The part of a segment that holds `rows`, each coded by itself. Raises `InputProblem` unreadable where one is not."""
    at, row, filled = 0, 0, 0
    while row < rows and at < len(segment):
        control = segment[at]
        literal = control < 128
        filled += 0 if control == 128 else control + 1 if literal else 257 - control
        at += 1 if control == 128 else control + 2 if literal else 2
        if filled > columns:
            raise _too_long()
        if filled == columns:
            row, filled = row + 1, 0
    if row < rows or at > len(segment):
        raise _too_long()
    return segment[:at]


def _too_long() -> InputProblem:
    return InputProblem("decode", "unreadable", "the RLE data are damaged or longer than declared")
