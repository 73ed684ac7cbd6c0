"""Steps between the decoded and the prepared image, each a pure function on (height, width) uint8 arrays."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Gray = npt.NDArray[np.uint8]


def to_uint8(pixels: npt.NDArray[Any]) -> Gray:
    """8-bit pixels as they are; 16-bit pixels stretched from their own minimum and maximum to 0..255.

    Scanners store 10 to 14 significant bits in 16: dividing by 256 would leave such an image black.
    """
    if pixels.dtype == np.uint8:
        return pixels
    low, high = int(pixels.min()), int(pixels.max())
    scaled = (pixels.astype(np.float32) - low) * (255.0 / max(high - low, 1))
    result: Gray = np.rint(scaled).astype(np.uint8)
    return result


def square(pixels: Gray, size: int) -> tuple[Gray, tuple[float, float, float]]:
    """Shrink or enlarge to fit `size`, aspect kept, centred on zeros.

    Returns the (size, size) image and (s, tx, ty): x_original = s * x + tx, y_original = s * y + ty, with pixel centres
    at integer coordinates.
    """
    s = max(pixels.shape) / size
    method = cv2.INTER_AREA if s > 1 else cv2.INTER_LINEAR
    # By factor, not by size: a rounded width would stretch one side, and points would miss by up to half a pixel.
    small: Any = cv2.resize(pixels, None, fx=1 / s, fy=1 / s, interpolation=method)
    new_height, new_width = small.shape
    left, top = (size - new_width) // 2, (size - new_height) // 2
    canvas = np.zeros((size, size), np.uint8)
    canvas[top : top + new_height, left : left + new_width] = small
    # The centre of prepared pixel x covers original x = (x - left + 0.5) * s - 0.5.
    return canvas, (s, (0.5 - left) * s - 0.5, (0.5 - top) * s - 0.5)


def clahe(pixels: Gray, clip: float, tiles: int) -> Gray:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld 1994) over tiles x tiles regions."""
    result: Any = cv2.createCLAHE(clipLimit=clip, tileGridSize=(tiles, tiles)).apply(pixels)
    return np.asarray(result, np.uint8)


def sharpen(pixels: Gray, amount: float) -> Gray:
    """Subtract `amount` times the Laplacian; the result is clipped to 0..255."""
    edges = cv2.Laplacian(pixels, cv2.CV_32F, ksize=3)
    result: Gray = np.clip(np.rint(pixels - amount * edges), 0, 255).astype(np.uint8)
    return result
