"""A recipe's model config to its network."""

from __future__ import annotations

from boneage_ray.models.config import HandMaskConfig, RegressorConfig
from boneage_ray.models.model import Model
from boneage_ray.models.regressor import Regressor


def build_model(config: RegressorConfig | HandMaskConfig, with_weights: bool = True) -> Model:
    """`with_weights=False` leaves it random, for weights that a bundle or a checkpoint will bring."""
    if isinstance(config, HandMaskConfig):
        raise NotImplementedError
    return Regressor(config, with_weights)
