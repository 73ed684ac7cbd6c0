"""A radiograph with the outlines of its masks drawn on it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from boneage_ray.drawing import encode_png, outline
from boneage_ray.preparation.masking import Mask

_PREDICTED, _TRUE = (0, 200, 255), (80, 220, 80)  # blue, green, red: orange and green


def overlay_png(image: NDArray[np.uint8], predicted: Mask, true: Mask | None = None, side: int = 320) -> bytes:
    """A PNG of at most `side` pixels: the predicted outline orange, the true one, if there is one, green below it.

    `image`, `predicted`, `true`: (H, W) uint8, masks 0/1.
    """
    factor = min(1.0, side / max(image.shape))
    small: Any = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    picture: Any = cv2.cvtColor(small, cv2.COLOR_GRAY2BGR)
    for mask, colour in ((true, _TRUE), (predicted, _PREDICTED)):
        if mask is not None:
            shrunk = cv2.resize(mask, small.shape[::-1], interpolation=cv2.INTER_NEAREST)
            outline(picture, shrunk, colour)
    return encode_png(picture)
