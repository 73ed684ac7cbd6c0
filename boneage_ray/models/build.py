"""A recipe's model config to its network."""

from __future__ import annotations

from boneage_ray.models.cephalogram import Cephalogram
from boneage_ray.models.config import CephalogramConfig, HandMaskConfig, RegressorConfig
from boneage_ray.models.handmask import HandMask
from boneage_ray.models.model import Model
from boneage_ray.models.regressor import Regressor


def build_model(
    config: RegressorConfig | HandMaskConfig | CephalogramConfig, with_weights: bool = True, size: int | None = None
) -> Model:
    """`with_weights=False` leaves it random, for weights that a bundle or a checkpoint will bring; `size`: side of the images."""
    if isinstance(config, HandMaskConfig):
        return HandMask(config, with_weights)
    if isinstance(config, CephalogramConfig):
        return Cephalogram(config, with_weights)
    return Regressor(config, with_weights, size)
