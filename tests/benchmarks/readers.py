"""Two readers who mark facial landmarks at different places: by how much, from the shapes of the heads alone.

Of the ISBI heads, images 301 to 400 have some landmarks elsewhere than the others (the soft-tissue pogonion 10 mm higher). A
network that learns from both marks a place between; so all training labels are brought to what most heads have.
"""

from __future__ import annotations

import numpy as np

from boneage_ray.anatomy.cephalometry import FACIAL

# Marked alike by both: where they lie, the rest is expected.
COMMON = [
    FACIAL.index(name)
    for name in (
        "sella",
        "nasion",
        "pogonion",
        "menton",
        "gnathion",
        "posterior_nasal_spine",
        "lower_incisal_incision",
        "upper_incisal_incision",
    )
]


def difference(points_NK2, other_N):
    """(19, 2) how far the other reader's points lie from those of the first, in the unit of `points_NK2` (N heads, 19 points).

    Each coordinate is explained by those of the common landmarks and by the reader (analysis of covariance). What is no more
    than chance is left out: a difference d with t = d / its standard error counts as d (1 - 2 / t^2), or not at all.
    Raises `ValueError` for one reader alone, and for too few heads.
    """
    if len({*map(bool, other_N)}) < 2 or len(points_NK2) < 2 * (2 * len(COMMON) + 2):
        raise ValueError(
            f"{len(points_NK2)} heads, {int(np.sum(other_N))} of them of another reader: too few to compare"
        )
    found_K2 = np.zeros(points_NK2.shape[1:])
    for point in range(points_NK2.shape[1]):
        others = points_NK2[:, [k for k in COMMON if k != point]].reshape(len(points_NK2), -1)
        known = np.column_stack([np.asarray(other_N, float), np.ones(len(others)), others - others.mean(0)])
        spread = np.linalg.pinv(known.T @ known)[0, 0]
        free = len(known) - known.shape[1]
        for axis in (0, 1):
            values_N = points_NK2[:, point, axis]
            fitted, *_ = np.linalg.lstsq(known, values_N, rcond=None)
            error = np.sqrt(((values_N - known @ fitted) ** 2).sum() / free * spread)
            certain = fitted[0] ** 2 - 2 * error**2
            found_K2[point, axis] = certain / fitted[0] if certain > 0 else 0.0
    return found_K2
