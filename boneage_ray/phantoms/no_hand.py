"""Pictures that show no hand, of nine kinds and phantom heads: what the gate by pixels learns to tell from hands.

None imitates a real file.

>>> picture = no_hand("text", seed=1)
>>> picture.shape == no_hand("text", seed=1).shape, picture.dtype
(True, dtype('uint8'))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.phantoms.film import Image

Floats = NDArray[np.floating[Any]]
HEADS = "phantom heads"
_SIDES = (200, 420)
_LETTERS = [chr(code) for code in (*range(97, 123), *range(97, 123), *range(48, 58), *[32] * 14)]


def no_hand(kind: str, seed: int) -> Image:
    """One picture (H, W) uint8 of a kind in `KINDS`; equal arguments give equal pixels."""
    rng = np.random.default_rng([seed, tuple(KINDS).index(kind)])
    height, width = (int(side) for side in rng.integers(_SIDES[0], _SIDES[1], 2))
    return KINDS[kind](rng, height, width)


def pictures_without_hand(seeds: Sequence[int]) -> dict[str, list[Image]]:
    """Pictures of each kind and phantom heads, by the name of the kind; one of each for every seed."""
    named = {kind: [no_hand(kind, seed) for seed in seeds] for kind in KINDS}
    return named | {HEADS: [cephalogram_phantom(seed, 1 + seed % 6, 400).image for seed in seeds]}


def _clouds(rng: np.random.Generator, h: int, w: int) -> Image:
    return _gray(_field(rng, h, w, rng.uniform(0.6, 2.2)))


def _noise(rng: np.random.Generator, h: int, w: int) -> Image:
    picture: Any = rng.random((h, w)) if rng.random() < 0.5 else rng.normal(0, 1, (h, w))
    if grain := int(rng.integers(0, 4)):
        picture = cv2.GaussianBlur(picture, (0, 0), grain * 0.7)
    return _gray((picture - picture.min()) / np.ptp(picture))


def _text(rng: np.random.Generator, h: int, w: int) -> Image:
    dark = rng.random() < 0.4
    page = np.full((2 * h, 2 * w), 15 if dark else 245, np.uint8)
    scale, y = rng.uniform(0.4, 1.4), 0
    while y < 2 * h:
        y += int(scale * rng.uniform(26, 40))
        line = "".join(rng.choice(_LETTERS, int(rng.integers(3, max(4, int(2 * w / (scale * 12)))))))
        place = (int(rng.uniform(0.03, 0.15) * 2 * w), y)
        face, gray = int(rng.choice([0, 2, 3, 4])), 235 if dark else 10
        cv2.putText(page, line, place, face, scale, gray, max(1, int(scale * 2)), cv2.LINE_AA)
    return page


def _slices(rng: np.random.Generator, h: int, w: int) -> Image:
    """A body with organs in it, as in cross sections."""
    picture: Any = np.zeros((h, w), np.float32)
    middle = np.array([w / 2, h / 2]) + rng.normal(0, 8, 2)
    radii = np.array([w, h]) * rng.uniform(0.3, 0.46, 2)
    _ellipse(picture, middle, radii, rng.uniform(0, 180), rng.uniform(0.3, 0.6))
    if rng.random() < 0.5:
        box: Any = (tuple(middle), tuple(2 * radii), 0)
        cv2.ellipse(picture, box, 1.0, int(rng.integers(2, 12)))
    for _ in range(int(rng.integers(3, 14))):
        place, size = middle + rng.uniform(-0.6, 0.6, 2) * radii, radii * rng.uniform(0.03, 0.35, 2)
        _ellipse(picture, place, size, rng.uniform(0, 180), rng.uniform(0, 1))
    texture = 0.15 * (_field(rng, h, w, 1.5) - 0.5) * (picture > 0.02)
    return _gray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 3)) + texture + _grain(rng, h, w, 0.06))


def _shapes(rng: np.random.Generator, h: int, w: int) -> Image:
    picture = np.full((h, w), int(rng.integers(0, 256)), np.uint8)
    for _ in range(int(rng.integers(2, 20))):
        gray, width = int(rng.integers(0, 256)), int(rng.choice([-1, 2, 5]))
        corners = (rng.uniform(0, 1, (int(rng.integers(3, 6)), 2)) * (w, h)).astype(np.int32)
        first, second = (tuple(map(int, corner)) for corner in corners[:2])
        match int(rng.integers(0, 4)):
            case 0:
                cv2.fillPoly(picture, [corners], gray)
            case 1:
                cv2.line(picture, first, second, gray, int(rng.integers(1, 20)))
            case 2:
                cv2.circle(picture, first, int(rng.uniform(0.03, 0.3) * w), gray, width)
            case _:
                cv2.rectangle(picture, first, second, gray, width)
    return _gray(picture / 255 + _grain(rng, h, w, 0.04))


def _patterns(rng: np.random.Generator, h: int, w: int) -> Image:
    """Stripes, a chess board, rings or a ramp, at any angle."""
    y, x = np.mgrid[:h, :w]
    turn, waves = rng.uniform(0, np.pi), 2 * np.pi * rng.uniform(4, 40) / w
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    match int(rng.integers(0, 4)):
        case 0:
            wave = np.sin(waves * along)
        case 1:
            wave = np.sign(np.sin(waves * along) * np.sin(waves * across))
        case 2:
            wave = np.sin(waves * np.hypot(x - w / 2, y - h / 2))
        case _:
            wave = 2 * (along - along.min()) / np.ptp(along) - 1
    return _gray(0.5 + 0.45 * wave + _grain(rng, h, w, 0.05))


def _fan(rng: np.random.Generator, h: int, w: int) -> Image:
    """A sector of speckle, as in ultrasound."""
    y, x = np.mgrid[:h, :w]
    depth, angle = np.hypot(x - w / 2, y + 0.1 * h), np.abs(np.arctan2(x - w / 2, y + 0.1 * h))
    inside = (angle < rng.uniform(0.4, 0.8)) & (depth < h * rng.uniform(0.8, 1.05)) & (depth > 0.2 * h)
    echo = _field(rng, h, w, rng.uniform(0.6, 1.4)) ** rng.uniform(1, 2.5) * rng.rayleigh(0.6, (h, w))
    return _gray(cv2.GaussianBlur(np.clip(echo, 0, 1) * inside, (0, 0), 1.0))


def _limb(rng: np.random.Generator, h: int, w: int) -> Image:
    """One or two long bones in soft tissue, with or without a joint: no fingers."""
    picture: Any = np.zeros((h, w), np.float32)
    half, count = rng.uniform(0.15, 0.35) * w, int(rng.integers(1, 3))
    joint, middle = rng.random() < 0.5, h * rng.uniform(0.35, 0.65)
    _bar(picture, w / 2, half, 0.35)
    for k in range(count):
        x, bone = w / 2 + (k - (count - 1) / 2) * half, half * (0.45 if count == 1 else 0.3)
        _bar(picture, x, bone, 0.75)
        _bar(picture, x, bone * 0.6, 0.58)
        if joint:
            for side in (-1, 1):
                _ellipse(picture, np.array([x, middle + side * 0.1 * h]), np.array([1.5 * bone, 0.1 * h]), 0, 0.7)
            gap = ((int(x - 2 * bone), int(middle - 3)), (int(x + 2 * bone), int(middle + 3)))
            cv2.rectangle(picture, *gap, 0.4, -1)
    turned = cv2.warpAffine(picture, cv2.getRotationMatrix2D((w / 2, h / 2), rng.normal(0, 25), 1), (w, h))
    texture = 0.06 * (_field(rng, h, w, 1.0) - 0.5)
    return _gray(cv2.GaussianBlur(turned, (0, 0), rng.uniform(1, 3)) + texture + rng.normal(0, 0.015, (h, w)) + 0.03)


def _blank(rng: np.random.Generator, h: int, w: int) -> Image:
    """A plate without a patient: a ramp, often in a border, with letters."""
    y, x = np.mgrid[:h, :w] / max(h, w)
    picture = rng.uniform(0.1, 0.8) + rng.uniform(-0.4, 0.4) * x + rng.uniform(-0.4, 0.4) * y
    if rng.random() < 0.6:
        rim, plate = int(rng.uniform(0.03, 0.2) * min(h, w)), picture
        picture = np.full((h, w), rng.choice([0.0, 1.0]))
        picture[rim:-rim, rim:-rim] = plate[rim:-rim, rim:-rim]
    film = _gray(picture + rng.normal(0, 0.01, (h, w)))
    place = (int(rng.uniform(0.1, 0.7) * w), int(rng.uniform(0.2, 0.9) * h))
    cv2.putText(film, str(rng.choice(["L", "R", "MRS", "L 12"])), place, 0, h / 250, int(rng.choice([0, 255])), 2)
    return film


def _field(rng: np.random.Generator, h: int, w: int, power: float) -> Floats:
    """A random field (H, W) in [0, 1], of which the amplitudes fall with frequency to this power."""
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None])
    frequency[0, 0] = frequency[0, 1]
    field = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(h, w))) / frequency**power, (h, w))
    low, high = np.percentile(field, (1, 99))
    return np.asarray(np.clip((field - low) / (high - low), 0, 1))


def _ellipse(picture: Any, middle: Floats, radii: Floats, turn: float, gray: float) -> None:  # noqa: ANN401  OpenCV's arrays
    box: Any = (tuple(map(float, middle)), tuple(map(float, 2 * radii)), float(turn))
    cv2.ellipse(picture, box, float(gray), -1)


def _bar(picture: Any, x: float, half: float, gray: float) -> None:  # noqa: ANN401  OpenCV's arrays
    cv2.rectangle(picture, (int(x - half), 0), (int(x + half), picture.shape[0]), gray, -1)


def _grain(rng: np.random.Generator, h: int, w: int, most: float) -> Floats:
    return rng.normal(0, rng.uniform(0, most), (h, w))


def _gray(picture: Any) -> Image:  # noqa: ANN401  OpenCV's arrays
    return np.asarray(np.clip(np.rint(np.asarray(picture) * 255), 0, 255), np.uint8)


KINDS: dict[str, Callable[[np.random.Generator, int, int], Image]] = {
    "clouds": _clouds,
    "noise": _noise,
    "text": _text,
    "slices": _slices,
    "shapes": _shapes,
    "patterns": _patterns,
    "fan": _fan,
    "limb": _limb,
    "blank": _blank,
}
