"""What a recipe says of its task. Apart from the tasks, so that naming a recipe does not load torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from boneage_ray.models.config import kind_of


class AgeTaskConfig(BaseModel):
    """Loss of the age in years, and the weight of each stage head's cross-entropy."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["age"] = "age"
    loss: Literal["l1", "huber"] = "l1"
    huber_delta_years: float = Field(default=1.25, gt=0)
    age_weight: float = Field(default=1.0, ge=0)
    stage_weight: float = Field(default=1.0, ge=0)


class MaskTaskConfig(BaseModel):
    """Weights of the Dice loss and of the binary cross-entropy of a hand mask."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["mask"] = "mask"
    dice_weight: float = Field(default=1.0, ge=0)
    bce_weight: float = Field(default=1.0, ge=0)


TaskConfig = Annotated[
    Annotated[AgeTaskConfig, Tag("age")] | Annotated[MaskTaskConfig, Tag("mask")],
    Discriminator(lambda given: kind_of(given, "age")),
]
