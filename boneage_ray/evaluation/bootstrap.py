"""Bootstrap intervals: how far a mean over the cases of a split may lie from the mean over all cases like them."""

from __future__ import annotations

import numpy as np

from boneage_ray.preparation.geometry import Floats

RESAMPLES = 2000
INTERVAL_PERCENT = (2.5, 97.5)
_BLOCK = 4_000_000


def bootstrap_means(values: Floats, rng: np.random.Generator) -> Floats:
    """Means of `RESAMPLES` resamples with replacement; values (n,) -> (RESAMPLES,)."""
    n = len(values)
    step = max(1, _BLOCK // n)  # a block of resamples at a time, so that large splits do not fill the memory
    starts = range(0, RESAMPLES, step)
    blocks = [values[rng.integers(0, n, (min(step, RESAMPLES - start), n))].mean(axis=1) for start in starts]
    return np.concatenate(blocks)


def bootstrap_interval(values: Floats, rng: np.random.Generator) -> list[float] | None:
    """95 % percentile interval of the mean; None for fewer than two values."""
    return percentile_interval(bootstrap_means(values, rng)) if len(values) > 1 else None


def percentile_interval(means: Floats) -> list[float]:
    low, high = np.percentile(means, INTERVAL_PERCENT)
    return [float(low), float(high)]
