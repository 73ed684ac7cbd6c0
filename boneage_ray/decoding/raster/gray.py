"""Convert colour to gray, the same way for every raster format.

Gray is 0.299 R + 0.587 G + 0.114 B, rounded to the nearest level in OpenCV's fixed point (8 bits: at most 0.51 levels from the
exact sum; 16 bits: at most 2); R = G = B gives exactly that level. Alpha is dropped, never blended, because the pixels under it
were measured too.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt


def gray_of(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(height, width) or (height, width, 1 to 4: gray, gray + alpha, RGB, RGBA) to (height, width), the depth kept."""
    if pixels.ndim == 3 and pixels.shape[2] <= 2:
        pixels = pixels[:, :, 0]
    if pixels.ndim == 2:
        return np.ascontiguousarray(pixels)
    code = cv2.COLOR_RGBA2GRAY if pixels.shape[2] == 4 else cv2.COLOR_RGB2GRAY
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), code))


def gray_of_ink(pixels: npt.NDArray[np.uint8], white: int) -> npt.NDArray[np.uint8]:
    """(height, width, 4) CMYK to gray; `white` is the value of no ink (0 as TIFF stores it, 255 as Adobe writes it into JPEG)."""
    paper = pixels if white == 255 else 255 - pixels
    colour = np.empty((*pixels.shape[:2], 3), np.uint8)
    for channel in range(3):
        product = np.multiply(paper[:, :, channel], paper[:, :, 3], dtype=np.uint16)
        np.copyto(colour[:, :, channel], (product + 127) // 255, casting="unsafe")
    return np.asarray(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY))


def gray_of_palette(indices: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """(height, width) palette entries to gray; `palette` is (n, 3) RGB. Entries beyond its end are black."""
    levels = np.zeros(256, np.uint8)
    levels[: len(palette)] = gray_of(palette[None, :256])[0]
    return np.asarray(cv2.LUT(np.ascontiguousarray(indices), levels))


def full_scale(pixels: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Levels of 1, 2 or 4 bits spread over 0 to 255; 8 bits as they are."""
    return pixels if bits == 8 else pixels * np.uint8(255 // (2**bits - 1))
