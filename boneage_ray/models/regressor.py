"""Features of a radiograph, with sex as an input where the recipe says so, to named heads.

Axis letters: B batch, H height, W width, F features, C classes.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from boneage_ray.anatomy.growth import SCHEMES
from boneage_ray.models.config import RegressorConfig
from boneage_ray.models.encoder import EncoderModel

# The mean and spread of ages in the published training set: a head that starts there learns from the first step.
AGE_MEAN_YEARS, AGE_SD_YEARS = 10.6, 3.4


@final
class Regressor(EncoderModel):
    """image_B1HW float in [0, 1], sex_B int64 (0 F, 1 M, 2 unknown) -> age_years (B,), stage_<scheme> logits (B, C)."""

    def __init__(self, config: RegressorConfig, with_weights: bool = True, size: int | None = None) -> None:
        super().__init__(config, with_weights, size)
        self.mirror = config.mirror
        self.sex, sex_width = _sex_layers(config)
        width = self.encoder_features + sex_width
        self.feature_count = width
        self.trunk, width = _trunk(width, config.hidden, config.dropout)
        self.age = nn.Linear(width, 1)
        self.stages = nn.ModuleDict({name: nn.Linear(width, len(SCHEMES[name].classes)) for name in config.stage_heads})

    def forward(self, image_B1HW: Tensor, sex_B: Tensor | None = None) -> dict[str, Tensor]:
        """Named outputs; sex that is not given counts as unknown."""
        return self.with_features(image_B1HW, sex_B)[1]

    def with_features(self, image_B1HW: Tensor, sex_B: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """(the features (B, F) of the image as it is given, the named outputs), from one pass."""
        features_BF = self.features(image_B1HW, sex_B)
        outputs = self.heads(features_BF)
        if self.training or not self.mirror:
            return features_BF, outputs
        mirrored = self.heads(self.features(image_B1HW.flip(-1), sex_B))
        return features_BF, {name: (value + mirrored[name]) / 2 for name, value in outputs.items()}

    def heads(self, features_BF: Tensor) -> dict[str, Tensor]:
        """What `features` found (B, F) to named outputs."""
        # The heads in float32 also under autocast: a bfloat16 age comes in steps of a month.
        with torch.autocast(features_BF.device.type, enabled=False):
            trunk_BF = self.trunk(features_BF.float())
            outputs = {"age_years": self.age(trunk_BF).squeeze(1) * AGE_SD_YEARS + AGE_MEAN_YEARS}
            return outputs | {f"stage_{name}": head(trunk_BF) for name, head in self.stages.items()}

    def features(self, image_B1HW: Tensor, sex_B: Tensor | None = None) -> Tensor:
        """Pooled encoder features (B, F), with the sex embedding behind them if sex is an input."""
        features_BF = self.encoded(image_B1HW)
        if self.sex is None:
            return features_BF
        index_B = sex_B if sex_B is not None else torch.full((len(features_BF),), 2, device=features_BF.device)
        return torch.cat([features_BF, self.sex(index_B).to(features_BF.dtype)], dim=1)


def _sex_layers(config: RegressorConfig) -> tuple[nn.Module | None, int]:
    """Sex (B,) to features, and how many; a plain embedding keeps the name that its weights had from the beginning."""
    if not config.sex_features:
        return None, 0
    embedding = nn.Embedding(3, config.sex_features)
    if not config.sex_hidden:
        return embedding, config.sex_features
    layers, width = _trunk(config.sex_features, config.sex_hidden, 0.0)
    return nn.Sequential(embedding, nn.ReLU(inplace=True), *layers), width


def _trunk(width: int, hidden: tuple[int, ...], dropout: float | tuple[float, ...]) -> tuple[nn.Sequential, int]:
    layers: list[nn.Module] = []
    rates = dropout if isinstance(dropout, tuple) else (dropout,) * len(hidden)
    for size, rate in zip(hidden, rates, strict=True):
        layers += [nn.Linear(width, size), nn.ReLU(inplace=True)]
        if rate:
            layers.append(nn.Dropout(rate))
        width = size
    return nn.Sequential(*layers), width
