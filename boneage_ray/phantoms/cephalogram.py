"""A synthetic lateral cephalogram of a given maturation stage with exact landmarks.

Points are (x, y) in pixels of the picture, pixel centres at integers, in the order of anatomy.cephalometry;
the patient faces right.

>>> phantom = cephalogram_phantom(seed=1, stage=4, size=256)
>>> phantom.image.shape, phantom.vertebral.shape, phantom.facial.shape, phantom.stage
((256, 206), (13, 2), (19, 2), 'CS4')
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from boneage_ray.anatomy.cephalometry import FACIAL
from boneage_ray.errors import UsageError
from boneage_ray.phantoms import exposure as film_exposure
from boneage_ray.phantoms.film import Image, Layer, Outline, View, fill_outline, soft_mask, soft_thickness
from boneage_ray.phantoms.head_shape import (
    HeadPart,
    Landmarks,
    Stroke,
    draw_face,
    head_parts,
    head_strokes,
    neck_parts,
    soft_outline,
    teeth,
)
from boneage_ray.phantoms.spine_shape import STAGES, Spine, build_spine

ASPECT = 1935 / 2400
MIN_SIZE = 64
FILM_MM = 240.0


@dataclass(frozen=True)
class CephalogramPhantom:
    """`image` (H, W) uint8; `vertebral` (13, 2) and `facial` (19, 2) in pixels; `stage` "CS1" to "CS6"."""

    image: Image
    vertebral: NDArray[np.float64]
    facial: NDArray[np.float64]
    stage: str
    pixel_spacing_mm: float


def cephalogram_phantom(seed: int, stage: int, size: int) -> CephalogramPhantom:
    """Draw one head, `size` pixels high (about 240 mm) and 0.806 `size` wide; equal arguments, equal pixels.

    Raises UsageError for a stage outside 1 to 6 or a size below 64.
    """
    if size < MIN_SIZE:
        raise UsageError(f"size {size}: a cephalogram phantom needs at least {MIN_SIZE} pixels")
    rng = np.random.default_rng([seed, 2])
    scale = float(np.interp(stage, [1, 6], [0.93, 1.0]) * rng.uniform(0.97, 1.03))
    face = draw_face(rng, scale)
    spine = build_spine(rng, stage, np.array([-24.5, 70.0]) * scale + rng.normal(0, [2.0, 2.0]))
    view = _pose(rng, size)
    image = _radiograph(rng, view, face, spine, scale)
    facial = view.to_image(np.array([face[name] for name in FACIAL]))
    return CephalogramPhantom(image, view.to_image(spine.points), facial, STAGES[stage - 1], view.pixel_mm)


def _pose(rng: np.random.Generator, size: int) -> View:
    height, width = size, round(size * ASPECT)
    scale = height / (FILM_MM * rng.uniform(0.98, 1.03))
    turn = np.deg2rad(rng.normal(0, 2.5))
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    sella = np.array([0.42 + rng.uniform(-0.02, 0.02), 0.44 + rng.uniform(-0.012, 0.012)]) * (width, height)
    return View(np.column_stack([matrix, sella - 0.5]), height, width, over=2 if size <= 640 else 1)


def _radiograph(rng: np.random.Generator, view: View, face: Landmarks, spine: Spine, scale: float) -> Image:
    shape = (view.height, view.width)
    mask = soft_mask(view, (soft_outline(face, scale),), 0.8)
    # Thick in the middle, with a thin skin that shows the profile.
    soft = np.float32(0.7) * soft_thickness(view, mask, 34.0, 0.04) + np.float32(0.3) * soft_thickness(
        view, mask, 5.0, 0.05
    )
    bone = view.blank()
    for part in (*head_parts(face, scale), *neck_parts(spine, scale), *teeth(face, scale)):
        _add_part(view, part, bone)
    for stroke in head_strokes(face, scale):
        _add_stroke(view, stroke, bone)
    fine = film_exposure.texture(rng, shape, 0.8 / view.pixel_mm, view.over)
    coarse = film_exposure.texture(rng, shape, 6.0 / view.pixel_mm, view.over)
    bone *= 1 + np.float32(0.035) * fine + np.float32(0.05) * coarse
    bone = np.asarray(cv2.GaussianBlur(bone, (0, 0), 0.22 * view.scale + 0.3), dtype=np.float32)
    total = np.maximum(np.float32(rng.uniform(0.26, 0.36)) * soft + np.float32(rng.uniform(0.85, 1.05)) * bone, 0)
    picture = _expose(rng, view.shrink(total))
    _furniture(picture, view)
    picture += film_exposure.grain(rng, shape, rng.uniform(0.004, 0.010))
    return film_exposure.exposed_uint8(picture)


def _expose(rng: np.random.Generator, total: Layer) -> Layer:
    """Brightness for an attenuation, on a film that is grey at the edge in front of the face."""
    light = (1 - np.exp(np.float32(-1.75 * rng.uniform(0.9, 1.1)) * total)) ** np.float32(rng.uniform(0.9, 1.15))
    across = np.linspace(0, 1, total.shape[1], dtype=np.float32)[None, :]
    fog = np.float32(0.03) + np.float32(rng.uniform(0.05, 0.30)) * np.maximum(
        0, across - np.float32(0.72)
    ) / np.float32(0.28)
    return np.asarray(fog + (1 - fog) * light * np.float32(rng.uniform(0.95, 1.1)), dtype=np.float32)


def _furniture(picture: Layer, view: View) -> None:
    """The head holder's rod before the forehead and the bright notches of the cassette."""
    height, width = picture.shape
    mm = 1 / view.pixel_mm
    left, right, bottom = (round(v) for v in (0.875 * width, 0.875 * width + 3 * mm, 0.44 * height))
    picture[:bottom, left:right] += np.float32(0.25)
    for tick in range(10):
        top = bottom - round((2 + 2 * tick) * mm)
        picture[top : top + max(1, round(0.8 * mm)), left:right] += np.float32(0.45)
    for place in (0.24, 0.47, 0.70):
        picture[: round(6 * mm), round(place * width) : round(place * width + 11 * mm)] = 1.0


