"""How sure an age is. No torch: the driver asks it of every row."""

from __future__ import annotations

from boneage_ray.findings.task_findings import Doubt
from boneage_ray.records.schema import Row

_UNSURE = ("sex_unknown", "hand_not_found", "two_hands", "polarity_uncertain", "out_of_age_range")
_MEMBERS_AGREE_MONTHS = 12.0  # the sample standard deviation of an ensemble, above which its members disagree


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
