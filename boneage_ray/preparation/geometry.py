"""Points of a record: both sets as one array, in pixels of the original or of the prepared image.

`to_original` is (s, tx, ty): x_original = s * x + tx, y_original = s * y + ty. Points are (x, y), NaN where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boneage_ray.anatomy.cephalometry import FACIAL, VERTEBRAL

Floats = NDArray[np.float64]
ToOriginal = Sequence[float]


def given_points(vertebral: ArrayLike | None, facial: ArrayLike | None) -> Floats:
    """(32, 2) in the order of cephalometry.LANDMARKS, from the columns of a record; NaN for a set that is None."""
    given = ((vertebral, len(VERTEBRAL)), (facial, len(FACIAL)))
    return np.concatenate([np.full((n, 2), np.nan) if p is None else np.asarray(p, np.float64) for p, n in given])


def to_original_pixels(points_K2: NDArray[Any], to_original: ToOriginal) -> Floats:
    """Points (K, 2) of the prepared image as points of the original."""
    s, *shift = to_original
    return np.asarray(np.asarray(points_K2, np.float64) * s + shift)


def to_prepared_pixels(points_K2: NDArray[Any], to_original: ToOriginal) -> Floats:
    """The inverse of `to_original_pixels`."""
    s, *shift = to_original
    return np.asarray((np.asarray(points_K2, np.float64) - shift) / s)
