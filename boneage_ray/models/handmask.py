"""A U-Net (Ronneberger et al. 2015) that separates hand from background on patches of full-size radiographs.

Axis letters: B batch, H height, W width.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from boneage_ray.datasets.batch import Batch, still_unknown
from boneage_ray.errors import UsageError
from boneage_ray.models import patches
from boneage_ray.models.config import HandMaskConfig
from boneage_ray.models.model import Model
from boneage_ray.models.unet import STEP, start_from, unet


@final
class HandMask(Model):
    """image_B1HW float in [0, 1] -> {"mask": logits (B, 1, H, W)}, positive on the hand.

    In evaluation an image larger than a patch is stitched from overlapping patches; in training it is taken as it is.
    """

    def __init__(self, config: HandMaskConfig, with_weights: bool = True, size: int | None = None) -> None:
        super().__init__()
        self.config = config
        net = unet(config, 1, with_weights)
        self.backbone, self.decoder, self.head = net.encoder, net.decoder, net.segmentation_head
        if with_weights:
            start_from(self, [self.backbone], config)

    def forward(self, image_B1HW: Tensor, sex_B: Tensor | None = None) -> dict[str, Tensor]:
        """Logits of the image's size; sex is no input."""
        patch = self.config.patch
        if self.training or max(image_B1HW.shape[-2:]) <= patch:
            return {"mask": self._logits(image_B1HW)}
        return {"mask": patches.stitched(self._logits, image_B1HW, patch, self.config.stride)}

    def training_batch(self, batch: Batch) -> Batch:
        """`patches` patches of each image with their masks, balanced between those with hand and those without."""
        config = self.config
        if batch.mask_B1HW is None:
            raise UsageError(
                "the hand-mask recipe needs masks: prepare an archive with masks/ID.png, or with --set image.mask=hand"
            )
        image = patches.enlarged(batch.image_B1HW, config.patch)
        mask = still_unknown(patches.enlarged(batch.mask_B1HW, config.patch), batch.mask_B1HW)
        spots = patches.draw_places(mask, config.patch, config.stride, config.patches, config.foreground)
        sex_B, age_B = (torch.repeat_interleave(values, config.patches) for values in (batch.sex_B, batch.age_B))
        ids = tuple(name for name in batch.ids for _ in range(config.patches))
        pixels, drawn = (patches.cut_patches(values, spots, config.patch) for values in (image, mask))
        return Batch(pixels, sex_B, age_B, ids, drawn)

    def _logits(self, image_B1HW: Tensor) -> Tensor:
        height, width = image_B1HW.shape[-2:]
        image = patches.enlarged(image_B1HW, STEP, STEP)
        return self.compute("mask", image)[:, :, :height, :width]

    def network(self, name: str, image_BCHW: Tensor) -> Tensor:
        """The U-Net: (B, 1, H, W) to logits of that size."""
        features = self.backbone(image_BCHW.contiguous(memory_format=torch.channels_last))
        logits: Tensor = self.head(self.decoder(features))
        return logits