def _window(view: View, points: Outline, layer: Layer) -> tuple[NDArray[np.int_], NDArray[np.int_]] | None:
    low = np.maximum(np.floor(points.min(axis=0)).astype(int) - 4, 0)
    high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 5, layer.shape[::-1])
    return None if np.any(high <= low) else (low, high)


def _add_part(view: View, part: HeadPart, layer: Layer) -> None:
    points = view.to_canvas(part.outline)
    found = _window(view, points, layer)
    if found is None:
        return
    low, high = found
    mask: Image = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    fill_outline(mask, points - low)
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1] / np.float32(view.scale)
    depth = np.minimum(inside / np.float32(part.round_mm), 1)
    body = np.float32(part.weight) * np.sqrt(depth * (2 - depth))
    if part.rim:
        body += np.float32(part.rim) * np.exp(-((inside / np.float32(part.rim_mm)) ** 2)) * mask
    layer[low[1] : high[1], low[0] : high[0]] += body


def _add_stroke(view: View, stroke: Stroke, layer: Layer) -> None:
    points = view.to_canvas(stroke.points)
    found = _window(view, points, layer)
    if found is None:
        return
    low, high = found
    line = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    fixed = np.round((points - low) * 32).astype(np.int32)
    cv2.polylines(line, [fixed], False, 1, max(1, round(stroke.width_mm * view.scale)), cv2.LINE_8, 5)
    wall = cv2.GaussianBlur(line * np.float32(stroke.weight), (0, 0), 0.35 * stroke.width_mm * view.scale + 0.3)
    layer[low[1] : high[1], low[0] : high[0]] += wall
