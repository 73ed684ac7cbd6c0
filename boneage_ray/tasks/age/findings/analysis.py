"""Predictions of a whole split to figures: pure functions, no model, no Ray.

Everything is in months; the mean errors are also given in years. An error is predicted minus true.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneage_ray.anatomy.growth import AGE_BINS, MONTHS_PER_YEAR, SCHEMES, SchemeName, Sex, age_bin, stage_of
from boneage_ray.errors import BoneageError, NoUsableInputError
from boneage_ray.evaluation.bootstrap import bootstrap_interval, bootstrap_means, percentile_interval
from boneage_ray.preparation.geometry import Floats

LARGEST = 12
# Limits of agreement of Bland and Altman: mean +/- 1.96 standard deviations.
AGREEMENT_SD = 1.96


@dataclass(frozen=True)
class Predictions:
    """One entry a case in every sequence, in the same order; ages in months, all known."""

    record_id: Sequence[str]
    input_uri: Sequence[str]
    sex: Sequence[Sex | None]
    true_months: Sequence[float]
    predicted_months: Sequence[float]
    # Scheme -> predicted class: from the model's head for the schemes in `direct`, else from the predicted age.
    stages: Sequence[Mapping[str, str]]
    direct: Collection[str] = ()
    # The single opinions that the prediction was made of: name -> ages of all cases; members of an ensemble, parts of a blend.
    parts: Mapping[str, Sequence[float]] = field(default_factory=dict)
    # How far the members of an ensemble lie apart: their sample standard deviation.
    spread_months: Sequence[float] | None = None
    # (low, high) of each case that has an interval, of this coverage; and the source of each case, where the data name one.
    bounds: Sequence[tuple[float, float] | None] | None = None
    level: float | None = None
    source: Sequence[str | None] | None = None

    def __post_init__(self) -> None:
        columns = (
            self.record_id,
            self.input_uri,
            self.sex,
            self.true_months,
            self.predicted_months,
            self.stages,
            *self.parts.values(),
            *(column for column in (self.spread_months, self.bounds, self.source) if column is not None),
        )
        if len({len(column) for column in columns}) > 1:
            raise ValueError(f"columns of unequal length: {[len(column) for column in columns]}")

    @property
    def errors(self) -> Floats:
        """Predicted minus true, months, shape (n,)."""
        return np.asarray(self.predicted_months, np.float64) - np.asarray(self.true_months, np.float64)


def analyse_ages(predictions: Predictions, train_median_months: float | None, seed: int = 0) -> dict[str, Any]:
    """All figures of a split, ready for JSON: what is undefined is None, never NaN.

    Raises `NoUsableInputError` without a case, `BoneageError` if an age or a prediction is not finite.
    """
    _check(predictions)
    rng = np.random.default_rng(seed)
    size = np.abs(predictions.errors)
    found = {
        "n": len(size),
        **_overall(predictions),
        "mae_interval_months": bootstrap_interval(size, rng),
        "abs_error_percentiles_months": _percentiles(size),
        "within_12_months": float((size <= 12).mean()),
        "within_24_months": float((size <= 24).mean()),
        "baseline": _baseline(predictions, train_median_months),
        "by_sex": _by_sex(predictions),
        "sex_gap": sex_gap(predictions, rng),
        "by_age": _by_age(predictions),
        "stages": {scheme: _stage(predictions, scheme) for scheme in SCHEMES},
        "largest_residuals": _largest(predictions),
        "parts": part_figures(predictions, seed),
        "spread": spread_figures(predictions),
    }
    cleaned: dict[str, Any] = _clean(found)
    return cleaned


def sex_gap(predictions: Predictions, rng: np.random.Generator) -> dict[str, Any] | None:
    """MAE of girls minus MAE of boys, with its 95 % interval; None if either has fewer than two cases."""
    size = np.abs(predictions.errors)
    female, male = (size[_of_sex(predictions, sex)] for sex in ("F", "M"))
    if min(len(female), len(male)) < 2:
        return None
    low, high = percentile_interval(bootstrap_means(female, rng) - bootstrap_means(male, rng))
    return {
        "female_minus_male_months": float(female.mean() - male.mean()),
        "interval_months": [low, high],
        "excludes_zero": not low <= 0 <= high,
    }


def part_figures(predictions: Predictions, seed: int = 0) -> list[dict[str, Any]]:
    """MAE of each part on the same cases, and how much more it errs than the whole, each with its 95 % interval.

    The same resamples for every part: the differences are of pairs. Empty for a single model.
    """
    true = np.asarray(predictions.true_months, np.float64)
    whole = np.abs(predictions.errors)
    found = []
    for name, ages in predictions.parts.items():
        errors = np.asarray(ages, np.float64) - true
        size = np.abs(errors)
        found.append(
            {
                "name": name,
                "mae_months": float(size.mean()),
                "mae_interval_months": bootstrap_interval(size, np.random.default_rng(seed)),
                "bias_months": float(errors.mean()),
                "minus_whole_months": float((size - whole).mean()),
                "minus_whole_interval_months": bootstrap_interval(size - whole, np.random.default_rng(seed)),
            }
        )
    return found


def spread_figures(predictions: Predictions) -> dict[str, Any] | None:
    """How the spread of an ensemble goes with its error: Spearman's rank correlation, and the MAE in thirds by spread.

    None without a spread. The correlation is not defined (None) where all spreads or all errors are equal.
    """
    if predictions.spread_months is None:
        return None
    spread, size = np.asarray(predictions.spread_months, np.float64), np.abs(predictions.errors)
    thirds = np.array_split(np.argsort(spread, kind="stable"), 3)
    return {
        "mean_months": float(spread.mean()),
        "spearman_with_abs_error": spearman(spread, size),
        "thirds": [
            {
                "n": len(chosen),
                "largest_spread_months": float(spread[chosen].max()),
                "mae_months": float(size[chosen].mean()),
            }
            for chosen in thirds
            if len(chosen)
        ],
    }


def spearman(first: Floats, second: Floats) -> float | None:
    """Rank correlation with mean ranks for ties; None where it is not defined.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
    0.5
    """
    a, b = _ranks(first), _ranks(second)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale else None


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks


def _check(predictions: Predictions) -> None:
    n = len(predictions.record_id)
    if n == 0:
        raise NoUsableInputError("there is nothing to evaluate: the split holds no record with a known age")
    for what, column in (
        ("true ages", predictions.true_months),
        ("predictions", predictions.predicted_months),
        *((f"predictions of {name}", ages) for name, ages in predictions.parts.items()),
    ):
        wrong = [record for record, age in zip(predictions.record_id, column, strict=True) if not math.isfinite(age)]
        if wrong:
            raise BoneageError(
                f"{len(wrong)} of {n} {what} are not finite numbers (the first: record {wrong[0]}); "
                "an evaluation that left them out would flatter the model"
            )


def _age_figures(predictions: Predictions, chosen: NDArray[np.bool_] | None = None) -> dict[str, Any]:
    from boneage_ray.tasks.age.metrics import age_metrics  # torch: not before there is something to compute

    predicted = np.asarray(predictions.predicted_months, np.float64)
    true = np.asarray(predictions.true_months, np.float64)
    every = np.ones(len(true), bool) if chosen is None else chosen
    return {"n": int(every.sum()), **age_metrics(predicted[every].tolist(), true[every].tolist())}


def _overall(predictions: Predictions) -> dict[str, Any]:
    found = _age_figures(predictions)
    spread = AGREEMENT_SD * float(predictions.errors.std(ddof=1)) if found["n"] > 1 else math.nan
    return found | {
        "mae_years": found["mae_months"] / MONTHS_PER_YEAR,
        "rmse_years": found["rmse_months"] / MONTHS_PER_YEAR,
        "limits_of_agreement_months": [found["bias_months"] - spread, found["bias_months"] + spread],
    }


def _percentiles(size: Floats) -> dict[str, float]:
    named = {str(q): float(np.percentile(size, q)) for q in (50, 75, 90, 95)}
    return named | {"max": float(size.max())}


def _baseline(predictions: Predictions, median_months: float | None) -> dict[str, Any] | None:
    """How far one gets by always saying the median age of the training split."""
    if median_months is None:
        return None
    true = np.asarray(predictions.true_months, np.float64)
    mae, ours = float(np.abs(median_months - true).mean()), float(np.abs(predictions.errors).mean())
    return {
        "train_median_months": float(median_months),
        "mae_months": mae,
        "model_over_baseline": ours / mae if mae else None,
    }


def _of_sex(predictions: Predictions, sex: Sex | None) -> NDArray[np.bool_]:
    return np.array([given == sex for given in predictions.sex], bool)


def _by_sex(predictions: Predictions) -> dict[str, dict[str, Any]]:
    groups: tuple[tuple[str, Sex | None], ...] = (("F", "F"), ("M", "M"), ("unknown", None))
    chosen = {name: _of_sex(predictions, sex) for name, sex in groups}
    return {name: _group(predictions, mask) for name, mask in chosen.items() if mask.any()}


def _by_age(predictions: Predictions) -> list[dict[str, Any]]:
    """Two-year bins of the true age, youngest first; empty ones are left out."""
    bins = np.array([age_bin(age) for age in predictions.true_months])
    return [{"bin": name, **_group(predictions, bins == name)} for name in AGE_BINS if (bins == name).any()]


def _group(predictions: Predictions, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    figures = _age_figures(predictions, chosen)
    interval = bootstrap_interval(np.abs(predictions.errors[chosen]), np.random.default_rng(0))
    kept = {key: figures[key] for key in ("n", "mae_months", "rmse_months", "bias_months")}
    return kept | {"mae_interval_months": interval}


def _stage(predictions: Predictions, scheme: SchemeName) -> dict[str, Any]:
    """The predicted class, and beside it the class that the predicted age falls in ("thresholded regression").

    `direct_minus_thresholded`: of a model with a head, the difference of their accuracies on the same cases, with its interval.
    """
    true = [stage_of(age, scheme) for age in predictions.true_months]
    direct = [row[scheme] for row in predictions.stages]
    thresholded = [stage_of(age, scheme) for age in predictions.predicted_months]
    head = scheme in predictions.direct
    return {
        "source": "head" if head else "age",
        "classes": list(SCHEMES[scheme].classes),
        "predicted": _stage_figures(direct, true, scheme),
        "thresholded": _stage_figures(thresholded, true, scheme),
        "direct_minus_thresholded": _accuracy_difference(direct, thresholded, true) if head else None,
    }


def _accuracy_difference(first: Sequence[str], second: Sequence[str], true: Sequence[str]) -> dict[str, Any]:
    """How much more often the first is right than the second, case by case, with its 95 % bootstrap interval."""
    given = np.asarray(true)
    difference_N = np.subtract(np.asarray(first) == given, np.asarray(second) == given, dtype=np.float64)
    interval = bootstrap_interval(difference_N, np.random.default_rng(0))
    return {"difference": float(difference_N.mean()), "interval": interval}


def _stage_figures(predicted: list[str], true: list[str], scheme: SchemeName) -> dict[str, Any]:
    from boneage_ray.tasks.age.metrics import confusion, stage_metrics

    figures: dict[str, Any] = dict(stage_metrics(predicted, true, scheme))
    return figures | {"confusion": confusion(predicted, true, scheme)}


def _largest(predictions: Predictions) -> list[dict[str, Any]]:
    errors = predictions.errors
    order = np.argsort(-np.abs(errors), kind="stable")[:LARGEST]
    return [
        {
            "record_id": predictions.record_id[k],
            "input_uri": predictions.input_uri[k],
            "sex": predictions.sex[k],
            "true_months": float(predictions.true_months[k]),
            "predicted_months": float(predictions.predicted_months[k]),
            "error_months": float(errors[k]),
        }
        for k in order
    ]


def _clean(value: Any) -> Any:  # noqa: ANN401  any JSON value
    """What is not finite becomes None; six decimals are more than any age is known to."""
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
