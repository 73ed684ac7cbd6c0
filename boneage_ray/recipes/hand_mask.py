"""A U-Net for hand masks, on patches of full-size images with drawn masks.

Published: patches of 256 px every 128, balanced between patches with and without hand, the U-Net on a ResNet34, Dice + BCE,
and stitching with overlapping weights. Ours, because not published: four patches per image and step, half of them with hand;
all of the optimisation (AdamW, rate, decay, cosine, clipping, patience), augmentation, and no pretrained weights. Images are
resized to a side of 2048 px, so that a patch shows about the same part of every hand.

Without drawn masks, `--set image.mask=hand` trains on masks that are found without a model.
"""

from __future__ import annotations

from boneage_ray.augment.config import AugmentConfig
from boneage_ray.models.config import HandMaskConfig
from boneage_ray.preparation.prepare import ImageConfig
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.recipes.stage import Stage
from boneage_ray.tasks.mask.config import MaskTaskConfig

HAND_MASK = Recipe(
    name="hand-mask",
    summary="a U-Net (ResNet34) that segments the hand, on 256 px patches of images at 2048 px",
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
