"""Intervals of predicted ages, by split conformal prediction from cases that the model has not learnt from.

Of n residuals (true minus predicted age) the lower bound is the k-th smallest with k = floor((n + 1) * (1 - coverage) / 2), the
upper one the k-th largest: an age of a case like these lies between them at least as often as the coverage says (Vovk,
Gammerman and Shafer, Algorithmic Learning in a Random World, 2005; for two sides Romano et al., Conformalized quantile
regression, 2019). Each sex and range of the predicted age has its own (Mondrian categories), where there are cases enough; else
all cases of that sex; else those of both sexes. A case whose sex is unknown gets no interval: the model is less sure of it, and
no case shows how much.

In calibration.json, residuals in months, sorted, by which the bounds of any other coverage are found (`read_intervals`)::

    {"calibrated": true, "fitted_on": "950 hands, predicted out of fold", "coverage": 0.9,
     "age_intervals": [{"sex": "F", "from": 0.0, "to": 96.0, "of": "range", "cases": 101, "low": -13.2, "high": 18.4,
                        "residuals": [-31.0, -22.4, ...]}, ...]}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from boneage_ray.anatomy.growth import GIRLS_AND_BOYS
from boneage_ray.errors import UsageError
from boneage_ray.preparation.geometry import Floats

COVERAGE = 0.9
EDGES_MONTHS = (0.0, 96.0, 132.0, 168.0, math.inf)
# Cases that bounds are taken from, and cases that a sex must have for the bounds of both sexes to be used for it.
ENOUGH, FEW = 50, 10
_KEYS = ("sex", "from", "to", "cases", "low", "high")
_DIGITS = 3
_RECALIBRATE = "`boneage calibrate` makes a calibration of your own cases"


def fit_intervals(
    sexes: Sequence[str], true_N: Floats, predicted_N: Floats, coverage: float = COVERAGE
) -> list[dict[str, Any]]:
    """Residual bounds for each sex and range of the predicted age, in months.

    `of` says which cases decide: those of the `range`, of the `sex` where the range has fewer than `ENOUGH`, or of `all` where
    the sex has. A sex with fewer than `FEW` has no group. Raises `ValueError` if there are fewer than `ENOUGH` cases, fewer than
    the coverage needs, or a case that is of neither sex or whose ages are no numbers.
    """
    sex_N, at_N = np.asarray(sexes), np.clip(predicted_N, 0, None)
    residuals_N = np.asarray(true_N, np.float64) - np.asarray(predicted_N, np.float64)
    if unfit := int((~np.isin(sex_N, ("F", "M")) | ~np.isfinite(residuals_N)).sum()):
        raise ValueError(f"{unfit} cases are neither F nor M, or have no ages: leave them out")
    enough = max(ENOUGH, cases_needed(coverage))
    if len(residuals_N) < enough:
        raise ValueError(f"not enough cases ({len(residuals_N)} of {enough}) for an interval of coverage {coverage:g}")
    found = []
    for sex in GIRLS_AND_BOYS:
        of_sex = sex_N == sex
        if of_sex.sum() < FEW:
            continue
        for low, high in pairwise(EDGES_MONTHS):
            chosen, of = of_sex & (at_N >= low) & (at_N < high), "range"
            if chosen.sum() < enough:
                chosen, of = of_sex, "sex"
            if chosen.sum() < enough:
                chosen, of = np.ones_like(of_sex), "all"
            cases = np.sort(residuals_N[chosen]).round(_DIGITS)
            below, above = _bounds(cases, coverage)
            group = {"sex": sex, "from": low, "to": high if math.isfinite(high) else None, "of": of}
            group |= {"cases": len(cases), "low": below, "high": above, "residuals": cases.tolist()}
            found.append(group)
    return found


def validated_intervals(
    sexes: Sequence[str | None], true: Sequence[float], predicted: Sequence[float]
) -> dict[str, Any]:
    """calibration.json of a model that was just trained, from its ages of the validation split, in months.

    The split may have chosen the best epoch too, so these intervals may be a little too narrow. `notes`: which cases lacked.
    """
    rows = [
        (sex, *ages)
        for sex, *ages in zip(sexes, true, predicted, strict=True)
        if sex in GIRLS_AND_BOYS and np.isfinite(ages).all()
    ]
    known = [str(sex) for sex, *_ in rows]
    ages_N2 = np.array([ages for _, *ages in rows], np.float64).reshape(-1, 2)
    try:
        groups = fit_intervals(known, ages_N2[:, 0], ages_N2[:, 1])
    except ValueError as error:
        return {"calibrated": False, "notes": [f"no intervals: {error}, of known sex in the validation split"]}
    return {
        "calibrated": True,
        "fitted_on": f"{len(known)} cases of the validation split",
        "coverage": COVERAGE,
        "age_intervals": groups,
        "notes": lacking_cases(groups, known),
    }


def cases_needed(coverage: float) -> int:
    """How many cases bounds of this coverage need at least: the k of the head of this file must be 1.

    >>> cases_needed(0.9), cases_needed(0.99)
    (19, 199)
    """
    return math.ceil(2 / (1 - coverage) - 1 - 1e-9)


def check_level(coverage: float) -> float:
    """The coverage, if it is one. Raises `UsageError`."""
    if not 0 < coverage < 1:
        raise UsageError(f"--coverage {coverage:g}: a share between 0 and 1 is needed, such as 0.9")
    return coverage


def read_intervals(
    calibration: Mapping[str, Any], coverage: float | None = None
) -> tuple[list[dict[str, Any]], float | None]:
    """(the groups of `fit_intervals`, their coverage) of a calibration.json; none of a bundle that has no intervals.

    `coverage`: another one than the file's. Raises `UsageError` for it where the bundle has no intervals, no residuals or too
    few, and for a calibration of another kind.
    """
    given = calibration.get("calibrated")
    if not given:
        if coverage is not None:
            raise UsageError(f"--coverage {coverage:g}: this bundle has no calibrated intervals; {_RECALIBRATE}")
        return [], None
    try:
        groups = [{key: group[key] for key in _KEYS} for group in calibration["age_intervals"]]
        own = float(calibration["coverage"])
        residuals = [np.asarray(group.get("residuals", ()), np.float64) for group in calibration["age_intervals"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the calibration of this bundle is none of ages ({type(error).__name__}: {error})") from None
    if coverage is None or coverage == own:
        return groups, own
    fewest, needed = min(map(len, residuals), default=0), cases_needed(check_level(coverage))
    if not fewest:
        raise UsageError(f"--coverage {coverage:g}: the calibration of this bundle knows {own:g} only; {_RECALIBRATE}")
    if fewest < needed:
        raise UsageError(
            f"--coverage {coverage:g}: not enough cases ({fewest} of {needed}) in a group of this bundle's calibration; at most "
            f"{math.floor(1000 * (1 - 2 / (fewest + 1))) / 1000:g} is possible"
        )
    bounds = [_bounds(each, coverage) for each in residuals]
    return [group | {"low": low, "high": high} for group, (low, high) in zip(groups, bounds, strict=True)], coverage


def interval(groups: Sequence[Mapping[str, Any]], sex: str | None, age_months: float) -> tuple[float, float] | None:
    """(low, high) in months around a predicted age, never below birth; None for an unknown sex or an age that is not finite."""
    at = max(age_months, 0.0)
    for group in groups:
        below_end = group["to"] is None or at < group["to"]
        if group["sex"] == sex and group["from"] <= at and below_end and math.isfinite(age_months):
            low, high = age_months + group["low"], age_months + group["high"]
            return round(max(low, 0.0), _DIGITS), round(max(high, 0.0), _DIGITS)
    return None


def lacking_cases(groups: Sequence[Mapping[str, Any]], sexes: Sequence[str]) -> list[str]:
    """What people must know of groups fitted to cases of these sexes: which had too few cases, and what was done instead."""
    found = []
    for sex, word in GIRLS_AND_BOYS.items():
        own, cases = [group for group in groups if group["sex"] == sex], sum(given == sex for given in sexes)
        if not own:
            found.append(f"no interval for {word}: not enough cases ({cases} of {FEW})")
        elif own[0]["of"] == "all":
            found.append(
                f"{word}: not enough cases for intervals of their own ({cases} of {ENOUGH}): the intervals of both sexes are used"
            )
        elif thin := [_span(group) for group in own if group["of"] == "sex"]:
            where = "in every age range" if len(thin) == len(own) else f"predicted {', '.join(thin)}"
            found.append(f"{word}: fewer than {ENOUGH} cases {where}: the intervals of all {word} are used")
    return found


def _span(group: Mapping[str, Any]) -> str:
    ends = f"from {group['from'] / 12:g}"
    return f"{ends} years on" if group["to"] is None else f"{ends} to {group['to'] / 12:g} years"


def _bounds(residuals_N: Floats, coverage: float) -> tuple[float, float]:
    ordered = np.sort(residuals_N)
    k = math.floor((len(ordered) + 1) * (1 - coverage) / 2 + 1e-9)  # 5 of 99, not 4.999...
    return round(float(ordered[k - 1]), _DIGITS), round(float(ordered[-k]), _DIGITS)
