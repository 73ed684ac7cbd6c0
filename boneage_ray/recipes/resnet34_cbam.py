"""ResNet34 with channel and spatial attention in every block (Woo et al. 2018); everything else as densenet121.

22.50 million parameters: 21.28 of ResNet34 with one input channel, 0.16 of the attention, 1.06 of head and sex; the publication
gives about 22.6 in total.
"""

from __future__ import annotations

from boneage_ray.models.config import BackboneConfig
from boneage_ray.recipes.densenet121 import DENSENET121

RESNET34_CBAM = DENSENET121.derive(
    name="resnet34-cbam",
    summary="ResNet34 with CBAM on the cropped hand, gray, with sex; Huber loss, 256 px",
    model={
        "backbone": BackboneConfig(name="resnet34", attention="cbam").model_dump(),
        "hidden": (1024, 512),
        "dropout": 0.4,
    },
    stages=tuple(stage.model_copy(update={"warmup": 0.1}).model_dump() for stage in DENSENET121.stages),
)
