"""A recipe's task config to its task."""

from __future__ import annotations

from boneage_ray.tasks.age import AgeTask
from boneage_ray.tasks.cephalogram import CephalogramTask
from boneage_ray.tasks.config import AgeTaskConfig, CephalogramTaskConfig, MaskTaskConfig
from boneage_ray.tasks.mask import MaskTask
from boneage_ray.tasks.task import Task


def build_task(config: AgeTaskConfig | MaskTaskConfig | CephalogramTaskConfig) -> Task:
    """The task that a recipe names."""
    if isinstance(config, MaskTaskConfig):
        return MaskTask(config)
    if isinstance(config, CephalogramTaskConfig):
        return CephalogramTask(config)
    return AgeTask(config)
