"""ResNet34 on hands without background; the quality gate rejects low-contrast images.

Published: the steps from the gate to sharpening and their order, ResNet34, MAE, Adam with a rate lowered on a plateau and early
stopping, rare categories drawn more often. Ours, because not published: the crop to the hand, 256 px, sex as an input, dilation
by 1 % of the side, CLAHE of clip 2 on 8 x 8 tiles, sharpening by 0.5, augmentation, the rate, its factor (gamma) and least
value, both patiences, batch and epochs, and the four categories.

Ablations: `--set image.mask=none`, `image.mask_fill=false`, `image.mask_dilation=0`, `image.mask_overlay=false`,
`image.clahe_clip=0`, `image.sharpen=0`, `balance=none`; and without the low-contrast gate `image.quality.min_contrast=0` with
`image.quality.min_inner_contrast=0` (blank images are still refused, `image.quality.blank_range=0`).
Masks drawn elsewhere or written by `boneage score` of a hand-mask bundle: `--set image.mask=file`.
"""

from __future__ import annotations

from boneage_ray.augment.config import AugmentConfig
from boneage_ray.models.config import BackboneConfig, RegressorConfig
from boneage_ray.preparation.prepare import ImageConfig
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.recipes.stage import Stage
from boneage_ray.tasks.age.config import AgeTaskConfig

RESNET34_MASKED = Recipe(
    name="resnet34-masked",
    summary="ResNet34 on masked hands (filled, dilated, CLAHE, sharpened), rare ages drawn more often, 256 px",
    image=ImageConfig(
        size=256,
        crop="hand",
        mask="hand",
        mask_fill=True,
        mask_dilation=0.01,
        clahe_clip=2.0,
        clahe_tiles=8,
        sharpen=0.5,
    ),
    augment=AugmentConfig(flip=0.5, rotation_deg=15, zoom=0.1, brightness=0.15, contrast=0.15),
    model=RegressorConfig(backbone=BackboneConfig(name="resnet34"), channels=1, sex_features=16, hidden=(256,)),
    task=AgeTaskConfig(loss="l1"),
    stages=(
        Stage(
            epochs=60,
            optimizer="adam",
            lr=1e-3,
            weight_decay=0.0,
            schedule="plateau",
            plateau_patience=4,
            gamma=0.5,
            final_lr=1e-6,
            patience=12,
        ),
    ),
    batch_size=32,
    balance="four",
)
