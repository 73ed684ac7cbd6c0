"""Two hands on one film: each half of the picture shows a hand of its own."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from boneage_ray.preparation.enhance import to_uint8
from boneage_ray.preparation.localise import Box, find_hand
from boneage_ray.preparation.quality import rejection

TwoHands = Literal["reject", "left"]
# As shares of the picture: two hands side by side need this width, and each this height; they are about equally high, and
# between them is a gap. None of 950 single hands is taken for two (docs/measured.md).
_WIDTH, _HEIGHT, _EQUAL, _GAP = 0.9, 0.4, 0.7, 0.004


def shows_two_hands(pixels: npt.NDArray[Any]) -> bool:
    """Whether the halves of a picture (H, W) show a hand each, with a gap between them."""
    height, width = pixels.shape
    if width < _WIDTH * height:
        return False
    image, cut = to_uint8(pixels), width // 2
    left, right = (find_hand(np.ascontiguousarray(half)) for half in (image[:, :cut], image[:, cut:]))
    if left is None or right is None:
        return False
    low, high = sorted((_tall(left), _tall(right)))
    gaps = (cut - left.x1, right.x0)
    return low > _HEIGHT * height and low > _EQUAL * high and min(gaps) > _GAP * width


def one_hand(pixels: npt.NDArray[Any], wanted: TwoHands) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """The picture (H, W), or its left half where it shows two hands and `wanted` says so; and the flags.

    Raises `InputProblem` (out_of_distribution) for two hands otherwise.
    """
    if not shows_two_hands(pixels):
        return pixels, ()
    if wanted == "reject":
        raise rejection(
            "out_of_distribution",
            "two hands side by side, or what looks so: the model knows films of one hand; --two-hands left scores the left half",
        )
    return np.ascontiguousarray(pixels[:, : pixels.shape[1] // 2]), ("two_hands",)


def _tall(box: Box) -> int:
    return box.y1 - box.y0
