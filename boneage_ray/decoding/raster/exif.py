"""Read the orientation from EXIF metadata (Exif 2.32, tag 274) and turn pixels upright by it."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

ORIENTATION = 274


def exif_orientation(block: bytes) -> int:
    """Orientation 1 to 8 of an EXIF block, a small TIFF file; 1 where it is absent or damaged, for metadata refuse no picture."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return 1
    (start,) = struct.unpack_from(order + "I", block, 4)
    if start + 2 > len(block):
        return 1
    (count,) = struct.unpack_from(order + "H", block, start)
    for at in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        tag, _, _, value = struct.unpack_from(order + "HHIH", block, at)
        if tag == ORIENTATION:
            return value if 1 <= value <= 8 else 1
    return 1


def upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn (height, width) pixels upright; for orientations 5 to 8 width and height are exchanged."""
    if orientation >= 5:
        pixels = pixels.T
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
