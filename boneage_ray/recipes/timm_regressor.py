"""Any timm encoder with sex as an input: `--set model.backbone.name=convnext_tiny`."""

from __future__ import annotations

from boneage_ray.augment.config import AugmentConfig
from boneage_ray.models.config import BackboneConfig, RegressorConfig
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.recipes.stage import Stage

TIMM_REGRESSOR = Recipe(
    name="timm-regressor",
    summary="any timm encoder with a sex input, from scratch, 256 px; name it with --set model.backbone.name=NAME",
    augment=AugmentConfig(flip=0.5, rotation_deg=15, zoom=0.1, brightness=0.15, contrast=0.15),
    model=RegressorConfig(
        backbone=BackboneConfig(name="resnet34"),
        normalisation="encoder",
        sex_features=32,
        hidden=(256,),
        dropout=0.2,
    ),
    stages=(
        Stage(epochs=40, optimizer="adamw", lr=1e-3, weight_decay=1e-2, schedule="cosine", warmup=0.2, clip_norm=1.0),
    ),
    batch_size=32,
)
