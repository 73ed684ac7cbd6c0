"""An age in a result row."""

from __future__ import annotations

import math

from boneage_ray.anatomy.growth import MAX_AGE_MONTHS
from boneage_ray.errors import InputProblem
from boneage_ray.findings.task_findings import Doubt
from boneage_ray.prediction.rows import Loaded, add_problem
from boneage_ray.records.schema import Row

# Labels of the published sets end at 228 months; an age outside was never seen in training.
AGE_RANGE_MONTHS = (0.0, 228.0)
_UNSURE = ("sex_unknown", "hand_not_found", "two_hands", "polarity_uncertain", "out_of_age_range")
_MEMBERS_AGREE_MONTHS = 12.0  # the sample standard deviation of an ensemble, above which its members disagree


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


def age_doubt(row: Row) -> Doubt:
    """By the width of the interval in months, else by the spread of the members; 0 where there is neither.

    >>> row = {"age_low_months": 100.0, "age_high_months": 140.0, "age_spread_months": None, "flags": ["sex_unknown"]}
    >>> age_doubt(row)
    Doubt(value=40.0, because=('sex_unknown',))
    """
    low, high, spread = (row[name] for name in ("age_low_months", "age_high_months", "age_spread_months"))
    because = [flag for flag in row["flags"] if flag in _UNSURE]
    if spread is not None and spread > _MEMBERS_AGREE_MONTHS:
        because.append("members_disagree")
    return Doubt(spread or 0.0 if low is None or high is None else high - low, tuple(because))
