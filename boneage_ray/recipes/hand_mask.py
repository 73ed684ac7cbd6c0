"""A U-Net for hand masks, on patches of full-size images with drawn masks.

Where there are no drawn masks, `--set image.mask=hand` learns from those that are found without a model.
"""

from __future__ import annotations

from boneage_ray.augment.config import AugmentConfig
from boneage_ray.models.config import HandMaskConfig
from boneage_ray.optimization import Stage
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.records.prepare import ImageConfig
from boneage_ray.tasks.config import MaskTaskConfig

HAND_MASK = Recipe(
    name="hand-mask",
    summary="a U-Net (ResNet34) that tells the hand from the background, on 256 px patches of images up to 2048 px",
    image=ImageConfig(size=2048, mask="file", mask_overlay=False),
    augment=AugmentConfig(flip=0.5, rotation_deg=15, zoom=0.1, brightness=0.15, contrast=0.15),
    model=HandMaskConfig(encoder="resnet34", patch=256, stride=128, patches=4),
    task=MaskTaskConfig(),
    stages=(
        Stage(
            epochs=40,
            optimizer="adamw",
            lr=1e-3,
            weight_decay=1e-2,
            schedule="cosine",
            warmup=0.1,
            clip_norm=1.0,
            patience=10,
        ),
    ),
    batch_size=4,
    best_by="val_loss",
)
