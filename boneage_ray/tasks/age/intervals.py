"""Intervals of predicted ages, by split conformal prediction from cases that the model has not learnt from.

Of n residuals (true minus predicted age) the lower bound is the k-th smallest with k = floor((n + 1) * (1 - coverage) / 2), the
upper one the k-th largest: an age of a case like these lies between them at least as often as the coverage says (Vovk,
Gammerman and Shafer, Algorithmic Learning in a Random World, 2005; for two sides Romano et al., Conformalized quantile
regression, 2019). Each sex and range of the predicted age has its own (Mondrian categories), where there are cases enough; else
all cases of that sex. A case whose sex is unknown gets no interval: the model is less sure of it, and no case shows how much.

In calibration.json, residuals in months::

    {"calibrated": true, "fitted_on": "950 hands, predicted out of fold", "coverage": 0.9,
     "age_intervals": [{"sex": "F", "from": 0.0, "to": 96.0, "cases": 101, "low": -13.2, "high": 18.4}, ...]}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from boneage_ray.errors import UsageError
from boneage_ray.preparation.geometry import Floats

COVERAGE = 0.9
EDGES_MONTHS = (0.0, 96.0, 132.0, 168.0, math.inf)
ENOUGH = 50
_KEYS = ("sex", "from", "to", "cases", "low", "high")
_DIGITS = 3


def fit_intervals(
    sexes: Sequence[str], true_N: Floats, predicted_N: Floats, coverage: float = COVERAGE
) -> list[dict[str, Any]]:
    """Residual bounds for each sex and range of the predicted age, in months.

    A range with fewer than `ENOUGH` cases gets the bounds of its sex. Raises `ValueError` for a sex with fewer, and for a case
    that is of neither sex or whose ages are no numbers.
    """
    found = []
    sex_N, at_N = np.asarray(sexes), np.clip(predicted_N, 0, None)
    residuals_N = np.asarray(true_N) - np.asarray(predicted_N)
    if unfit := int((~np.isin(sex_N, ("F", "M")) | ~np.isfinite(residuals_N)).sum()):
        raise ValueError(f"{unfit} cases are neither F nor M, or have no ages: leave them out")
    for sex in ("F", "M"):
        of_sex = sex_N == sex
        if of_sex.sum() < ENOUGH:
            raise ValueError(
                f"{of_sex.sum()} cases of sex {sex}, at least {ENOUGH} are needed for an interval that holds"
            )
        for low, high in pairwise(EDGES_MONTHS):
            chosen = of_sex & (at_N >= low) & (at_N < high)
            cases = residuals_N[chosen if chosen.sum() >= ENOUGH else of_sex]
            below, above = _bounds(cases, coverage)
            to = high if math.isfinite(high) else None
            found.append({"sex": sex, "from": low, "to": to, "cases": len(cases), "low": below, "high": above})
    return found


def read_intervals(calibration: Mapping[str, Any]) -> tuple[list[dict[str, Any]], float | None]:
    """(the groups of `fit_intervals`, their coverage) of a calibration.json; none of a bundle that is not calibrated.

    Raises `UsageError` for a calibration of another kind.
    """
    if not calibration.get("calibrated"):
        return [], None
    try:
        groups = [{key: group[key] for key in _KEYS} for group in calibration["age_intervals"]]
        return groups, float(calibration["coverage"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the calibration of this bundle is none of ages ({type(error).__name__}: {error})") from None


def interval(groups: Sequence[Mapping[str, Any]], sex: str | None, age_months: float) -> tuple[float, float] | None:
    """(low, high) in months around a predicted age, never below birth; None for an unknown sex or an age that is not finite."""
    at = max(age_months, 0.0)
    for group in groups:
        below_end = group["to"] is None or at < group["to"]
        if group["sex"] == sex and group["from"] <= at and below_end and math.isfinite(age_months):
            low, high = age_months + group["low"], age_months + group["high"]
            return round(max(low, 0.0), _DIGITS), round(max(high, 0.0), _DIGITS)
    return None


def _bounds(residuals_N: Floats, coverage: float) -> tuple[float, float]:
    ordered = np.sort(residuals_N)
    k = max(1, math.floor((len(ordered) + 1) * (1 - coverage) / 2 + 1e-9))  # 5 of 99, not 4.999...
    return round(float(ordered[k - 1]), _DIGITS), round(float(ordered[-k]), _DIGITS)
