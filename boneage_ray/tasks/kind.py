"""What the rest of the package may ask about a task before any of its predictions exist. No torch here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from boneage_ray.models.config import ModelSettings
from boneage_ray.preparation.quality import ExpectedRegion
from boneage_ray.preparation.split import Split


class TaskSettings(BaseModel):
    """What the task configs of all recipes share: a name for the kind of task, which each config fixes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str


@dataclass(frozen=True)
class ValidationFigure:
    """The figure of the validation split that people watch: its key in an epoch's line, and how it is written.

    `of`: what the figure measures, in the plural, for messages.
    """

    key: str
    name: str
    unit: str
    digits: int
    of: str


@dataclass(frozen=True)
class TaskKind:
    """One task: its configs, where its parts are, and the few facts that recipes, training and commands need.

    `network`, `task` and `findings` name a class as "module:Class", as entry points do; the module is imported when the class is
    needed, so that naming a recipe loads no torch; no `findings` where nothing is predicted. `figure`: shown after each epoch.
    `figure_chooses`: a recipe may let the best epoch go by it. `reported`: metrics of the best epoch that a finished training
    reports, those that it has. `next_split`: the split that a new model is evaluated on first. `region`: what its radiographs
    show, for the gate by header. `learns_masks`: masks are the labels, so scoring needs none. `joins`: several models may be
    scored as one. `blends`: the model's features may go to boosted trees. `intended_use`, `not_for`, `limits`: sentences of the
    model card; `card_figures`: metrics of the validation split that it says, in words.
    """

    config: type[TaskSettings]
    model: type[ModelSettings]
    network: str
    task: str
    findings: str
    figure: ValidationFigure
    reported: tuple[str, ...]
    figure_chooses: bool = True
    next_split: Split = "test"
    region: ExpectedRegion = "any"
    learns_masks: bool = False
    joins: bool = False
    blends: bool = False
    intended_use: str = ""
    not_for: str = ""
    limits: str = ""
    card_figures: tuple[ValidationFigure, ...] = ()

    @property
    def name(self) -> str:
        """The task's name in recipes."""
        return str(self.config.model_fields["kind"].default)

    @property
    def model_name(self) -> str:
        """The name in recipes of the model that learns the task."""
        return str(self.model.model_fields["kind"].default)


def named_class(place: str) -> Any:  # noqa: ANN401  the class of that name
    """The class that "module:Class" names.

    >>> named_class("boneage_ray.tasks.kind:TaskKind").__name__
    'TaskKind'
    """
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
