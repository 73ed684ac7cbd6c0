"""Outlines as a radiograph: thickness of bone and soft tissue along the ray.

Outlines are (N, 2) polygons of (x, y). A `View` maps them to pixels; pixel centres are at integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float64]
Image = NDArray[np.uint8]
Layer = NDArray[np.float32]

_SHIFT = 5


@dataclass(frozen=True)
class Bone:
    """A bone in millimetres: the union of its outlines, a cortical shell around spongy bone.

    `axis` are the ends of the shaft of a tubular bone, whose cortex is thick in the middle and thin at the ends.
    `scars` are bright lines (points, strength) left by a fused growth plate.
    """

    outlines: tuple[Outline, ...]
    cortex: float
    density: float = 1.0
    axis: tuple[Outline, Outline] | None = None
    scars: tuple[tuple[Outline, float], ...] = ()


@dataclass(frozen=True)
class View:
    """Affine map from millimetres to pixels of a canvas drawn `over` times finer than the picture."""

    matrix: NDArray[np.float64]
    height: int
    width: int
    over: int

    @property
    def scale(self) -> float:
        """Canvas pixels per millimetre."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))) * self.over)

    @property
    def pixel_mm(self) -> float:
        """Millimetres per pixel of the picture."""
        return self.over / self.scale

    def to_image(self, points: Outline) -> Outline:
        """Millimetres (N, 2) -> pixels of the picture."""
        return np.asarray(points @ self.matrix[:, :2].T + self.matrix[:, 2])

    def to_canvas(self, points: Outline) -> Outline:
        """Millimetres (N, 2) -> pixels of the finer canvas; both have pixel centres at integers."""
        return (self.to_image(points) + 0.5) * self.over - 0.5

    def blank(self) -> Layer:
        """An empty canvas."""
        return np.zeros((self.height * self.over, self.width * self.over), np.float32)

    def shrink(self, layer: Layer) -> Layer:
        """Canvas -> picture, by averaging."""
        if self.over == 1:
            return layer
        return np.asarray(cv2.resize(layer, (self.width, self.height), interpolation=cv2.INTER_AREA))


def smooth(outline: Outline, rounds: int = 2) -> Outline:
    """Cut the corners of a closed polygon (Chaikin)."""
    for _ in range(rounds):
        following = np.roll(outline, -1, axis=0)
        corners = [0.75 * outline + 0.25 * following, 0.25 * outline + 0.75 * following]
        outline = np.stack(corners, axis=1).reshape(-1, 2)
    return outline


def fill_outline(canvas: Image, points: Outline) -> None:
    """Fill one polygon of canvas coordinates with 1, with sub-pixel corners."""
    fixed = np.round(points * 2**_SHIFT).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], 1, lineType=cv2.LINE_8, shift=_SHIFT)


def soft_mask(view: View, outlines: tuple[Outline, ...], rounding_mm: float) -> Image:
    """Union of the outlines with rounded inner corners, 0 or 1, canvas resolution."""
    mask = np.zeros(view.blank().shape, np.uint8)
    for outline in outlines:
        fill_outline(mask, view.to_canvas(outline))
    blurred = cv2.GaussianBlur(mask * np.float32(1), (0, 0), max(0.5, rounding_mm * view.scale))
    return (blurred > 0.5).astype(np.uint8)


def soft_thickness(view: View, mask: Image, depth_mm: float, blur: float = 0.10) -> Layer:
    """Thickness of a body with a round edge, 0 to 1, flat from `depth_mm` inwards, blurred."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1] / np.float32(depth_mm * view.scale)
    inside = np.minimum(inside, np.float32(1))
    thickness = np.sqrt(inside * (2 - inside))
    return np.asarray(cv2.GaussianBlur(thickness, (0, 0), max(0.5, blur * depth_mm * view.scale)))


def bone_thickness(view: View, bones: tuple[Bone, ...], texture: Layer) -> Layer:
    """Mineral along the ray, summed over the bones; `texture` (canvas size) is the trabecular pattern."""
    layer = view.blank()
    for bone in bones:
        _add_bone(view, bone, texture, layer)
    return layer


def _add_bone(view: View, bone: Bone, texture: Layer, layer: Layer) -> None:
    outlines = [view.to_canvas(o) for o in bone.outlines]
    everything = np.concatenate(outlines)
    low = np.maximum(np.floor(everything.min(axis=0)).astype(int) - 2, 0)
    high = np.minimum(np.ceil(everything.max(axis=0)).astype(int) + 3, layer.shape[::-1])
    if np.any(high <= low):
        return
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    for outline in outlines:
        fill_outline(mask, outline - low)
    window = np.s_[low[1] : high[1], low[0] : high[0]]
    middle = _mid_shaft(view, bone, low, mask.shape)
    layer[window] += _tube(mask, bone.cortex * view.scale, middle, texture[window], view.scale) * np.float32(
        bone.density
    )
    for points, strength in bone.scars:
        line = np.zeros(mask.shape, np.uint8)
        ends = np.round((view.to_canvas(points) - low) * 2**_SHIFT).astype(np.int32)
        cv2.polylines(line, [ends], False, 1, max(1, round(0.9 * view.scale)), cv2.LINE_8, _SHIFT)
        layer[window] += cv2.blur(line * mask * np.float32(0.30 * strength * bone.density), (3, 3))


def _mid_shaft(view: View, bone: Bone, low: NDArray[np.int_], shape: tuple[int, ...]) -> Layer:
    """1 in the middle of a shaft, falling to 0 at its ends, per pixel; 0 for a bone without a shaft."""
    if bone.axis is None:
        return np.zeros((1, 1), np.float32)
    start, end = (view.to_canvas(p[None])[0] - low for p in bone.axis)
    along = (end - start) / np.sum((end - start) ** 2)
    rows = ((np.arange(shape[0]) - start[1]) * along[1]).astype(np.float32)
    columns = ((np.arange(shape[1]) - start[0]) * along[0]).astype(np.float32)
    place = rows[:, None] + columns[None, :] - np.float32(0.5)
    return np.asarray(np.exp(-((place / np.float32(0.27)) ** 2)))


def _tube(mask: Image, cortex: float, middle: Layer, texture: Layer, scale: float) -> Layer:
    """Mineral along the ray through a round shell filled with spongy bone, about 0 to 1.

    `cortex` (canvas pixels) holds in mid-shaft; towards the ends the shell thins and spongy bone takes over.
    """
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    radius = np.float32(inside.max()) * np.float32(1.05) + np.float32(0.5)
    shell_width = np.maximum(np.float32(cortex) * (np.float32(0.25) + np.float32(0.75) * middle), np.float32(0.8))
    off = radius - inside
    outer = np.sqrt(np.maximum(radius**2 - off**2, 0))
    hollow = np.maximum(radius - shell_width, 0)
    inner = np.sqrt(np.maximum(hollow**2 - off**2, 0))
    spongy = np.float32(0.50) - np.float32(0.30) * middle + np.float32(0.055) * texture
    # A thick bone is brighter than a thin one, but less than in proportion, because of scatter and because depth is not width.
    thickness = np.float32((float(radius) / scale / 5.0) ** 0.4)
    return np.asarray(mask * ((outer - inner) * np.float32(1.45) + inner * spongy) * (thickness / radius))
