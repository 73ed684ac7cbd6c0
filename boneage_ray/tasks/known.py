"""The tasks. Adding one: a folder beside this file, and its line in TASKS."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Tag

from boneage_ray.models.config import ModelSettings
from boneage_ray.tasks.age.config import AGE_TASK
from boneage_ray.tasks.cephalogram.config import CEPHALOGRAM_TASK
from boneage_ray.tasks.kind import TaskKind, TaskSettings
from boneage_ray.tasks.mask.config import MASK_TASK
from boneage_ray.tasks.views.config import VIEWS_TASK

TASKS: tuple[TaskKind, ...] = (
    AGE_TASK,  # what a recipe means that names no task
    MASK_TASK,
    CEPHALOGRAM_TASK,
    VIEWS_TASK,
)


# What a recipe may go by that no validation split decides: a whole schedule and averaged weights, as cross-validation needs.
LAST_EPOCH = "last_epoch"


def kind_of_task(config: TaskSettings) -> TaskKind:
    """The task that a recipe's task config belongs to."""
    return next(kind for kind in TASKS if kind.name == config.kind)


def kind_of_model(config: ModelSettings) -> TaskKind:
    """The task that a recipe's model learns."""
    return next(kind for kind in TASKS if kind.model_name == config.kind)


def kind_chosen_by(figure: str) -> TaskKind:
    """The task whose validation figure has this key."""
    return next(kind for kind in TASKS if kind.figure.key == figure)


def _one_of(configs: dict[str, Any]) -> Any:  # noqa: ANN401  a type for pydantic
    """The union of configs by the name of their kind; values that name no kind mean the first."""
    first, *_ = configs

    def kind(given: Any) -> str:  # noqa: ANN401  a config or the values of one
        return str(given.get("kind", first) if isinstance(given, dict) else getattr(given, "kind", first))

    tagged = [Annotated[config, Tag(name)] for name, config in configs.items()]
    return Annotated[reduce(or_, tagged), Discriminator(kind)]


# What a recipe may hold, made of TASKS.
if TYPE_CHECKING:
    TaskConfig = TaskSettings
    ModelConfig = ModelSettings
    BestBy = str
else:
    TaskConfig = _one_of({kind.name: kind.config for kind in TASKS})
    ModelConfig = _one_of({kind.model_name: kind.model for kind in TASKS})
    BestBy = Literal[(*(kind.figure.key for kind in TASKS if kind.figure_chooses), "val_loss", LAST_EPOCH)]
