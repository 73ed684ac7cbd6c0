"""Hand masks: found without a model or read from a PNG, then filled, dilated and applied to the image.

A mask is (height, width) uint8, 1 on hand and forearm, 0 elsewhere. An image without a mask is rejected, never used unmasked.
"""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from boneage_ray.decoding.decode import decode
from boneage_ray.errors import InputProblem, Status
from boneage_ray.preparation import enhance
from boneage_ray.preparation.localise import Box, Piece, find_piece, hand_in

Gray = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]
MaskSource = Literal["none", "hand", "file"]
_LOOK = 768  # the outline is drawn on a picture of this size
_BAND = 2  # pixels of the small picture by which the outline may differ from the piece found there
_FINGER = 0.04  # the thinnest finger, as a fraction of the hand's longer side
_KEPT, _CONVEX = 0.85, 0.85  # least fraction left without thin strips; largest fraction of the convex hull
_FOREARM, _STRAIGHT = (
    0.75,
    0.35,
)  # how much of a side of its box the hand may cover: at the forearm, and elsewhere
_LEAST = 0.005  # of the image; a smaller mask is not a hand


def hand_mask(pixels: Gray) -> Mask | None:
    """Mask of hand, wrist and forearm of a (height, width) uint8 radiograph, without a model; None if uncertain.

    `localise.find_piece` gives position and threshold; the outline is drawn on a larger picture, within a narrow band around
    the piece. Strips thinner than fingers, such as film edges and labels, are cut off.
    """
    piece, small, factor = find_piece(pixels)
    if piece is not None and _like_a_hand(piece.mask) is None:
        piece = _inside(small, piece.box)
    if piece is None:
        return None
    finer = min(1.0, _LOOK / max(pixels.shape))
    picture: Any = cv2.resize(pixels, None, fx=finer, fy=finer, interpolation=cv2.INTER_AREA)
    rough = np.zeros(small.shape, np.uint8)
    box = piece.box
    rough[box.y0 : box.y1, box.x0 : box.x1] = piece.mask
    bounds = (cv2.erode(rough, _disc(_BAND)), cv2.dilate(rough, _disc(_BAND)))
    inner, outer = (_resized(each, *picture.shape) for each in bounds)
    smooth = cv2.GaussianBlur(picture, (0, 0), max(1.0, 0.5 * finer / factor))
    level = piece.low + piece.threshold**2 * (piece.high - piece.low)
    mask = _like_a_hand(np.where(smooth > level, outer, inner))
    return None if mask is None else _resized(mask, *pixels.shape)


def _inside(small: Gray, box: Box) -> Piece | None:
    """The hand inside a piece that is the film around it."""
    found = hand_in(small[box.y0 : box.y1, box.x0 : box.x1], lambda cut: _like_a_hand(cut) is not None)
    if found is None:
        return None
    x0, y0, x1, y1 = found.box
    return found._replace(box=Box(x0 + box.x0, y0 + box.y0, x1 + box.x0, y1 + box.y0))


def _like_a_hand(mask: Mask) -> Mask | None:
    """The largest piece without parts thinner than fingers, or None if it has not the shape of a hand.

    A hand keeps most of its area, is not nearly convex, and has no straight edge along its box but at the forearm.
    """
    area = cv2.countNonZero(mask)
    radius = max(1, round(_FINGER / 2 * max(cv2.boundingRect(mask)[2:])))
    opened = _largest(np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, _disc(radius)), np.uint8))
    kept = cv2.countNonZero(opened)
    if kept < _KEPT * area or not kept:
        return None
    contours, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outline = max(contours, key=cv2.contourArea)
    if cv2.contourArea(outline) > _CONVEX * cv2.contourArea(cv2.convexHull(outline)):
        return None
    x, y, w, h = cv2.boundingRect(opened)
    cut = opened[y : y + h, x : x + w]
    sides = sorted(float(side.mean()) for side in (cut[0], cut[-1], cut[:, 0], cut[:, -1]))
    return opened if sides[-1] < _FOREARM and sides[-2] < _STRAIGHT else None


def read_mask(data: bytes | None, height: int, width: int, max_megapixels: float) -> Mask:
    """The mask in a PNG or another image file: values above half of the highest possible value are hand.

    A file without values above 1 holds 0 and 1. Raises `InputProblem` (no_mask) if there is no file, or if it cannot be read,
    has another size than its image, or is empty.
    """
    if data is None:
        raise no_mask_file()
    try:
        pixels = decode(data, max_megapixels).pixels
    except InputProblem as problem:
        raise no_mask(f"the mask cannot be read: {problem.reason}: {problem.message}"[:300], "failed") from None
    if pixels.shape != (height, width):
        given = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise no_mask(f"the mask has {given} pixels, its image {width} x {height}: it belongs to another image")
    highest = int(pixels.max())
    middle = 0 if highest <= 1 else np.iinfo(pixels.dtype).max // 2
    return (pixels > middle).astype(np.uint8)


def check_mask(mask: Mask | None) -> Mask:
    """The mask, if it is large enough for a hand. Raises `InputProblem` (no_mask)."""
    if mask is None:
        raise no_mask("no hand could be separated from the background with certainty")
    covered = cv2.countNonZero(mask) / mask.size
    if covered < _LEAST:
        raise no_mask(f"the mask covers {covered:.2%} of the image; at least {_LEAST:.1%} is needed")
    return mask


def no_mask_file() -> InputProblem:
    """The problem of an image without a mask file."""
    return no_mask("no mask file for this image; masks/ID.png is needed in the archive's folder, or image.mask=hand")


def no_mask(message: str, status: Status = "rejected") -> InputProblem:
    """The problem of an image without the mask that its recipe needs."""
    return InputProblem("mask", "no_mask", message, status)


def extent(mask: Mask) -> Box:
    """The box of a non-empty mask."""
    x, y, width, height = cv2.boundingRect(mask)
    return Box(x, y, x + width, y + height)


def square_mask(mask: Mask, size: int) -> Mask:
    """The mask in the geometry of `enhance.square`: 1 where the hand covers half of a pixel or more."""
    half, _ = enhance.square(mask * np.uint8(255), size)
    return (half >= 128).astype(np.uint8)


def fill_holes(mask: Mask) -> Mask:
    """The mask with the holes inside its outer contours filled."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(mask)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    return filled


def dilate(mask: Mask, radius: int) -> Mask:
    """The mask, wider by `radius` pixels on every side."""
    return np.asarray(cv2.dilate(mask, _disc(radius)), np.uint8) if radius > 0 else mask


def overlay(pixels: Gray, mask: Mask) -> Gray:
    """The image with 0 outside the mask."""
    return pixels * mask


def _disc(radius: int) -> Mask:
    side = 2 * radius + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _resized(mask: Any, height: int, width: int) -> Mask:  # noqa: ANN401  what OpenCV returns
    """A 0/1 mask at another size, with an interpolated outline."""
    gray = cv2.resize(mask * np.uint8(255), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.asarray(gray) >= 128, np.uint8)


def _largest(mask: Mask) -> Mask:
    """The largest connected piece of a mask."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    if len(stats) < 2:
        return mask
    return np.asarray(labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])), np.uint8)
