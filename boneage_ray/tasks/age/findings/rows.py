"""An age in a result row."""

from __future__ import annotations

import math

from boneage_ray.anatomy.growth import MAX_AGE_MONTHS
from boneage_ray.errors import InputProblem
from boneage_ray.prediction.rows import Loaded, add_problem
from boneage_ray.records.schema import Row

# Labels of the published sets end at 228 months; an age outside was never seen in training.
AGE_RANGE_MONTHS = (0.0, 228.0)


def add_age(row: Row, values: Row, _: Loaded, margin_months: float = 6.0) -> None:
    """Age, stages, of an ensemble the spread of its members, and the difference from the chronological age.

    Flags: `out_of_age_range` (outside of all training data), `chronological_age_implausible` (above 20 years),
    `advanced` and `delayed` (`growth_flag`). The chronological age never changes the bone age.
    """
    if not math.isfinite(values["age_months"]):
        add_problem(
            row, InputProblem("predict", "internal_error", "the model answered with a number that is not finite")
        )
        return
    # The single opinions are for evaluation; a row says how far they lie apart.
    row |= {"status": "scored"} | {name: value for name, value in values.items() if name != "age_parts"}
    if not AGE_RANGE_MONTHS[0] <= values["age_months"] <= AGE_RANGE_MONTHS[1]:
        row["flags"] = [*row["flags"], "out_of_age_range"]
    chronological = row["chronological_age_months"]
    if chronological is None:
        return
    row["age_difference_months"] = values["age_months"] - chronological
    if chronological > MAX_AGE_MONTHS:
        row["flags"] = [*row["flags"], "chronological_age_implausible"]
    row["flags"] = [*row["flags"], *growth_flag(row, margin_months)]


def growth_flag(row: Row, margin_months: float) -> list[str]:
    """`advanced` or `delayed`, where the row has an interval that excludes its chronological age by more than the margin.

    >>> growth_flag({"age_low_months": 100.0, "age_high_months": 140.0, "chronological_age_months": 90.0}, 6.0)
    ['advanced']
    """
    low, high, age = (row[name] for name in ("age_low_months", "age_high_months", "chronological_age_months"))
    if low is None or high is None or age is None:
        return []
    if low - age > margin_months:
        return ["advanced"]
    return ["delayed"] if age - high > margin_months else []
