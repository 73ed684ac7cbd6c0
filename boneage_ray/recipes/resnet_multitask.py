"""ResNet with an age head and a three-stage head; sex is not an input (only for bias analysis)."""

from __future__ import annotations

from boneage_ray.augment.config import AugmentConfig
from boneage_ray.models.config import BackboneConfig, RegressorConfig
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.recipes.stage import Stage

RESNET18_MULTITASK = Recipe(
    name="resnet18-multitask",
    summary="ResNet18, ImageNet weights, age and three stages together, 256 px",
    augment=AugmentConfig(flip=0.5, rotation_deg=10),
    model=RegressorConfig(
        backbone=BackboneConfig(name="resnet18", weights="timm"), normalisation="encoder", stage_heads=("three",)
    ),
    stages=(Stage(epochs=10, optimizer="adam", lr=1e-4, weight_decay=1e-5, clip_norm=5.0),),
    batch_size=32,
    best_by="val_loss",
)

RESNET50_MULTITASK = RESNET18_MULTITASK.derive(
    name="resnet50-multitask",
    summary="ResNet50, ImageNet weights, age and three stages together, 256 px",
    model={"backbone": {"name": "resnet50"}},
)
