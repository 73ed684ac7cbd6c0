"""How sure a cervical stage is. No torch: the driver asks it of every row."""

from __future__ import annotations

from boneage_ray.findings.task_findings import Doubt
from boneage_ray.records.schema import Row

_UNSURE = ("cvm_not_measurable", "cvm_levels_moved", "cvm_no_probabilities", "polarity_uncertain")
_LIKELIER_THAN_NOT = 0.5


def stage_doubt(row: Row) -> Doubt:
    """1 minus the probability of the stage; 1 where there is none."""
    of_stage = (row["cvm_probabilities"] or {}).get(row["cvm_stage"], 0.0)
    because = [flag for flag in row["flags"] if flag in _UNSURE]
    if row["cvm_stage"] is not None and of_stage < _LIKELIER_THAN_NOT:
        because.append("stage_undecided")
    return Doubt(1.0 - of_stage, tuple(because))
