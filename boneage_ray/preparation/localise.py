"""Finds the hand without a model, for the crop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Gray = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]
LOOK = 192
_THRESHOLDS = 16
_FRAME_REACH, _CANVAS_REACH = 0.35, 0.1
_FRAME_PART, _FRAME_STEP = 0.7, 8
_CANVAS_PART, _CANVAS_STEP, _SMEARED = 0.3, 40, 2
_AREA, _FILLS = (0.03, 0.75), 0.85
_TWO_HANDS = 0.6
_ROUNDS = 3
_SQUARE, _BAND = np.ones((3, 3), np.uint8), np.ones((3, 1), np.uint8)
_LARGE = np.ones((5, 5), np.uint8)


class Box(NamedTuple):
    """x0 <= x < x1, y0 <= y < y1, in pixels."""

    x0: int
    y0: int
    x1: int
    y1: int


class Piece(NamedTuple):
    """A piece of a small picture that is taken for the hand, and the threshold that separates it from air.

    `box`: its box on the small picture; `mask`: 0/1, of the box's size; pixels belong to it if their square root of gray,
    (gray - low) / (high - low), is above `threshold`.
    """

    box: Box
    mask: Mask
    low: float
    high: float
    threshold: float


def find_hand(pixels: Gray) -> Box | None:
    """The box around hand and wrist in a (height, width) uint8 radiograph, without margin; None if uncertain.

    It includes the visible forearm, but not lead letters, film edges and bright or dark canvases around the film. For two
    separate hands it is None.
    """
    piece, _, factor = find_piece(pixels)
    if piece is None:
        return None
    found = piece.box
    height, width = pixels.shape
    x0, y0 = found.x0 - 1, found.y0 - 1  # smoothing and opening shorten fingertips
    x1, y1 = found.x1 + 1, found.y1 + 1
    return Box(
        max(0, int(x0 / factor)),
        max(0, int(y0 / factor)),
        min(width, int(np.ceil(x1 / factor))),
        min(height, int(np.ceil(y1 / factor))),
    )


def find_piece(pixels: Gray) -> tuple[Piece | None, Gray, float]:
    """The piece that is taken for the hand (None if uncertain), its small smoothed picture, and the factor of reduction."""
    factor = min(1.0, LOOK / max(pixels.shape))
    small: Any = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    smooth = np.asarray(cv2.GaussianBlur(small, (0, 0), 1.0), np.uint8)
    windows = dict.fromkeys((_without_canvas(smooth), Box(0, 0, small.shape[1], small.shape[0])))
    return next(filter(None, (_search(smooth, window) for window in windows)), None), smooth, factor


def widen(box: Box, margin: float, height: int, width: int) -> Box:
    """The box with `margin` (a fraction of its longer side) on every side, within the (height, width) image."""
    more = round(margin * max(box.x1 - box.x0, box.y1 - box.y0))
    return Box(max(0, box.x0 - more), max(0, box.y0 - more), min(width, box.x1 + more), min(height, box.y1 + more))


def _search(picture: Gray, window: Box) -> Piece | None:
    """Search inside the film; if the piece found is itself a film on a canvas, search inside that one."""
    best: Piece | None = None
    for _ in range(_ROUNDS):
        film = _film(
            picture[window.y0 : window.y1, window.x0 : window.x1], _FRAME_REACH if best is None else _CANVAS_REACH
        )
        field = Box(film.x0 + window.x0, film.y0 + window.y0, film.x1 + window.x0, film.y1 + window.y0)
        if best is not None and field == window:
            break
        found = hand_in(picture[field.y0 : field.y1, field.x0 : field.x1])
        if found is None:
            break
        x0, y0, x1, y1 = found.box
        best = found._replace(box=Box(x0 + field.x0, y0 + field.y0, x1 + field.x0, y1 + field.y0))
        window = widen(best.box, 0.04, *picture.shape)
    return best


def _without_canvas(picture: Gray) -> Box:
    """The film on an even canvas that is brighter, as the lid of a scanner leaves it; else the whole picture.

    A dark canvas looks like the air around a hand: its film is found as a piece, and searched again.
    """
    height, width = picture.shape
    whole = Box(0, 0, width, height)
    ring = _ring(picture, 0)
    darker = picture < np.median(ring) - _CANVAS_STEP
    rows, columns = (np.flatnonzero(darker.mean(axis=axis) > _CANVAS_PART) for axis in (1, 0))
    if not (rows.size and columns.size) or np.ptp(ring) > _FRAME_STEP:
        return whole
    film = Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    inside = darker[film.y0 : film.y1, film.x0 : film.x1]
    if min(inside.shape) < 0.25 * min(height, width) or _ring(inside, _SMEARED).mean() < _FRAME_PART:
        return whole
    return Box(film.x0 + _SMEARED, film.y0 + _SMEARED, film.x1 - _SMEARED, film.y1 - _SMEARED)


def _film(picture: Gray, reach: float) -> Box:
    """The picture without straight frames: film edges, collimation, canvas."""
    height, width = picture.shape
    top, bottom = _frame_ends(picture, reach)
    left, right = _frame_ends(np.ascontiguousarray(picture.T), reach)
    if bottom - top < 0.25 * height or right - left < 0.25 * width:
        return Box(0, 0, width, height)
    return Box(left, top, right, bottom)


def _frame_ends(picture: Gray, reach: float) -> tuple[int, int]:
    """First and one past the last row between the innermost straight edges that run from side to side.

    A forearm in line with a finger has a long edge too, but not from side to side.
    """
    n, length = picture.shape
    values = picture.astype(np.int16)
    step = values[3:] - values[:-3]
    end = max(1, length // 10)
    parts = [cv2.dilate((sign * step > _FRAME_STEP).astype(np.uint8), _BAND) for sign in (1, -1)]
    along = [[part.mean(axis=1) for part in parts], [part[:, :end].mean(axis=1) for part in parts]]
    along.append([part[:, -end:].mean(axis=1) for part in parts])
    least = np.minimum.reduce([np.abs(up - down) for up, down in along])  # bone texture has steps up and down
    hits = np.flatnonzero((least >= 0.5) & (np.abs(along[0][0] - along[0][1]) >= _FRAME_PART))
    near, far = hits[hits < reach * n], hits[hits > n - 3 - reach * n]
    return (int(near[-1]) + 3 if near.size else 0), (int(far[0]) + 1 if far.size else n)


def hand_in(picture: Gray, accept: Callable[[Mask], bool] = lambda _: True) -> Piece | None:
    """The acceptable piece, of many thresholds, with the sharpest outline and the largest area.

    Sharpness is measured on square roots of gray, where the edge of the skin is sharper than the edges of bones.
    """
    low, high = np.percentile(picture, (1, 92))
    if high - low < 4:
        return None
    root = np.sqrt(np.clip((picture - low) / (high - low), 0, 1.5), dtype=np.float32)
    slope = cv2.magnitude(cv2.Sobel(root, cv2.CV_32F, 1, 0), cv2.Sobel(root, cv2.CV_32F, 0, 1))
    best: tuple[float, Piece | None] = (0.0, None)
    for threshold in np.linspace(0.08, 0.95, _THRESHOLDS):
        found = _piece(root > threshold)
        if found is not None:
            piece, box = found
            cut = piece[box.y0 : box.y1, box.x0 : box.x1]
            if not accept(cut):
                continue
            outline = piece - cv2.erode(piece, _SQUARE, borderValue=1)
            sharp = cv2.mean(slope, outline)[0] * np.sqrt(cv2.countNonZero(piece) / piece.size)
            best = max(best, (sharp, Piece(box, cut, float(low), float(high), float(threshold))), key=_first)
    return best[1]


def _first(rated: tuple[float, Piece | None]) -> float:
    return rated[0]


def _piece(mask: npt.NDArray[np.bool_]) -> tuple[Mask, Box] | None:
    """The largest piece of a mask without thin film edges, and its box, if size, position and shape fit a hand."""
    for brush in (_SQUARE, _LARGE):
        opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, brush)
        _, labels, stats, centres = cv2.connectedComponentsWithStats(opened, connectivity=4)
        if len(stats) < 2:
            return None
        order = 1 + np.argsort(stats[1:, cv2.CC_STAT_AREA])[::-1]
        best = int(order[0])
        x, y, w, h, area = (int(v) for v in stats[best])
        sides = (x == 0) + (y == 0) + (x + w == mask.shape[1]) + (y + h == mask.shape[0])
        if sides < 3:
            break
    middle = centres[best] / mask.shape[::-1]
    if not (_AREA[0] < area / mask.size < _AREA[1] and area < _FILLS * w * h and np.abs(middle - 0.5).max() < 0.3):
        return None
    second = int(stats[order[1], cv2.CC_STAT_AREA]) if len(order) > 1 else 0
    piece = (labels == best).astype(np.uint8)
    if sides == 4 or second > _TWO_HANDS * area or _rim(piece) > 0.3:
        return None
    return piece, Box(x, y, x + w, y + h)


def _rim(piece: Mask) -> float:
    """The fraction of the picture's outermost pixels that a piece covers."""
    return float(_ring(piece, 0).mean())


def _ring(picture: npt.NDArray[Any], depth: int) -> npt.NDArray[Any]:
    """The outermost pixels of a picture from which `depth` are cut off at each side."""
    end = -1 - depth
    rows, columns = picture[:, depth : picture.shape[1] - depth], picture[depth : picture.shape[0] - depth]
    return np.concatenate([rows[depth], rows[end], columns[:, depth], columns[:, end]])
