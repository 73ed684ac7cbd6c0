"""Self-supervised pretraining of the encoder of `efficientnet-lite-hand` on hands without labels: SimSiam (Chen and He 2021)."""

from __future__ import annotations

from boneage_ray.augment.config import AugmentConfig
from boneage_ray.models.config import SiameseConfig
from boneage_ray.recipes.efficientnet_lite_hand import EFFICIENTNET_LITE_HAND, LITE0
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.recipes.stage import Stage
from boneage_ray.tasks.known import LAST_EPOCH
from boneage_ray.tasks.views.config import ViewsTaskConfig

TWO_VIEWS_HAND = Recipe(
    name="two-views-hand",
    summary="No labels: two views of a hand agree (SimSiam); first weights for efficientnet-lite-hand",
    image=EFFICIENTNET_LITE_HAND.image,
    augment=AugmentConfig(
        flip=0.5,
        rotation_deg=30,
        zoom=0.3,
        shift=0.1,
        blur=0.5,
        blur_sigma=1.5,
        brightness=0.3,
        contrast=0.5,
        gamma=0.5,
    ),
    model=SiameseConfig(backbone=LITE0),
    task=ViewsTaskConfig(),
    stages=(
        Stage(epochs=20, optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=1e-4, schedule="cosine", warmup=0.1),
    ),
    batch_size=32,
    best_by=LAST_EPOCH,
    precision="float32",
)
