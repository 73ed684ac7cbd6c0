"""calibration.json of ages from predictions of cases that a model had not learnt from."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np

from boneage_ray import storage
from boneage_ray.errors import UsageError
from boneage_ray.tasks.age import intervals


def intervals_of_table(uri: str) -> dict[str, Any]:
    """Intervals from a CSV with sex, true_months and predicted_months of each case. Raises `UsageError` for any other."""
    try:
        rows = list(csv.DictReader(io.StringIO(storage.read_bytes(uri).decode())))
        sexes = [row["sex"] for row in rows]
        true_N, predicted_N = (
            np.array([float(row[name]) for row in rows]) for name in ("true_months", "predicted_months")
        )
        groups = intervals.fit_intervals(sexes, true_N, predicted_N)
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"{uri}: sex, true_months and predicted_months of each case are needed: {error}") from None
    fitted_on = f"{len(rows)} cases, predicted out of fold"
    return {"calibrated": True, "fitted_on": fitted_on, "coverage": intervals.COVERAGE, "age_intervals": groups}
