"""What a recipe says of a model. Apart from the models, so that naming a recipe does not load torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from boneage_ray.anatomy.growth import SchemeName


class BackboneConfig(BaseModel):
    """Which encoder and where its first weights come from.

    `weights`: "none" (random), "timm" (timm's pretrained ones, needs the network), or the URI of a safetensors file with
    the encoder's own parameter names; `weights_sha256` is then checked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = "resnet18"
    weights: Literal["none", "timm"] | str = "none"
    weights_sha256: str | None = None


class RegressorConfig(BaseModel):
    """A bone age regressor; `stage_heads` adds a classifier for each named stage scheme."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    backbone: BackboneConfig = BackboneConfig()
    channels: Literal[1, 3] = Field(
        default=3, description="3: gray repeated, ImageNet normalisation; 1: gray in [0, 1]"
    )
    stage_heads: tuple[SchemeName, ...] = ()
    sex_features: int = Field(default=0, ge=0, description="width of the sex embedding; 0: sex is not an input")
    hidden: tuple[int, ...] = ()
    dropout: float = Field(default=0.0, ge=0, lt=1)
