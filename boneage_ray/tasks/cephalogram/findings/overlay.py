"""A cephalogram with its landmarks drawn on it: truth in yellow, prediction in cyan, sigma as circles, the measured lines.

Points are (x, y) in pixels of the image that is drawn on, pixel centres at integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from boneage_ray.anatomy.cephalometry import LANDMARKS, VERTEBRAL
from boneage_ray.drawing import CYAN, FINE, YELLOW, Picture, circle, encode_png, rings, write
from boneage_ray.preparation.geometry import Floats

CHORD_COLOUR = (60, 150, 255)
# The lower border of C2 and the outlines of C3 and C4, as indices of VERTEBRAL: what is measured lies along these.
OUTLINES = ((0, 1, 2), (3, 4, 5, 6, 7, 3), (8, 9, 10, 11, 12, 8))
CHORDS = ((0, 2), (4, 6), (9, 11))
_NAME_SIZE = 0.36
_FARTHEST = 1e6  # pixels; beyond, OpenCV's whole numbers end


@dataclass(frozen=True)
class Marked:
    """What is drawn on an image: `points_K3` x, y, sigma; `true_K2`; NaN or None for what there is not."""

    points_K3: Floats
    true_K2: Floats | None = None
    names: bool = False
    lines: bool = True
    text: Sequence[str] = ()


def landmark_png(image: NDArray[np.uint8], marked: Marked, side: int = 640, neck: bool = False) -> bytes:
    """The PNG of `landmark_picture`."""
    return encode_png(landmark_picture(image, marked, side, neck))


def landmark_picture(image: NDArray[np.uint8], marked: Marked, side: int = 640, neck: bool = False) -> Picture:
    """A picture (H, W, 3) whose longer side is `side`; `neck`: the vertebral points, both kinds, and what is around them only."""
    picture, points_K3, true_K2 = _framed(image, marked, side, neck)
    if marked.names:  # below the points, which lie close together
        _write_names(picture, points_K3[:, :2])
    if marked.lines and np.isfinite(points_K3[: len(VERTEBRAL), :2]).all():
        _draw_lines(picture, points_K3[:, :2])
    if true_K2 is not None:
        rings(picture, true_K2, YELLOW, 2.5)
    for x, y, sigma in points_K3:
        if np.isfinite([x, y]).all():
            if np.isfinite(sigma):
                circle(picture, x, y, max(sigma, 1.0), CYAN)
            circle(picture, x, y, 1.2, CYAN, -1)
    for number, line in enumerate(marked.text):
        write(picture, line, (8, 18 + 17 * number), 0.45)
    return picture


def _framed(
    image: NDArray[np.uint8], marked: Marked, side: int, neck: bool
) -> tuple[NDArray[np.uint8], Floats, Floats | None]:
    """The part of the image that is shown, in colour and at its size, with the points in its pixels."""
    height, width = image.shape
    x0, y0, x1, y1 = 0, 0, width, height
    kinds = [marked.points_K3[:, :2], *([] if marked.true_K2 is None else [marked.true_K2])]
    vertebral = np.concatenate([points_K2[: len(VERTEBRAL)] for points_K2 in kinds])
    known = vertebral[np.isfinite(vertebral).all(1)]
    if neck and len(known):
        (low_x, low_y), (high_x, high_y) = known.min(0), known.max(0)
        room = 0.35 * max(high_x - low_x, high_y - low_y, 1.0)
        x0, y0 = (int(max(0, low - room)) for low in (low_x, low_y))
        x1, y1 = min(width, int(high_x + room) + 1), min(height, int(high_y + room) + 1)
        if x1 - x0 < 2 or y1 - y0 < 2:  # points beside the image
            x0, y0, x1, y1 = 0, 0, width, height
    part = image[y0:y1, x0:x1]
    factor = side / max(part.shape)
    size = (max(1, round(part.shape[1] * factor)), max(1, round(part.shape[0] * factor)))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    picture: Any = cv2.cvtColor(cv2.resize(part, size, interpolation=how), cv2.COLOR_GRAY2BGR)
    points = np.array(marked.points_K3, np.float64)
    points[:, :2] = (points[:, :2] - (x0, y0) + 0.5) * factor - 0.5
    points[:, 2] *= factor
    true = None if marked.true_K2 is None else (marked.true_K2 - (x0, y0) + 0.5) * factor - 0.5
    for found in (points, *([] if true is None else [true])):
        found[np.abs(found) > _FARTHEST] = np.nan
    return picture, points, true


def _draw_lines(picture: NDArray[np.uint8], points_K2: Floats) -> None:
    for outline in OUTLINES:
        _polyline(picture, points_K2[list(outline)], CYAN)
    for chord in CHORDS:
        _polyline(picture, points_K2[list(chord)], CHORD_COLOUR)


def _polyline(picture: NDArray[np.uint8], points_K2: Floats, colour: tuple[int, int, int]) -> None:
    fixed = np.round(points_K2 * 2**FINE).astype(np.int32)
    cv2.polylines(picture, [fixed], False, colour, 1, cv2.LINE_AA, FINE)


def _write_names(picture: NDArray[np.uint8], points_K2: Floats) -> None:
    """Beside the points; of the vertebral ones outside of the bodies, so that they do not cover each other."""
    faces_right = bool(points_K2[2, 0] > points_K2[0, 0])
    for name, (x, y) in zip(LANDMARKS, points_K2, strict=True):
        if not np.isfinite([x, y]).all():
            continue
        text, where = name.replace("_", " "), (x + 5, y + 3)
        if name in VERTEBRAL and name.endswith("middle"):
            text, where = "middle", (x - 18, y + 13)
        elif name in VERTEBRAL and name.endswith("posterior") == faces_right:
            (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, _NAME_SIZE, 1)
            where = (x - 5 - width, y + 3)
        write(picture, text, where, _NAME_SIZE)
