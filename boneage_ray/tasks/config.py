"""What a recipe says of its task. Apart from the tasks, so that naming a recipe does not load torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from boneage_ray.anatomy.cvm_measure import CvmConfig
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


class CephalogramTaskConfig(BaseModel):
    """How landmarks are learnt and read off: loss and width of the heatmaps, and the weight of each map's loss.

    `sigma`: of the target Gaussians, in pixels of the map. `edge_sigma`: of the Gaussian whose gradient makes the edge map. An
    image where the mean confidence of the points is below `min_confidence` is no cephalogram, or its neck is not in it. `cvm`:
    how the stage follows from the points.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["cephalogram"] = "cephalogram"
    loss: Literal["focal", "cross_entropy", "mse"] = "focal"
    sigma: float = Field(default=2.0, gt=0)
    edge_sigma: float = Field(default=3.0, gt=0)
    vertebral_weight: float = Field(default=1.0, ge=0)
    facial_weight: float = Field(default=1.0, ge=0)
    edge_weight: float = Field(default=1.0, ge=0)
    reconstruction_weight: float = Field(default=1.0, ge=0)
    min_confidence: float = Field(default=0.25, ge=0, le=1)
    cvm: CvmConfig = CvmConfig()


TaskConfig = Annotated[
    Annotated[AgeTaskConfig, Tag("age")]
    | Annotated[MaskTaskConfig, Tag("mask")]
    | Annotated[CephalogramTaskConfig, Tag("cephalogram")],
    Discriminator(lambda given: kind_of(given, "age")),
]
