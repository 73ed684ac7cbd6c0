"""EfficientNet-B0 with a sex embedding, fine-tuned from the head downwards, and boosted trees on its features.

The lengths of the stages are ours, because not published: five epochs for the head, ten with the top three blocks (4, 5, 6)
and at most fifty with all; so is the encoder's rate of a tenth of the head's, with a floor of a tenth of 1e-6. Warm-up and
cosine are those of the last stage; the short stages before it have a constant rate.
"""

from __future__ import annotations

from boneage_ray.augment.config import AugmentConfig
from boneage_ray.models.config import BackboneConfig, BlendConfig, RegressorConfig
from boneage_ray.preparation.prepare import ImageConfig
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.recipes.stage import Stage
from boneage_ray.tasks.age.config import AgeTaskConfig

_HEAD = Stage(epochs=5, optimizer="adamw", lr=1e-4, weight_decay=1e-5, clip_norm=1.0, patience=10, trainable="head")
_TOP = _HEAD.model_copy(update={"epochs": 10, "trainable": 3, "backbone_lr_scale": 0.1})
_ALL = _TOP.model_copy(
    update={"epochs": 50, "trainable": "all", "schedule": "cosine", "warmup": 5 / 50, "final_lr": 1e-6}
)

EFFICIENTNET_B0_SEX = Recipe(
    name="efficientnet-b0-sex",
    summary="EfficientNet-B0, ImageNet weights, sex input, age and four stages, blended with XGBoost, 384 px",
    image=ImageConfig(size=384),
    augment=AugmentConfig(flip=0.5, rotation_deg=15, zoom=0.1, brightness=0.15, contrast=0.15),
    model=RegressorConfig(
        backbone=BackboneConfig(name="efficientnet_b0", weights="timm"),
        channels=3,
        normalisation="encoder",
        stage_heads=("four",),
        sex_features=32,
        hidden=(256, 128),
        dropout=(0.3, 0.2),
    ),
    task=AgeTaskConfig(loss="huber", huber_delta_years=1.0),
    blend=BlendConfig(cnn_weight="validation"),  # the published 0.7 has no stated reason
    stages=(_HEAD, _TOP, _ALL),
    batch_size=16,
)
