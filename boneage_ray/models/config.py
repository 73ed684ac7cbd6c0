"""What a recipe says of a model. Apart from the models, so that naming a recipe does not load torch."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from boneage_ray.anatomy.growth import SchemeName
from boneage_ray.models.packaged import PREFIX, package_of

Positive = Annotated[int, Field(ge=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]


class ModelSettings(BaseModel):
    """What the model configs of all recipes share: a name for the kind of model, which each config fixes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str

    def describe(self) -> str:
        """Encoder and first weights, for people."""
        raise NotImplementedError


class BackboneConfig(BaseModel):
    """Which encoder and where its first weights come from.

    `weights`: "none" (random), "timm" (timm's pretrained ones, needs the network), "package:NAME" (those of an installed Python
    distribution, see models/packaged.py), or the URI of a safetensors file: an encoder's, with its own parameter names, or the
    `weights.safetensors` of a model bundle, of which the encoder is taken. `weights_sha256` is then checked.
    `attention="cbam"`: a channel and spatial attention module in every block (Woo et al. 2018; channel reduction 16, 7 x 7
    spatial kernel), for encoders of ResNet blocks. `residual_start`: the scale of each residual branch before training, timm's
    zero or one, for the same encoders; from scratch and in few steps, one learns faster.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = "resnet18"
    weights: Literal["none", "timm"] | str = "none"
    weights_sha256: str | None = None
    attention: Literal["none", "cbam"] = "none"
    residual_start: Literal["zero", "one"] = "zero"

    @field_validator("weights_sha256")
    @classmethod
    def _hexadecimal(cls, digest: str | None) -> str | None:
        if digest is not None and not re.fullmatch("[0-9a-fA-F]{64}", digest):
            raise ValueError("a SHA-256 of 64 hexadecimal digits is needed, as sha256sum prints it")
        return digest and digest.lower()

    @model_validator(mode="after")
    def _a_hash_is_of_a_file(self) -> BackboneConfig:
        package = package_of(self.weights, self.name)
        if self.weights_sha256 is not None and (package or self.weights in ("none", "timm")):
            raise ValueError(
                f"weights_sha256 is checked of a file, but weights={self.weights}: name the file, or leave the hash out"
            )
        return self


class EncoderSettings(ModelSettings):
    """What models of one timm encoder share: which one, and what it sees of a radiograph."""

    backbone: BackboneConfig = BackboneConfig()
    channels: Literal[1, 3] = Field(default=3, description="3: gray repeated and normalised; 1: gray in [0, 1]")
    normalisation: Literal["imagenet", "encoder"] = Field(
        default="imagenet",
        description="mean and spread that 3 channels are brought to: ImageNet's, or what timm states of the encoder's weights",
    )

    @property
    def starts_pretrained(self) -> bool:
        """Its first weights are published ones, of which timm states what they were trained on."""
        return self.backbone.weights == "timm" or self.backbone.weights.startswith(PREFIX)

    def describe(self) -> str:
        """Encoder and first weights, for people."""
        attention = "" if self.backbone.attention == "none" else f" with {self.backbone.attention}"
        return f"{self.backbone.name}{attention}, weights: {self.backbone.weights}"


class RegressorConfig(EncoderSettings):
    """A bone age regressor; `stage_heads` adds a classifier for each named stage scheme."""

    kind: Literal["regressor"] = "regressor"
    stage_heads: tuple[SchemeName, ...] = ()
    sex_features: int = Field(default=0, ge=0, description="width of the sex embedding; 0: sex is not an input")
    sex_hidden: tuple[Positive, ...] = Field(default=(), description="layers behind the embedding of sex")
    hidden: tuple[Positive, ...] = ()
    dropout: Dropout | tuple[Dropout, ...] = Field(
        default=0.0, description="behind each hidden layer: one, or one each"
    )
    mirror: bool = Field(default=False, description="predict the mean over an image and its mirror image")

    @model_validator(mode="after")
    def _a_dropout_for_each_layer(self) -> RegressorConfig:
        if isinstance(self.dropout, tuple) and len(self.dropout) != len(self.hidden):
            raise ValueError(
                f"{len(self.dropout)} dropouts for {len(self.hidden)} hidden layers: give one, or one each"
            )
        if self.sex_hidden and not self.sex_features:
            raise ValueError("sex_hidden needs sex_features above 0")
        return self


class SiameseConfig(EncoderSettings):
    """An encoder that learns from images alone, for a regressor with the same `EncoderSettings`.

    `width`: dimensions of the embeddings that two views are compared by; they are thrown away with the heads.
    """

    kind: Literal["siamese"] = "siamese"
    width: int = Field(default=512, ge=8, multiple_of=4, description="dimensions of an embedding")


# The first weights of a U-Net's encoder: "none" (random), "imagenet" (the library's, needs the network), "package:NAME" (those of
# an installed Python distribution, see models/packaged.py), or the URI of a safetensors file: an encoder's as timm or the library
# names it, or the `weights.safetensors` of a model bundle, of which the encoder is taken.
EncoderWeights = Literal["none", "imagenet"] | str


class HandMaskConfig(ModelSettings):
    """A U-Net that tells hand from background on square patches; larger images are stitched from overlapping ones.

    Patches lie on a grid of `stride`; in training `patches` of each image are drawn at a time, a part `foreground` of them from
    those with hand. `weights`: "none", or the URI of the `weights.safetensors` of a bundle of the same network;
    `encoder_weights`: see `EncoderWeights`.
    """

    kind: Literal["hand-mask"] = "hand-mask"
    encoder: str = Field(default="resnet34", description="an encoder of segmentation-models-pytorch")
    encoder_weights: EncoderWeights = "none"
    weights: Literal["none"] | str = "none"
    patch: int = Field(default=256, ge=32, le=1024, multiple_of=32)
    stride: int = Field(default=128, ge=16)
    patches: int = Field(default=4, ge=1)
    foreground: float = Field(default=0.5, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _as_it_was_said_before(cls, given: Any) -> Any:  # noqa: ANN401
        return _moved_imagenet(given)

    @model_validator(mode="after")
    def _one_start(self) -> HandMaskConfig:
        _check_start(self.encoder, self.encoder_weights, self.weights)
        return self

    @model_validator(mode="after")
    def _no_gaps(self) -> HandMaskConfig:
        if self.stride > self.patch:
            raise ValueError(
                f"a stride of {self.stride} leaves gaps between patches of {self.patch} pixels (lower it first)"
            )
        return self

    def describe(self) -> str:
        """Encoder and first weights, for people."""
        return f"a U-Net on {self.encoder} with {_start_in_words(self.encoder_weights, self.weights)}"


MapName = Literal["reconstruction", "edges", "vertebral", "facial"]


class CephalogramConfig(ModelSettings):
    """A U-Net with a map for each of `maps` (19 for the facial landmarks, 13 for the vertebral).

    It sees the whole image with a side of `side` pixels (0: as it was prepared). With `neck` it also sees the neck
    that it found there, from the prepared image's full detail and with a side of `neck` pixels: a second U-Net for the 13
    vertebral points. That region is `neck_margin` of the points' extent larger on each side. One pixel of a map is `stride`
    pixels of the network's image: 2 leaves the last step of the decoder out, a third of all work.

    `weights`: "none", or the URI of the `weights.safetensors` of a bundle of the same network; `encoder_weights`: those of both
    U-Nets' encoders, see `EncoderWeights`.
    """

    kind: Literal["cephalogram"] = "cephalogram"
    encoder: str = Field(default="efficientnet-b2", description="an encoder of segmentation-models-pytorch")
    encoder_weights: EncoderWeights = "none"
    weights: Literal["none"] | str = "none"
    maps: tuple[MapName, ...] = ("reconstruction", "edges", "vertebral", "facial")
    side: int = Field(default=0, ge=0, multiple_of=32)
    neck: int = Field(default=0, ge=0, le=1024, multiple_of=32)
    neck_margin: float = Field(default=0.35, ge=0, le=2)
    stride: Literal[1, 2] = 1
    mirror: bool = Field(
        default=False, description="look at the mirror image of what is hardly seen: heads facing left"
    )
    dropout: Dropout = Field(default=0.0, description="chance that a channel of the encoder's deepest maps is left out")

    @model_validator(mode="before")
    @classmethod
    def _as_it_was_said_before(cls, given: Any) -> Any:  # noqa: ANN401
        return _moved_imagenet(given)

    @model_validator(mode="after")
    def _one_start(self) -> CephalogramConfig:
        _check_start(self.encoder, self.encoder_weights, self.weights)
        return self

    @model_validator(mode="after")
    def _something_to_look_for(self) -> CephalogramConfig:
        if len(set(self.maps)) != len(self.maps) or not {"vertebral", "facial"} & set(self.maps):
            raise ValueError("maps: each once, and vertebral or facial among them")
        if self.neck and "vertebral" not in self.maps:
            raise ValueError("neck needs vertebral among maps: the neck is found by these points")
        return self

    def describe(self) -> str:
        """Encoder, first weights and maps, for people."""
        again = f", and again at the neck with {self.neck} px" if self.neck else ""
        start = _start_in_words(self.encoder_weights, self.weights)
        return f"a U-Net on {self.encoder} with {start}; maps: {', '.join(self.maps)}{again}"


def _moved_imagenet(given: Any) -> Any:  # noqa: ANN401  what pydantic is given
    """`weights="imagenet"` always meant the encoder's: recipes and bundles from before `encoder_weights` say so."""
    if not isinstance(given, dict) or given.get("weights") != "imagenet":
        return given
    # An override of a whole recipe also brings its `encoder_weights`, as a rule "none", which must not win: training would start
    # from random weights without a word.
    named = given.get("encoder_weights", "none")
    return given | {"weights": "none", "encoder_weights": "imagenet" if named == "none" else named}


