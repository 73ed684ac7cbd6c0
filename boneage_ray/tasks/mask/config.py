"""What a recipe says of the task of hand masks, and where its parts are. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from boneage_ray.models.config import HandMaskConfig
from boneage_ray.tasks.kind import TaskKind, TaskSettings, ValidationFigure


class MaskTaskConfig(TaskSettings):
    """Weights of the Dice loss and of the binary cross-entropy of a hand mask."""

    kind: Literal["mask"] = "mask"
    dice_weight: float = Field(default=1.0, ge=0)
    bce_weight: float = Field(default=1.0, ge=0)


MASK_TASK = TaskKind(
    config=MaskTaskConfig,
    model=HandMaskConfig,
    network="boneage_ray.models.handmask:HandMask",
    task="boneage_ray.tasks.mask.task:MaskTask",
    findings="boneage_ray.tasks.mask.findings:MaskFindings",
    figure=ValidationFigure("val_dice_mean", "Dice", "", 4, of="masks"),
    figure_chooses=False,
    reported=("val_dice_mean", "val_loss"),
    region="hand",
    learns_masks=True,
    intended_use="Finding the hand in a radiograph, to show nothing but the hand to another model.",
    not_for="Radiographs of anything else than one hand.",
    card_figures=(
        ValidationFigure("val_dice_mean", "mean Dice of the masks (1 is a perfect overlap)", "", 3, of="masks"),
    ),
)
