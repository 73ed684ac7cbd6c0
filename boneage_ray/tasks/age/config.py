"""What a recipe says of the task of bone age, and where its parts are. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from boneage_ray.models.config import RegressorConfig
from boneage_ray.tasks.kind import TaskKind, TaskSettings, ValidationFigure


class AgeTaskConfig(TaskSettings):
    """Loss of the age in years, and the weight of each stage head's cross-entropy.

    `margin_months`: by how much the interval of a bone age must exclude the chronological age for the flags advanced and delayed.
    With an interval of 19 months to either side, 6 more are about two standard deviations of healthy children.
    """

    kind: Literal["age"] = "age"
    loss: Literal["l1", "huber"] = "l1"
    huber_delta_years: float = Field(default=1.25, gt=0)
    age_weight: float = Field(default=1.0, ge=0)
    stage_weight: float = Field(default=1.0, ge=0)
    margin_months: float = Field(default=6.0, ge=0)


AGE_TASK = TaskKind(
    config=AgeTaskConfig,
    model=RegressorConfig,
    network="boneage_ray.models.regressor:Regressor",
    task="boneage_ray.tasks.age.task:AgeTask",
    findings="boneage_ray.tasks.age.findings:AgeFindings",
    figure=ValidationFigure("val_mae_months", "MAE", " months", 2, of="ages"),
    reported=("val_mae_months", "val_loss"),
    region="hand",
    joins=True,
    blends=True,
    intended_use="Research on and with bone age from radiographs of one hand and wrist of children and adolescents. Give the "
    "sex: without it the error grows.",
    not_for="Radiographs of anything else than one hand; adults; children with malformations of the hand or skeletal dysplasia, "
    "unless they were among the cases below.",
    limits="A bone age is a reading of maturity by an atlas, not the age of a person: readers differ by months too.",
    card_figures=(
        ValidationFigure("val_mae_months", "mean absolute error", " months", 1, of="ages"),
        ValidationFigure("val_rmse_months", "root mean square error", " months", 1, of="ages"),
        ValidationFigure("val_bias_months", "bias (predicted minus true)", " months", 1, of="ages"),
        ValidationFigure("val_three_accuracy", "share in the right of three stages of growth", "", 3, of="stages"),
        ValidationFigure("val_four_accuracy", "share in the right of four stages of growth", "", 3, of="stages"),
    ),
)
