"""A recipe's task config to its task."""

from __future__ import annotations

from boneage_ray.tasks.age import AgeTask
from boneage_ray.tasks.config import AgeTaskConfig, MaskTaskConfig
from boneage_ray.tasks.mask import MaskTask
from boneage_ray.tasks.task import Task


def build_task(config: AgeTaskConfig | MaskTaskConfig) -> Task:
    """The task that a recipe names."""
    if isinstance(config, MaskTaskConfig):
        return MaskTask(config)
    return AgeTask(config)
