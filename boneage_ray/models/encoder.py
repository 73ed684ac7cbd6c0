"""What models of one timm encoder share: the encoder, and how a radiograph comes to it.

Axis letters: B batch, C channels, H height, W width, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from boneage_ray.errors import UsageError
from boneage_ray.models.backbone import build_backbone, fixed_size, own_normalisation
from boneage_ray.models.config import EncoderSettings
from boneage_ray.models.model import Model
from boneage_ray.runtime.runs import say

# ImageNet statistics (Deng et al. 2009), mean and spread, for encoders that were trained with them.
_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


class EncoderModel(Model):
    """Abstract: `encoded` for the heads of its classes, which come after it."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: EncoderSettings, with_weights: bool = True, size: int | None = None) -> None:
        super().__init__()
        self.channels = config.channels
        self.backbone = build_backbone(config.backbone, config.channels, with_weights, size)
        self.backbone_name, self.fixed_size = config.backbone.name, fixed_size(self.backbone)
        self.encoder_features = int(self.backbone.num_features)  # type: ignore[arg-type]
        # The encoder's own are kept with the weights: another version of timm may state others.
        kept = config.channels == 3 and config.normalisation == "encoder"
        mean, std = own_normalisation(self.backbone) if kept else _IMAGENET
        if with_weights and config.channels == 3 and not kept:
            _note_other_normalisation(config, *own_normalisation(self.backbone))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=kept)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=kept)

    def encoded(self, image_B1HW: Tensor) -> Tensor:
        """Pooled features (B, F) of float images in [0, 1]. Raises `UsageError` for a size that the encoder does not take."""
        image = image_B1HW
        height, width = image.shape[-2:]
        if self.fixed_size not in (None, (height, width)):
            needed = self.fixed_size[0]
            raise UsageError(
                f"{self.backbone_name} takes {needed} px images only, these have {width} x {height}: "
                f"prepare and train with --set image.size={needed}"
            )
        if self.channels == 3:
            image = (image.expand(-1, 3, -1, -1) - self.mean) / self.std
        return self.compute("encoder", image)

    def network(self, name: str, image_BCHW: Tensor) -> Tensor:
        """The encoder: images as it expects them to pooled features (B, F)."""
        features_BF: Tensor = self.backbone(image_BCHW.contiguous(memory_format=torch.channels_last))
        return features_BF


def _note_other_normalisation(config: EncoderSettings, mean: list[float], std: list[float]) -> None:
    """Say what published weights expect, where it is not what they get."""
    if config.starts_pretrained and (mean, std) != _IMAGENET:
        say(
            f"the weights {config.backbone.weights} of {config.backbone.name} expect images of mean {mean[0]:g} and spread "
            f"{std[0]:g}, but get ImageNet's: --set model.normalisation=encoder"
        )
