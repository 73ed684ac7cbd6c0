"""A site's own correction of predicted ages, and what it gains on the site's own cases.

`fit_site` chooses the simplest of three corrections by cross-validation: none, a shift, or a line. A less simple one must lower
the mean absolute error by more than the standard error of the paired difference. A line needs predicted ages that span
`SPAN_MONTHS`; beyond the fitted ages its shift stays that of the nearest fitted age, so nothing is extrapolated. Intervals are
fitted to residuals of cases that had no part in the correction (cross-fitting), or they would be too narrow.

`nested` repeats all of it in every fold of an outer cross-validation, on the other folds: its figures are of cases that decided
neither the choice, nor the correction, nor the interval (Varma and Simon, Bias in error estimation when using cross-validation
for model selection, BMC Bioinformatics 2006).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from boneage_ray.errors import UsageError
from boneage_ray.preparation.geometry import Floats
from boneage_ray.tasks.age.intervals import COVERAGE, fit_intervals, interval

FEWEST = 60
FOLDS = 10
SPAN_MONTHS = 60.0
_ENDS_PERCENT = (2.5, 97.5)
_KEYS = ("kind", "slope", "intercept", "from", "to")


@dataclass(frozen=True)
class Correction:
    """true = slope x predicted + intercept, for predicted ages from `start` to `stop` months; its shift stays equal beyond.

    >>> line = Correction("line", 0.9, 20.0, 60.0, 180.0)
    >>> [float(age) for age in line(np.array([100.0, 200.0]))]
    [110.0, 202.0]
    """

    kind: str = "none"
    slope: float = 1.0
    intercept: float = 0.0
    start: float = 0.0
    stop: float = 0.0

    def __call__(self, months_N: Floats) -> Floats:
        """Corrected ages in months, shape (n,)."""
        held = np.clip(months_N, self.start, self.stop) if self.kind == "line" else months_N
        return months_N + (self.slope - 1.0) * held + self.intercept

    def as_json(self) -> dict[str, Any]:
        """As calibration.json holds it."""
        values = (self.kind, self.slope, self.intercept, self.start, self.stop)
        return dict(zip(_KEYS, values, strict=True))

    def in_words(self) -> str:
        """For people."""
        match self.kind:
            case "line":
                fitted = f"fitted from {self.start:.0f} to {self.stop:.0f} months"
                return f"{self.slope:.3f} x predicted {self.intercept:+.1f} months, {fitted}"
            case "shift":
                return f"predicted {self.intercept:+.1f} months"
            case _:
                return "none: neither a shift nor a line predicts these cases better"


def read_correction(calibration: Mapping[str, Any]) -> Correction:
    """The correction of a calibration.json; that of a bundle without one changes nothing. Raises `UsageError`."""
    given = calibration.get("correction")
    if given is None:
        return Correction()
    try:
        kind, *numbers = (given[key] for key in _KEYS)
        found = Correction(str(kind), *(float(number) for number in numbers))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the correction of this bundle is none of ages ({type(error).__name__}: {error})") from None
    if not np.isfinite([found.slope, found.intercept, found.start, found.stop]).all():
        raise UsageError("the correction of this bundle holds a number that is not finite")
    return found


class SiteCases(NamedTuple):
    """Sex (F or M), true and predicted age in months of each case, in one order; all known and finite."""

    sexes: NDArray[np.str_]
    true_N: Floats
    predicted_N: Floats

    def part(self, chosen: NDArray[np.bool_]) -> SiteCases:
        """Some of them."""
        return SiteCases(self.sexes[chosen], self.true_N[chosen], self.predicted_N[chosen])


class Site(NamedTuple):
    """A correction, and the groups of intervals (`fit_intervals`) around ages that it has corrected; [] where cases lack."""

    correction: Correction
    groups: list[dict[str, Any]]


def fit_site(cases: SiteCases, coverage: float = COVERAGE) -> Site:
    """The correction and the intervals of a site's cases. Raises `ValueError` where intervals have too few."""
    fold_N = _folds(cases)
    kind = _chosen(cases, fold_N)
    corrected_N = _cross_fitted(cases, fold_N, _FITS[kind])
    groups = fit_intervals(cases.sexes.tolist(), cases.true_N, corrected_N, coverage)
    return Site(_FITS[kind](cases), groups)


