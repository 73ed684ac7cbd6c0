"""DenseNet121 on one gray channel with sex as an input (Huang et al. 2017); the image is the cropped hand with CLAHE.

Augmentation and patience are ours, because not published. CLAHE comes after padding to a square, as in all recipes, so the
padding may be a few gray levels above 0. 6.98 million parameters: 6.95 of the encoder (one input channel, no classifier),
0.03 of head and sex; the publication gives about 7.1 in total.
"""

from __future__ import annotations

from boneage_ray.augment.config import AugmentConfig
from boneage_ray.models.config import BackboneConfig, RegressorConfig
from boneage_ray.preparation.prepare import ImageConfig
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.recipes.stage import Stage
from boneage_ray.tasks.age.config import AgeTaskConfig

DENSENET121 = Recipe(
    name="densenet121",
    summary="DenseNet121 on the cropped hand, gray, with sex; Huber loss, 256 px",
    image=ImageConfig(size=256, crop="hand", crop_margin=0.05, clahe_clip=2.0, clahe_tiles=8),
    augment=AugmentConfig(flip=0.5, rotation_deg=15, zoom=0.1, shift=0.05, brightness=0.15, contrast=0.15),
    model=RegressorConfig(
        backbone=BackboneConfig(name="densenet121"),
        channels=1,
        sex_features=16,
        sex_hidden=(8,),
        hidden=(32, 16),
        dropout=0.01,
    ),
    task=AgeTaskConfig(loss="huber", huber_delta_years=1.25),
    stages=(
        Stage(epochs=60, optimizer="adamw", lr=5e-3, weight_decay=0.01, schedule="cosine", warmup=0.2, patience=15),
    ),
    batch_size=64,
)
