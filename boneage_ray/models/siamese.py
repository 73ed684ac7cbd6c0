"""An encoder with the two heads of SimSiam, which make it learn from images alone (Chen and He 2021, section 3).

Axis letters: B batch, H height, W width, F features, D dimensions of an embedding.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from boneage_ray.models.backbone import build_backbone, input_normalisation
from boneage_ray.models.config import SiameseConfig
from boneage_ray.models.model import Model


@final
class Siamese(Model):
    """image_B1HW float in [0, 1] -> embedding (B, D), foretold (B, D): what it expects of another view's embedding.

    The encoder gets the images as a regressor of the same settings gives them to its own, which takes its weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: SiameseConfig, with_weights: bool = True, size: int | None = None) -> None:
        super().__init__()
        self.channels = config.channels
        self.backbone = build_backbone(config.backbone, config.channels, with_weights, size)
        features, width = int(self.backbone.num_features), config.width  # type: ignore[arg-type]
        layers: list[nn.Module] = [nn.Linear(features, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        self.projector = nn.Sequential(
            *layers, nn.Linear(width, width, bias=False), nn.BatchNorm1d(width, affine=False)
        )
        narrow: list[nn.Module] = [
            nn.Linear(width, width // 4, bias=False),
            nn.BatchNorm1d(width // 4),
            nn.ReLU(inplace=True),
        ]
        self.predictor = nn.Sequential(*narrow, nn.Linear(width // 4, width))
        mean, std, kept = input_normalisation(config.channels, config.normalisation, self.backbone)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=kept)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=kept)

    def forward(self, image_B1HW: Tensor, sex_B: Tensor | None = None) -> dict[str, Tensor]:
        """Both heads; sex is no input."""
        image = image_B1HW
        if self.channels == 3:
            image = (image.expand(-1, 3, -1, -1) - self.mean) / self.std
        features_BF = self.compute("encoder", image)
        with torch.autocast(features_BF.device.type, enabled=False):
            embedding_BD = self.projector(features_BF.float())
            return {"embedding": embedding_BD, "foretold": self.predictor(embedding_BD)}

    def network(self, name: str, image_BCHW: Tensor) -> Tensor:
        """The encoder: images as it expects them to pooled features (B, F)."""
        features_BF: Tensor = self.backbone(image_BCHW.contiguous(memory_format=torch.channels_last))
        return features_BF
