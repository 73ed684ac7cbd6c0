"""Pictures for people, as PNG."""

from __future__ import annotations

from typing import Any

import cv2
from numpy.typing import NDArray


def encode_png(pixels: NDArray[Any]) -> bytes:
    """uint8 (H, W) gray or (H, W, 3) blue, green, red -> PNG. Raises ValueError if OpenCV cannot."""
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise ValueError(f"pixels of shape {pixels.shape} could not be encoded")
    return bytes(data)
