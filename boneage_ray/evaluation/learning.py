"""Learning curves of the models of an evaluation, as their trainings recorded them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from boneage_ray.evaluation import figures
from boneage_ray.evaluation.page import PagePicture, Section
from boneage_ray.tasks.kind import ValidationFigure

Histories = Mapping[str, Sequence[Mapping[str, Any]]]  # name of a model -> its epochs


def learning_sections(histories: Histories, figure: ValidationFigure, command: str) -> list[Section]:
    """A section with a curve of each model that tells its epochs; none where no model does."""
    pictures = []
    for number, (name, history) in enumerate(histories.items()):
        if not history:
            continue
        validated = any(line.get(figure.key) is not None for line in history)
        on = "on the training and validation splits" if validated else "on all cases: there was no validation split"
        pictures.append(
            PagePicture(
                figures.learning_curve(history, figure.key, figure.name, figure.unit.strip(), f"learning-{number}"),
                f"Learning curve of {name}: loss and, where it was measured, validation error over {len(history)} epochs",
                f"{name}, as recorded while it was trained, {on}.",
                wide=True,
            )
        )
    return [Section("Training", pictures=pictures, command=command)] if pictures else []
