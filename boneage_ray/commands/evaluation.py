"""What the evaluations of masks and of landmarks share."""

from __future__ import annotations

from dataclasses import dataclass

from boneage_ray.errors import UsageError
from boneage_ray.preparation.split import Split


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated where, and the command line that the page shows."""

    split: Split
    out: str
    gpu: bool
    command: str


def refuse_max_mae(max_mae: float | None) -> None:
    """Raise `UsageError` if a gate for ages was asked of a model that predicts none."""
    if max_mae is not None:
        raise UsageError("--max-mae concerns ages; this model predicts none")
