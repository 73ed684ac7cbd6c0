"""A task that is in no release: fingertips of a hand. It stands here to show what a fourth task needs."""

from __future__ import annotations

from typing import Literal

from boneage_ray.models.config import ModelSettings
from boneage_ray.tasks.kind import TaskKind, TaskSettings, ValidationFigure

FINGERTIPS = ("thumb", "index", "middle", "ring", "little")


class KeypointTaskConfig(TaskSettings):
    """`sigma`: of the target Gaussians, in pixels."""

    kind: Literal["keypoints"] = "keypoints"
    sigma: float = 2.0


class KeypointModelConfig(ModelSettings):
    """Three convolutions with `width` channels."""

    kind: Literal["fingertip-net"] = "fingertip-net"
    width: int = 8

    def describe(self) -> str:
        return f"{self.width} channels"


KEYPOINTS = TaskKind(
    config=KeypointTaskConfig,
    model=KeypointModelConfig,
    network="boneage_ray.tasks.keypoints.task:FingertipNet",
    task="boneage_ray.tasks.keypoints.task:KeypointTask",
    findings="boneage_ray.tasks.keypoints.findings:KeypointFindings",
    figure=ValidationFigure("val_error_px", "mean error", " px", 2, of="fingertips"),
    reported=("val_error_px", "val_loss"),
)
