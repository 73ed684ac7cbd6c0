"""An age in a result row."""

from __future__ import annotations

import math

from boneage_ray.errors import InputProblem
from boneage_ray.prediction.rows import Loaded, add_problem
from boneage_ray.records.schema import Row

# Labels of the published sets end at 228 months; an age outside was never seen in training.
AGE_RANGE_MONTHS = (0.0, 228.0)


def add_age(row: Row, values: Row, _: Loaded) -> None:
    """Age, stages and, of an ensemble, the spread of its members; an age outside of all training data gets a flag."""
    if not math.isfinite(values["age_months"]):
        add_problem(
            row, InputProblem("predict", "internal_error", "the model answered with a number that is not finite")
        )
        return
    # The single opinions are for evaluation; a row says how far they lie apart.
    row |= {"status": "scored"} | {name: value for name, value in values.items() if name != "age_parts"}
    if not AGE_RANGE_MONTHS[0] <= values["age_months"] <= AGE_RANGE_MONTHS[1]:
        row["flags"] = [*row["flags"], "out_of_age_range"]
