"""Kornia augmentation of batches on the device, with the same draw for image, mask and points.

A flip moves points but does not reorder them, because landmarks are anatomical (posterior, anterior), not left and right. Only
measurements depend on which way a head faces.

Axis letters: B batch, H height, W width, K points. Points are (x, y) in pixels, pixel centres at integer coordinates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from boneage_ray.augment.config import AugmentConfig
from boneage_ray.datasets.batch import still_unknown


@dataclass(frozen=True)
class Augmented:
    """Augmented float images (B, 1, H, W) in [0, 1], with mask and points if these were given."""

    image_B1HW: Tensor
    mask_B1HW: Tensor | None = None
    points_BK2: Tensor | None = None


class Augment(nn.Module):
    """Random changes, drawn once per case and applied to its image, mask and points."""

    def __init__(self, config: AugmentConfig) -> None:
        import kornia.augmentation as K  # takes two seconds, not needed for scoring

        super().__init__()
        steps = _steps(config)
        self.pipeline = K.AugmentationSequential(*steps, data_keys=None) if steps else None

    @torch.no_grad()
    def forward(
        self, image_B1HW: Tensor, mask_B1HW: Tensor | None = None, points_BK2: Tensor | None = None
    ) -> Augmented:
        """Augment float images in [0, 1]; masks stay binary (nearest neighbour) or unknown.

        Points may leave the image. NaN points (no label) stay NaN; those that a crop cuts off become NaN.
        """
        if self.pipeline is None:
            return Augmented(image_B1HW, mask_B1HW, points_BK2)
        given = {"image": image_B1HW, "mask": mask_B1HW, "keypoints": points_BK2}
        out = self.pipeline({key: value for key, value in given.items() if value is not None})
        mask = None if mask_B1HW is None else still_unknown(out["mask"], mask_B1HW)
        return Augmented(out["image"].clamp(0.0, 1.0), mask, out.get("keypoints"))


def _steps(config: AugmentConfig) -> list[Any]:
    """Kornia's steps, in the order of the config's fields."""
    import kornia.augmentation as K

    from boneage_ray.augment.steps import Bend, CropRight

    steps: list[Any] = []
    if config.flip:
        steps.append(K.RandomHorizontalFlip(p=config.flip))
    steps += _affine(config)
    if config.bend:
        steps.append(Bend(config.bend))
    if config.blur:
        kernel = 2 * math.ceil(3 * config.blur_sigma) + 1
        steps.append(K.RandomGaussianBlur((kernel, kernel), (config.blur_sigma, config.blur_sigma), p=config.blur))
    if config.crop_right:
        steps.append(CropRight(config.crop_right_min, p=config.crop_right))
    if config.brightness:
        steps.append(K.RandomBrightness((1 - config.brightness, 1 + config.brightness), p=1.0))
    if config.contrast:
        steps.append(K.RandomContrast((1 - config.contrast, 1 + config.contrast), p=1.0))
    if config.gamma:
        steps.append(K.RandomGamma((1 - config.gamma, 1 + config.gamma), p=1.0))
    if config.gain:
        # Kornia's contrast multiplies, which other libraries call brightness; its brightness adds.
        steps.append(K.RandomContrast((config.gain_min, config.gain_max), p=config.gain))
    if config.erase:
        steps.append(K.RandomErasing(scale=(0.02, 0.15), p=config.erase))
    if config.flip_last:
        steps.append(K.RandomHorizontalFlip(p=config.flip_last))
    return steps


def _affine(config: AugmentConfig) -> list[Any]:
    import kornia.augmentation as K

    from boneage_ray.augment.steps import AffineSometimesTurned

    degrees = config.rotation_deg if config.rotation_p else 0.0
    if not (degrees or config.zoom or config.shift):
        return []
    settings: dict[str, Any] = {
        "degrees": degrees,
        "translate": (config.shift, config.shift) if config.shift else None,
        "scale": (1 - config.zoom, 1 + config.zoom) if config.zoom else None,
        "align_corners": True,
        "p": 1.0,
    }
    if degrees and config.rotation_p < 1:
        return [AffineSometimesTurned(config.rotation_p, **settings)]
    return [K.RandomAffine(**settings)]
