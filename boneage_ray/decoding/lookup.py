"""Map pixels through a table of gray levels in blocks of rows, so that a large image needs only a few MiB more memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCK = 1 << 18  # pixels at a time: numpy holds their indices in 8 bytes each


def look_up(table: npt.NDArray[Any], pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Map (height, width) unsigned integers to their table entries; values beyond the table get the last entry."""
    result = np.empty(pixels.shape, table.dtype)
    for rows in row_blocks(pixels):
        np.take(table, pixels[rows], out=result[rows], mode="clip")
    return result


def row_blocks(pixels: npt.NDArray[Any]) -> Iterator[slice]:
    """Slices that divide a (height, width) image into blocks of whole rows, from the top down."""
    height, width = pixels.shape
    step = max(1, _BLOCK // max(1, width))
    return (slice(row, row + step) for row in range(0, height, step))
