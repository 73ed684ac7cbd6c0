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


def decode_rle(frame: bytes, shape: tuple[int, int, int], size: int) -> npt.NDArray[Any]:
    """Decode one RLE frame of `size` bytes a sample to (rows, columns) or planes (3, rows, columns).

    Each segment must give its plane, no more and no fewer bytes. Raises `InputProblem`: unreadable or truncated.
    """
    rows, columns, samples = shape
    bounds = _bounds(frame, samples * size)
    out = np.empty((samples, rows * columns, size), np.uint8)
    for k, (start, end) in enumerate(pairwise(bounds)):
        out[k // size, :, size - 1 - k % size] = _plane(frame[start:end], rows * columns)
    pixels = out.view(f"<u{size}")
    return pixels.reshape((rows, columns) if samples == 1 else (samples, rows, columns))


def _bounds(frame: bytes, needed: int) -> list[int]:
    """Where each segment begins, and where the last one ends."""
    segments = int.from_bytes(frame[:4], "little")
    if len(frame) < _HEADER or segments != needed:
        raise InputProblem("decode", "unreadable", f"the RLE data have {segments} segments, {needed} are needed")
    bounds = [*struct.unpack_from(f"<{segments}I", frame, 4), len(frame)]
    if bounds[0] != _HEADER or any(end <= start for start, end in pairwise(bounds)):
        raise InputProblem("decode", "unreadable", "the RLE data have a damaged table of segments")
    return bounds


def _plane(segment: bytes, wanted: int) -> npt.NDArray[np.uint8]:
    try:
        # Into a buffer of one byte more than the declared size: RLE expands up to 64 times.
        values = imagecodecs.packbits_decode(segment, out=wanted + 1)
    except (RuntimeError, ValueError):
        raise InputProblem("decode", "unreadable", "the RLE data are damaged or longer than declared") from None
    if len(values) != wanted:
        message = f"a segment of the RLE data decodes to {len(values)} bytes, {wanted} are needed"
        raise InputProblem("decode", "truncated" if len(values) < wanted else "unreadable", message)
    return np.frombuffer(values, np.uint8)
