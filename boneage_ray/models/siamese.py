"""An encoder with the two heads of SimSiam, which make it learn from images alone (Chen and He 2021, section 3).

Axis letters: B batch, H height, W width, F features, D dimensions of an embedding.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from boneage_ray.models.config import SiameseConfig
from boneage_ray.models.encoder import EncoderModel


@final
class Siamese(EncoderModel):
    """image_B1HW float in [0, 1] -> embedding (B, D), foretold (B, D): what it expects of another view's embedding."""

    def __init__(self, config: SiameseConfig, with_weights: bool = True, size: int | None = None) -> None:
        super().__init__(config, with_weights, size)
        width = config.width
        self.projector = nn.Sequential(
            *_hidden(self.encoder_features, width),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width, affine=False),
        )
        self.predictor = nn.Sequential(*_hidden(width, width // 4), nn.Linear(width // 4, width))

    def forward(self, image_B1HW: Tensor, sex_B: Tensor | None = None) -> dict[str, Tensor]:
        """Both heads; sex is no input."""
        features_BF = self.encoded(image_B1HW)
        with torch.autocast(features_BF.device.type, enabled=False):
            embedding_BD = self.projector(features_BF.float())
            return {"embedding": embedding_BD, "foretold": self.predictor(embedding_BD)}


def _hidden(width: int, to: int) -> list[nn.Module]:
    return [nn.Linear(width, to, bias=False), nn.BatchNorm1d(to), nn.ReLU(inplace=True)]
