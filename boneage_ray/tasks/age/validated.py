"""Errors of the validation split by sex and age, as the model card shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from boneage_ray.anatomy.growth import AGE_BINS, GIRLS_AND_BOYS, SEX_UNKNOWN, age_bin
from boneage_ray.preparation.geometry import Floats

FEWEST = 10
_Z = 1.959964  # 97.5 % of a standard normal distribution
_HEADER = ["cases of the validation split", "number", "MAE, months", "95 % interval", "bias, months"]


def validated_table(
    sexes: Sequence[str | None], true: Sequence[float], predicted: Sequence[float]
) -> dict[str, Any] | None:
    """{"header", "rows", "caption"} of cells as text, over the cases whose age is known; None without one.

    Ages in months, NaN where not known. The interval of a mean absolute error is 1.96 standard errors to either side.
    """
    known = np.isfinite(true) & np.isfinite(predicted)
    if not known.any():
        return None
    true_N = np.asarray(true, np.float64)[known]
    error_N = np.asarray(predicted, np.float64)[known] - true_N
    sex_N = np.array([GIRLS_AND_BOYS[sex] if sex else SEX_UNKNOWN for sex in sexes])[known]
    bin_N = np.array([age_bin(age) for age in true_N])
    found = [_line("all", error_N)]
    found += [
        _line(name, error_N[sex_N == name]) for name in (*GIRLS_AND_BOYS.values(), SEX_UNKNOWN) if (sex_N == name).any()
    ]
    found += [_line(f"true age {name}", error_N[bin_N == name]) for name in AGE_BINS if (bin_N == name).any()]
    caption = "MAE: how far the predicted age is off on average. Bias: + is too old, - too young."
    return {"header": _HEADER, "rows": found, "caption": caption}


def _line(name: str, error_N: Floats) -> list[str]:
    n = len(error_N)
    if n < FEWEST:
        return [name, str(n), f"not enough cases ({n} of {FEWEST})", "-", "-"]
    size_N = np.abs(error_N)
    mean, half = float(size_N.mean()), _Z * float(size_N.std(ddof=1)) / math.sqrt(n)
    return [name, str(n), f"{mean:.1f}", f"{max(0.0, mean - half):.1f} to {mean + half:.1f}", f"{error_N.mean():+.1f}"]