def nested(cases: SiteCases, coverage: float = COVERAGE) -> tuple[Floats, list[tuple[float, float] | None]]:
    """Of every case: its corrected age and its interval, both from the cases of the other folds."""
    fold_N = _folds(cases)
    corrected_N = np.zeros_like(cases.predicted_N)
    bounds: list[tuple[float, float] | None] = [None] * len(fold_N)
    for fold in range(FOLDS):
        held_N = fold_N == fold
        site = fit_site(cases.part(~held_N), coverage)
        corrected_N[held_N] = site.correction(cases.predicted_N[held_N])
        for k in np.flatnonzero(held_N):
            bounds[k] = interval(site.groups, str(cases.sexes[k]), float(corrected_N[k]))
    return corrected_N, bounds


def _none(cases: SiteCases) -> Correction:
    return Correction()


def _shift(cases: SiteCases) -> Correction:
    return Correction("shift", 1.0, _rounded(float(np.mean(cases.true_N - cases.predicted_N))))


def _line(cases: SiteCases) -> Correction:
    start, stop = (float(end) for end in np.percentile(cases.predicted_N, _ENDS_PERCENT))
    if stop - start < SPAN_MONTHS:
        return _shift(cases)
    slope, intercept = np.polyfit(cases.predicted_N, cases.true_N, 1)
    if slope <= 0:  # older bones are never younger
        return _shift(cases)
    return Correction("line", *(_rounded(float(value)) for value in (slope, intercept, start, stop)))


_FITS: dict[str, Callable[[SiteCases], Correction]] = {"none": _none, "shift": _shift, "line": _line}


def _rounded(value: float) -> float:
    return round(value, 4)


def _chosen(cases: SiteCases, fold_N: NDArray[np.int_]) -> str:
    """The simplest correction that no less simple one surely betters."""
    best, best_N = "none", np.abs(cases.true_N - cases.predicted_N)
    for kind in ("shift", "line"):
        size_N = np.abs(cases.true_N - _cross_fitted(cases, fold_N, _FITS[kind]))
        gain_N = best_N - size_N
        if gain_N.mean() > gain_N.std(ddof=1) / np.sqrt(len(gain_N)):
            best, best_N = kind, size_N
    return best


def _cross_fitted(cases: SiteCases, fold_N: NDArray[np.int_], fit: Callable[[SiteCases], Correction]) -> Floats:
    """Ages as corrected by what the other folds say."""
    corrected_N = np.zeros_like(cases.predicted_N)
    for fold in range(FOLDS):
        held_N = fold_N == fold
        corrected_N[held_N] = fit(cases.part(~held_N))(cases.predicted_N[held_N])
    return corrected_N


def _folds(cases: SiteCases) -> NDArray[np.int_]:
    """A fold for each case, such that every fold has all true ages and both sexes in it; the same for the same cases."""
    fold_N = np.zeros(len(cases.true_N), np.int_)
    fold_N[np.lexsort((cases.predicted_N, cases.true_N, cases.sexes))] = np.arange(len(fold_N)) % FOLDS
    return fold_N


def usable_cases(
    sexes: Sequence[str | None], true_months: Sequence[float | None], predicted_months: Sequence[float]
) -> SiteCases:
    """The cases that have a sex and an age. Raises `UsageError` where they are fewer than `FEWEST`."""
    rows = [
        (sex, true, predicted)
        for sex, true, predicted in zip(sexes, true_months, predicted_months, strict=True)
        if sex in ("F", "M") and true is not None and np.isfinite([true, predicted]).all()
    ]
    if len(rows) < FEWEST:
        raise UsageError(
            f"not enough cases ({len(rows)} of {FEWEST}) with a known sex and a known age to calibrate a model; "
            f"{len(sexes)} were given"
        )
    sex, true, predicted = zip(*rows, strict=True)
    return SiteCases(np.array(sex), np.array(true, np.float64), np.array(predicted, np.float64))
