"""The recipe of `boneage demo`: small enough to be trained on phantoms in a minute on two cores."""

from __future__ import annotations

from boneage_ray.models.config import BackboneConfig
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.recipes.stage import Stage
from boneage_ray.recipes.timm_regressor import TIMM_REGRESSOR

DEMO: Recipe = TIMM_REGRESSOR.derive(
    name="demo",
    summary="a small ResNet at 96 px for phantoms; not for radiographs of people",
    image={"size": 96},
    augment={"rotation_deg": 10, "zoom": 0.05, "brightness": 0.1, "contrast": 0.1},
    model={
        "backbone": BackboneConfig(name="resnet10t").model_dump(),
        "normalisation": "imagenet",
        "stage_heads": ("three",),
    },
    stages=(
        Stage(epochs=12, optimizer="adamw", lr=2e-3, weight_decay=1e-2, schedule="cosine", warmup=0.15, clip_norm=1.0),
    ),
)
