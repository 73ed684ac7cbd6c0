"""Several bundles that predict as one; how their answers are combined is up to the task.

One member alone predicts as itself. Members may want different images of the same radiograph: `images` lists the distinct
configs, and the columns hold one image column for each (`image_column`). Lakshminarayanan et al., Simple and scalable
predictive uncertainty estimation using deep ensembles, 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from boneage_ray import bundle
from boneage_ray.errors import MismatchError
from boneage_ray.prediction.members import Member, Models
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.prediction.runtimes import TORCH
from boneage_ray.runtime.devices import Precision
from boneage_ray.tasks.build import build_task
from boneage_ray.tasks.task import Columns


class Scorer(Protocol):
    """What result rows are made with: a `Predictor`, or an `Ensemble` of several."""

    name: str
    sha256: str
    batch_size: int

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> Columns:
        """Columns in, columns out; at most `batch_size` cases at a time."""


def image_column(number: int) -> str:
    """Name of the column with the images of config `number` of `Models.images`.

    >>> image_column(0), image_column(1)
    ('image', 'image_1')
    """
    return f"image_{number}" if number else "image"


def load_predictor(
    models: Models,
    device: str | None = None,
    runtime: str = TORCH,
    auto: Precision | None = None,
    coverage: float | None = None,
) -> Scorer:
    """All members on a device; `auto` as for `choose_precision`, `coverage` as for `Task.calibrate`.

    Raises `MismatchError` if one is not what it was when `models` were resolved.
    """
    own = coverage if len(models.members) == 1 else None  # of several, only all together have an interval
    predictors = [Predictor(_loaded(member), device, runtime, auto, own) for member in models.members]
    return Ensemble(models, predictors, coverage) if len(predictors) > 1 else predictors[0]


def tell_features(scorer: Scorer) -> None:
    """Let a predictor, or the first one of an ensemble, tell what it sees in each picture (`Predictor.__call__`)."""
    first = scorer.predictors[0] if isinstance(scorer, Ensemble) else scorer
    if isinstance(first, Predictor):
        first.tells_features = True


def _loaded(member: Member) -> bundle.Bundle:
    loaded = bundle.load(member.uri)
    if loaded.sha256 != member.sha256:
        raise MismatchError(f"{member.uri} was replaced while it was in use; give the command again")
    return loaded


class Ensemble:
    """Two or more predictors, one for each member and in their order."""

    def __init__(self, models: Models, predictors: Sequence[Scorer], coverage: float | None = None) -> None:
        self.name, self.sha256 = models.name, models.sha256
        self.task = build_task(models.recipe.task)
        self.task.calibrate({}, models.calibration, coverage)
        self.configs = [member.recipe.model for member in models.members]
        self.names = [member.name for member in models.members]
        self.columns = [image_column(models.images.index(member.recipe.image)) for member in models.members]
        self.predictors = list(predictors)
        self.batch_size = min(predictor.batch_size for predictor in self.predictors)

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> Columns:
        """What the task makes of all members (`Task.combine`), with intervals, and `unlike` of those with a gate.

        `features` and `likeness`, where asked for (`tell_features`), are those of the first member.
        """
        if not columns["sex"]:
            return {}
        answers = [
            predictor({"image": columns[name], "sex": columns["sex"]})
            for name, predictor in zip(self.columns, self.predictors, strict=True)
        ]
        found = self.task.combine(self.names, answers, self.configs)
        looks = {name: answers[0][name] for name in ("features", "likeness") if name in answers[0]}
        return found | self.task.intervals(found, columns["sex"]) | _unlike(answers) | looks


def _unlike(answers: Sequence[Columns]) -> Columns:
    """Why a picture is none that the models know, by the first that says so, where most of those with a gate do."""
    gates = [answer["unlike"] for answer in answers if "unlike" in answer]
    if not gates:
        return {}
    cases = [[said for said in case if said] for case in zip(*gates, strict=True)]
    return {"unlike": [said[0] if 2 * len(said) > len(gates) else None for said in cases]}
