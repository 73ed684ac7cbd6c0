"""What a recipe says of a model. Apart from the models, so that naming a recipe does not load torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

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

    kind: Literal["regressor"] = "regressor"
    backbone: BackboneConfig = BackboneConfig()
    channels: Literal[1, 3] = Field(
        default=3, description="3: gray repeated, ImageNet normalisation; 1: gray in [0, 1]"
    )
    stage_heads: tuple[SchemeName, ...] = ()
    sex_features: int = Field(default=0, ge=0, description="width of the sex embedding; 0: sex is not an input")
    hidden: tuple[int, ...] = ()
    dropout: float = Field(default=0.0, ge=0, lt=1)

    def describe(self) -> str:
        """Encoder and first weights, for people."""
        return f"{self.backbone.name} with weights: {self.backbone.weights}"


class HandMaskConfig(BaseModel):
    """A U-Net that tells hand from background on square patches; larger images are stitched from overlapping ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["hand-mask"] = "hand-mask"
    encoder: str = Field(default="resnet34", description="an encoder of segmentation-models-pytorch")
    weights: Literal["none", "imagenet"] = "none"
    patch: int = Field(default=256, ge=32, le=1024, multiple_of=32)
    stride: int = Field(default=128, ge=16)

    def describe(self) -> str:
        """Encoder and first weights, for people."""
        return f"a U-Net on {self.encoder} with weights: {self.weights}"


ModelConfig = Annotated[
    Annotated[RegressorConfig, Tag("regressor")] | Annotated[HandMaskConfig, Tag("hand-mask")],
    Discriminator(lambda given: kind_of(given, "regressor")),
]


def kind_of(given: Any, default: str) -> str:  # noqa: ANN401  a config or the values of one
    """Which config of a union is meant; recipes that do not say mean the default."""
    return str(given.get("kind", default) if isinstance(given, dict) else getattr(given, "kind", default))
