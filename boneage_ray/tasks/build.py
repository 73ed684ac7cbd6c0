"""From the configs of a recipe to its network and its task."""

from __future__ import annotations

from boneage_ray.models.config import ModelSettings
from boneage_ray.models.model import Model
from boneage_ray.tasks.kind import TaskSettings, named_class
from boneage_ray.tasks.known import kind_of_model, kind_of_task
from boneage_ray.tasks.task import Task


def build_task(config: TaskSettings) -> Task:
    """The task that a recipe names."""
    task: Task = named_class(kind_of_task(config).task)(config)
    return task


def build_model(config: ModelSettings, with_weights: bool = True, size: int | None = None) -> Model:
    """The network that a recipe names, for images with a side of `size` pixels.

    `with_weights=False` leaves it random, for weights that a bundle or a checkpoint will bring.
    """
    model: Model = named_class(kind_of_model(config).network)(config, with_weights, size)
    return model