def _check_start(encoder: str, encoder_weights: str, weights: str) -> None:
    package_of(encoder_weights, encoder)
    if weights != "none" and encoder_weights != "none":
        raise ValueError(
            f"weights={weights} brings the encoder's as well, but encoder_weights={encoder_weights}: give one of them"
        )


def _start_in_words(encoder_weights: str, weights: str) -> str:
    return f"weights: {weights}" if weights != "none" else f"encoder weights: {encoder_weights}"


class BlendConfig(BaseModel):
    """Gradient-boosted trees (XGBoost) on the features of clean training images, blended with the CNN's own age.

    Trees learn the age in years, up to `rounds` of them, until `early_stop` more did not help on the validation split.
    `cnn_weight` times the CNN's age is added to the rest times the trees'; "validation" chooses it there, in steps of 0.05.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rounds: int = Field(default=500, ge=1)
    depth: int = Field(default=6, ge=1, le=16)
    eta: float = Field(default=0.05, gt=0, le=1)
    subsample: float = Field(default=0.8, gt=0, le=1)
    colsample: float = Field(default=0.8, gt=0, le=1)
    gamma: float = Field(default=0.1, ge=0)
    alpha: float = Field(default=0.1, ge=0)
    reg_lambda: float = Field(default=1.0, ge=0)
    early_stop: int = Field(default=20, ge=1)
    cnn_weight: Annotated[float, Field(ge=0, le=1)] | Literal["validation"] = 0.7
