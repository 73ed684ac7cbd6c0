"""How well a score tells two groups apart: the receiver operating characteristic. Pure functions."""

from __future__ import annotations

import numpy as np

from boneage_ray.preparation.geometry import Floats

MOST_POINTS = 200


def roc_points(known_N: Floats, other_M: Floats) -> list[tuple[float, float]]:
    """(share of the known that is rejected, share of the others that is rejected) as the limit rises; from (0, 0) to (1, 1).

    A case is rejected below the limit. At most `MOST_POINTS` points.

    >>> roc_points(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    [(0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0)]
    """
    from sklearn.metrics import roc_curve

    lost, caught, _ = roc_curve(*_labelled(known_N, other_M), drop_intermediate=False)
    points = list(zip(lost.tolist(), caught.tolist(), strict=True))
    if len(points) <= MOST_POINTS:
        return points
    chosen = np.unique(np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int))
    return [points[k] for k in chosen]


def area_under_roc(known_N: Floats, other_M: Floats) -> float:
    """How often a known case has a larger score than another one; equal scores count half (Mann and Whitney).

    >>> area_under_roc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_labelled(known_N, other_M)))


def _labelled(known_N: Floats, other_M: Floats) -> tuple[Floats, Floats]:
    """Which cases are others, and a score that is high for these."""
    return np.concatenate([np.zeros(len(known_N)), np.ones(len(other_M))]), -np.concatenate([known_N, other_M])
