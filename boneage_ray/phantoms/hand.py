"""A synthetic hand radiograph for a seed, an age and a sex.

Age and sex decide the anatomy (maturity.py); the seed decides pose, build, exposure and markers.

>>> phantom = hand_phantom(seed=1, age_months=96, sex="F", size=256)
>>> phantom.image.shape, phantom.mask.shape
((256, 205), (256, 205))
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from boneage_ray.anatomy.growth import Sex
from boneage_ray.errors import UsageError
from boneage_ray.phantoms import exposure as film_exposure
from boneage_ray.phantoms.film import Image, Layer, View, bone_thickness, soft_mask, soft_thickness
from boneage_ray.phantoms.hand_build import Build
from boneage_ray.phantoms.hand_shape import PALM_PARTS, Hand, build_hand
from boneage_ray.phantoms.maturity import growth_fraction

ASPECT = 0.8
MIN_SIZE = 32
# Height of the picture for the smallest and the largest hand: small hands are enlarged, but not to full size.
_PICTURE_MM = (145.0, 275.0)


@dataclass(frozen=True)
class HandPhantom:
    """`image` (H, W) uint8, bone bright on dark; `mask` (H, W) uint8, 255 on hand and forearm, else 0."""

    image: Image
    mask: Image
    age_months: float
    sex: Sex


def hand_phantom(seed: int, age_months: float, sex: Sex, size: int) -> HandPhantom:
    """Draw one hand, `size` pixels high and about 0.8 `size` wide; equal arguments give equal pixels.

    Raises UsageError for an age outside 0 to 240 months or a size below 32.
    """
    if size < MIN_SIZE:
        raise UsageError(f"size {size}: a phantom needs at least {MIN_SIZE} pixels")
    rng = np.random.default_rng([seed, 0])
    build = Build(
        age_months=age_months,
        sex=sex,
        spread=rng.uniform(0.75, 1.3),
        thumb_deg=rng.uniform(-10, 12),
        bend_deg=tuple(rng.normal(0, 2.2, 5)),
        stoutness=rng.uniform(0.93, 1.07),
    )
    hand = build_hand(build)
    mirrored = bool(rng.random() < 0.15)
    view = _fit(_pose(rng, build, size, mirrored), hand)
    return _radiograph(rng, hand, view, build, mirrored)


def _pose(rng: np.random.Generator, build: Build, size: int, mirrored: bool) -> View:
    """Rotate, scale and shift the hand so that it fits; the wrist is in the lower third."""
    height, width = size, round(size * ASPECT)
    grown = growth_fraction(build.age_months, build.sex)
    picture_mm = np.interp(grown, [0.45, 1.0], _PICTURE_MM) * rng.uniform(0.95, 1.06)
    scale = height / picture_mm
    turn = np.deg2rad(rng.normal(0, 6.0))
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = np.array([width * (0.5 + rng.uniform(-0.03, 0.03)), height * (0.515 + rng.uniform(-0.035, 0.035))])
    # The middle of the hand is above the wrist and on the side of the thumb.
    shift = middle - matrix @ (np.array([11.0, -62.0]) * grown)
    if mirrored:
        matrix = np.array([[-1.0, 0.0], [0.0, 1.0]]) @ matrix
        shift[0] = width - 1 - shift[0]
    return View(np.column_stack([matrix, shift]), height, width, over=2 if size <= 512 else 1)


def _fit(view: View, hand: Hand) -> View:
    """Shift the picture sideways or down until no fingertip is cut off."""
    tips = np.concatenate([view.to_image(outline) for outline in hand.soft[PALM_PARTS:]])
    margin = 0.02 * view.height
    low, high = margin - tips.min(axis=0), np.array([view.width, view.height]) - 1 - margin - tips.max(axis=0)
    push = np.where(low > high, (low + high) / 2, np.clip(0.0, np.minimum(low, high), np.maximum(low, high)))
    push[1] = max(low[1], 0.0)
    moved = view.matrix + np.column_stack([np.zeros((2, 2)), push])
    return View(moved, view.height, view.width, view.over)


def _radiograph(rng: np.random.Generator, hand: Hand, view: View, build: Build, mirrored: bool) -> HandPhantom:
    grown = growth_fraction(build.age_months, build.sex)
    shape = (view.height, view.width)
    settings = film_exposure.draw_exposure(rng)
    mask = soft_mask(view, hand.soft, 2.6 * grown)
    soft = soft_thickness(view, mask, 15.0 * grown)
    pattern = film_exposure.texture(rng, shape, 0.35 * view.scale / view.over, view.over)
    bone = bone_thickness(view, hand.bones, pattern)
    soft_small, bone_small = view.shrink(soft * (1 + np.float32(0.04) * pattern)), view.shrink(bone)
    picture = film_exposure.develop(soft_small, bone_small, settings)
    _mark(picture, rng, view, mask, "R" if mirrored else "L")
    film_exposure.collimator_edge(picture, rng)
    picture += film_exposure.grain(rng, shape, settings.noise)
    small_mask = (view.shrink(mask * np.float32(1)) >= 0.5).astype(np.uint8) * np.uint8(255)
    return HandPhantom(film_exposure.exposed_uint8(picture), small_mask, build.age_months, build.sex)


def _mark(picture: Layer, rng: np.random.Generator, view: View, mask: Image, letter: str) -> None:
    """Draw the lead letter on empty film, at the best of a few random places along the sides."""
    height = view.height * rng.uniform(0.045, 0.075)
    reach = int(height * 1.2 * view.over)
    best: tuple[float, tuple[float, float]] = (np.inf, (0.0, 0.0))
    for _ in range(8):
        x = view.width * (rng.uniform(0.07, 0.16) if rng.random() < 0.7 else rng.uniform(0.84, 0.93))
        y = view.height * rng.uniform(0.08, 0.92)
        row, column = int(y * view.over), int(x * view.over)
        covered = mask[max(0, row - reach) : row + reach, max(0, column - reach) : column + reach].mean()
        best = min(best, (float(covered), (x, y)))
    film_exposure.lead_marker(picture, rng, letter, best[1], height)
