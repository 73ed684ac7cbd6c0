"""The steps from a decoded to a prepared image, each a pure function on (height, width) uint8 arrays."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from boneage_ray.decoding.lookup import look_up

Gray = npt.NDArray[np.uint8]
_BINS, _NEARLY_NONE, _ANNOTATION = 64, 2e-4, 0.25


def to_uint8(pixels: npt.NDArray[Any]) -> Gray:
    """8-bit pixels unchanged; 16-bit pixels stretched from `gray_range` to 0..255 and clipped.

    Scanners store 10 to 14 significant bits in 16: dividing by 256 would leave such an image black.
    """
    if pixels.dtype == np.uint8:
        return pixels
    low, high = gray_range(pixels)
    levels = np.arange(65536, dtype=np.float32)
    table = np.clip(np.rint((levels - low) * (255.0 / max(high - low, 1))), 0, 255).astype(np.uint8)
    return look_up(table, pixels)


def gray_range(pixels: npt.NDArray[Any]) -> tuple[int, int]:
    """Lowest and highest gray level of a uint16 image without burned-in annotation.

    A letter or frame burned in at 65535 into a 12-bit image would leave the anatomy black. Levels count as burned in if they
    hold at most a quarter of the pixels and a nearly empty gap of half the range or more separates them from all others; a
    radiograph itself has no such gap.
    """
    counts = cv2.calcHist([pixels], [0], None, [65536], [0, 65536]).ravel()
    levels = np.flatnonzero(counts)
    low, high = int(levels[0]), int(levels[-1])
    for _ in range(2):  # white letters and a black frame
        edges = np.linspace(low, high + 1, _BINS + 1)
        bins = np.searchsorted(edges, levels, side="right") - 1
        inside = (levels >= low) & (levels <= high)
        held = np.bincount(bins[inside], counts[levels[inside]], minlength=_BINS)
        first, last = _widest_gap(held <= held.sum() * _NEARLY_NONE)
        if last - first < _BINS // 2:
            break
        below, above = held[:first].sum(), held[last:].sum()
        if above <= _ANNOTATION * held.sum():
            high = int(levels[inside & (bins < first)].max())
        elif below <= _ANNOTATION * held.sum():
            low = int(levels[inside & (bins >= last)].min())
    return low, high


def _widest_gap(empty: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """First and one past the last index of the longest run of True."""
    ends = np.flatnonzero(np.diff(np.concatenate([[False], empty, [False]]).astype(np.int8)))
    if ends.size == 0:
        return 0, 0
    widest = int(np.argmax(ends[1::2] - ends[::2]))
    return int(ends[2 * widest]), int(ends[2 * widest + 1])


def square(pixels: Gray, size: int) -> tuple[Gray, tuple[float, float, float]]:
    """Resize to fit `size`, with the aspect ratio kept, centred on zeros.

    Returns the (size, size) image and (s, tx, ty): x_original = s * x + tx, y_original = s * y + ty, with pixel centres
    at integer coordinates.
    """
    s = max(pixels.shape) / size
    factor = s
    while factor >= 4:  # a mean of 2 x 2 costs a tenth of resizing by a fraction
        pixels, factor = _halved(pixels), factor / 2
    method = cv2.INTER_AREA if factor > 1 else cv2.INTER_LINEAR
    # By factor, not by size: a rounded width would stretch one side and shift points by up to half a pixel.
    small: Any = cv2.resize(pixels, None, fx=1 / factor, fy=1 / factor, interpolation=method)
    new_height, new_width = small.shape
    left, top = (size - new_width) // 2, (size - new_height) // 2
    canvas = np.zeros((size, size), np.uint8)
    canvas[top : top + new_height, left : left + new_width] = small
    # The centre of prepared pixel x covers original x = (x - left + 0.5) * s - 0.5.
    return canvas, (s, (0.5 - left) * s - 0.5, (0.5 - top) * s - 0.5)


def _halved(pixels: Gray) -> Gray:
    """Means of 2 x 2 pixels; an odd side repeats its last pixel, so that pixel X always covers 2 X and 2 X + 1."""
    height, width = pixels.shape
    if height % 2 or width % 2:
        pixels = np.asarray(cv2.copyMakeBorder(pixels, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE), np.uint8)
    half: Any = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.asarray(half, np.uint8)


def clahe(pixels: Gray, clip: float, tiles: int) -> Gray:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld 1994) over tiles x tiles regions."""
    result: Any = cv2.createCLAHE(clipLimit=clip, tileGridSize=(tiles, tiles)).apply(pixels)
    return np.asarray(result, np.uint8)


def sharpen(pixels: Gray, amount: float) -> Gray:
    """Subtract `amount` times the Laplacian; the result is clipped to 0..255."""
    edges = cv2.Laplacian(pixels, cv2.CV_32F, ksize=3)
    result: Gray = np.clip(np.rint(pixels - amount * edges), 0, 255).astype(np.uint8)
    return result
