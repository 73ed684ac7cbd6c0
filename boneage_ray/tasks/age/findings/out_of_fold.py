"""calibration.json of ages from predictions of cases that a model had not learnt from."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from boneage_ray import storage
from boneage_ray.anatomy.growth import SCHEMES, Sex, stage_of
from boneage_ray.errors import UsageError
from boneage_ray.preparation.geometry import Floats
from boneage_ray.tasks.age import intervals
from boneage_ray.tasks.age.findings.analysis import Predictions, analyse_ages
from boneage_ray.tasks.age.findings.coverage import coverage_figures

_SEXES: dict[str, Sex] = {"F": "F", "M": "M"}


def intervals_of_table(uri: str) -> dict[str, Any]:
    """Intervals from a CSV with sex, true_months and predicted_months of each case. Raises `UsageError` for any other."""
    rows = _rows(uri)
    try:
        groups = intervals.fit_intervals([row["sex"] for row in rows], *_ages(rows))
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"{uri}: sex, true_months and predicted_months of each case are needed: {error}") from None
    fitted_on = f"{len(rows)} cases, predicted out of fold"
    return {"calibrated": True, "fitted_on": fitted_on, "coverage": intervals.COVERAGE, "age_intervals": groups}


def analysis_of_table(uri: str) -> dict[str, Any]:
    """The figures of the same table as an evaluation finds them (`analyse_ages`), for a model card.

    With a column `fold`, each case has an interval that was fitted on the other folds, and there is `coverage`.
    """
    rows = _rows(uri)
    true_N, predicted_N = _ages(rows)
    folded = all(row.get("fold") for row in rows)
    bounds = _held_out_bounds(rows, true_N, predicted_N) if folded else None
    predictions = Predictions(
        record_id=[row["record_id"] for row in rows],
        input_uri=[""] * len(rows),
        sex=[_SEXES.get(row["sex"]) for row in rows],
        true_months=true_N.tolist(),
        predicted_months=predicted_N.tolist(),
        stages=[{scheme: stage_of(age, scheme) for scheme in SCHEMES} for age in predicted_N.tolist()],
        bounds=bounds,
        level=intervals.COVERAGE if bounds else None,
    )
    return analyse_ages(predictions, None) | {"coverage": coverage_figures(predictions)}


def _held_out_bounds(
    rows: Sequence[Mapping[str, str]], true_N: Floats, predicted_N: Floats
) -> list[tuple[float, float] | None]:
    """The interval of each case by the cases of all other folds."""
    fold_N, sex_N = np.array([row["fold"] for row in rows]), np.array([row["sex"] for row in rows])
    groups = {}
    for fold in dict.fromkeys(fold_N.tolist()):
        others = (fold_N != fold) & np.isin(sex_N, ("F", "M"))
        groups[fold] = intervals.fit_intervals(sex_N[others].tolist(), true_N[others], predicted_N[others])
    return [
        intervals.interval(groups[row["fold"]], row["sex"], float(age))
        for row, age in zip(rows, predicted_N, strict=True)
    ]


def _rows(uri: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(storage.read_bytes(uri).decode())))


def _ages(rows: Sequence[Mapping[str, str]]) -> tuple[Floats, Floats]:
    true_N, predicted_N = (np.array([float(row[name]) for row in rows]) for name in ("true_months", "predicted_months"))
    return true_N, predicted_N
