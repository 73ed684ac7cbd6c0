"""Thirteen points of C2 to C4 that are one spine: where maps are highest at the level of a neighbouring vertebra.

Vertebrae look alike, so the map of a point may have a peak at each of several levels, and single points jump from one level to
the next. A spine is then searched for: of every three maps, peaks are taken as points of a mean spine, whose other points
follow; the place counts at which the peaks near all of them are highest.

Axis letters: K the 13 points, C peaks of a map, N places of the spine. Points are (x, y) in pixels of the map.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

# Mean of 120 synthetic spines of all stages (phantoms/spine_shape.py) up to affine maps; root mean square radius 1.
MEAN_K2 = np.array(
    [
        *((-0.27, -1.19), (0.31, -1.13), (0.83, -0.86)),
        *((-0.33, -0.90), (-0.56, -0.07), (0.00, 0.00), (0.52, 0.24), (0.72, -0.51)),
        *((-0.65, 0.21), (-0.89, 1.07), (-0.32, 1.16), (0.21, 1.39), (0.42, 0.60)),
    ]
)
# In units of the radius. A real spine differs from an affine image of the mean by 0.16 at 95 % of its points, and the next
# level is 1.1 away.
SPREAD, FAR = 0.15, 0.5
_PEAKS, _APART = 3, 9  # of a map, and pixels between two of them
_LEAST = 1e-4  # of a map's highest pixel: lower ones say nothing
_ENOUGH = 9  # points that a spine must find peaks for
_DISTANT = 6.0  # what a distant peak costs at most, as a logarithm
_NARROW = 1.8  # how many times a spine may be wider one way than the mean, against the other way
_FLAT = 0.2  # twice the least area of three points that place a spine
_ONE = np.c_[MEAN_K2, np.ones(len(MEAN_K2))]


class PlacedSpine(NamedTuple):
    """expected_K2: where the points of the placed mean spine are. reach: how far from there a real point may be."""

    expected_K2: Floats
    reach: float

    def far(self, points_K2: Floats) -> NDArray[np.bool_]:
        """(K,) which of these points are not where this spine can have them; none that is NaN."""
        return np.asarray(np.hypot(*(points_K2 - self.expected_K2).T) > self.reach)


def spine_through(points_K2: Floats) -> PlacedSpine | None:
    """The mean spine placed by all points (least squares); None if they are no image of it, or not finite."""
    if not np.isfinite(points_K2).all():
        return None
    frame_32 = np.linalg.lstsq(_ONE, points_K2, rcond=None)[0]
    size = _sizes(frame_32[None])[0]
    return PlacedSpine(_ONE @ frame_32, FAR * size) if size > 0 else None


def find_spine(heat_KHW: Floats) -> PlacedSpine | None:
    """The spine whose points are at peaks of the maps (values >= 0); None where no place has peaks for nine of the points.

    A peak counts by the logarithm of its share of the map's highest, its distance as of a Gaussian of `SPREAD`.
    """
    peaks_KC2, height_KC = _peaks(heat_KHW)
    frames_N32 = _placed(peaks_KC2)
    sizes_N = _sizes(frames_N32)
    frames_N32, sizes_N = frames_N32[sizes_N > 0], sizes_N[sizes_N > 0]
    if not len(frames_N32):
        return None
    off_NKC2 = peaks_KC2 - (_ONE @ frames_N32)[:, :, None]
    cost_NKC = (off_NKC2**2).sum(-1) / (2 * (SPREAD * sizes_N[:, None, None]) ** 2)
    worth_NKC = height_KC - np.minimum(cost_NKC, _DISTANT)
    best = worth_NKC.max(-1).sum(-1).argmax()
    chosen_K1 = worth_NKC[best].argmax(-1)[:, None]
    cost_K, peak_K = (np.take_along_axis(values, chosen_K1, 1)[:, 0] for values in (cost_NKC[best], height_KC))
    near_K = (cost_K < _DISTANT) & (peak_K > np.log(_LEAST))
    if near_K.sum() < _ENOUGH:
        return None
    points_K2 = np.take_along_axis(peaks_KC2, chosen_K1[..., None], 1)[:, 0]
    refined_32 = np.linalg.lstsq(_ONE[near_K], points_K2[near_K], rcond=None)[0]
    size = _sizes(refined_32[None])[0]
    return PlacedSpine(_ONE @ refined_32, FAR * size) if size > 0 else None


def within_reach(spine: PlacedSpine, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """(K, H, W) the pixels of each map where its point can be."""
    y_HW, x_HW = np.indices(shape)
    return np.array([np.hypot(x_HW - x, y_HW - y) <= spine.reach for x, y in spine.expected_K2])


def seen(heat_KHW: Floats, within_KHW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(K,) whether a map has anything within reach."""
    highest_K = np.where(within_KHW, heat_KHW, 0).max((-2, -1))
    return np.asarray(highest_K > _LEAST * heat_KHW.max((-2, -1)))


def _peaks(heat_KHW: Floats) -> tuple[Floats, Floats]:
    """(K, C, 2) the highest local maxima of each map, and (K, C) the logarithms of their shares of the highest."""
    side = np.ones((_APART, _APART), np.uint8)
    places, heights = [], []
    for heat_HW in np.nan_to_num(heat_KHW.astype(np.float32)):
        top_HW = np.where(heat_HW == cv2.dilate(heat_HW, side), heat_HW, 0)
        index = np.argsort(-top_HW, axis=None, kind="stable")[:_PEAKS]
        y, x = np.unravel_index(index, top_HW.shape)
        places.append(np.stack([x, y], -1).astype(float))
        heights.append(np.log(np.maximum(top_HW[y, x] / max(top_HW.max(), _LEAST), _LEAST)))
    return np.array(places), np.array(heights)


def _placed(peaks_KC2: Floats) -> Floats:
    """(N, 3, 2) affine maps of the mean spine by every choice of peaks of every three points."""
    found = []
    for three in map(list, combinations(range(len(MEAN_K2)), 3)):
        if abs(np.linalg.det(_ONE[three])) >= _FLAT:
            chosen_N32 = np.array(list(product(*peaks_KC2[three])))
            found.append(np.linalg.inv(_ONE[three]) @ chosen_N32)
    return np.concatenate(found)


def _sizes(frames_N32: Floats) -> Floats:
    """(N,) radius of each placed spine in pixels; 0 for those that are mirrored, or too narrow one way."""
    linear_N22 = frames_N32[:, :2]
    area_N = np.linalg.det(linear_N22)
    wide_N, slim_N = np.linalg.svd(linear_N22, compute_uv=False).T
    return np.asarray(np.where((area_N > 0) & (wide_N < _NARROW * slim_N), np.sqrt(np.abs(area_N)), 0.0))
