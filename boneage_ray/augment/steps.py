"""Augmentation steps that Kornia has not. Loading Kornia takes two seconds: imported where a pipeline is built.

Axis letters: B batch, C channels, H height, W width. Points are (x, y) in pixels, pixel centres at integer coordinates.
"""

from __future__ import annotations

import math
from typing import Any, final

import kornia.augmentation as K
import torch
from kornia.geometry.keypoints import Keypoints
from torch import Tensor

Drawn = dict[str, Tensor]


@final
class AffineSometimesTurned(K.RandomAffine):  # type: ignore[misc]  # Kornia is not typed for strict checks
    """Zoom and shift always, rotation with a probability of its own, in one resampling."""

    def __init__(self, rotation_p: float, **settings: Any) -> None:  # noqa: ANN401  RandomAffine's own
        super().__init__(**settings)
        self.rotation_p = rotation_p

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> Drawn:
        """As RandomAffine draws, then which cases are turned at all."""
        drawn: Drawn = super().generate_parameters(batch_shape)
        angle = drawn["angle"]
        turned = torch.rand(len(angle), dtype=angle.dtype, device=angle.device) < self.rotation_p
        return drawn | {"angle": angle * turned}


@final
class CropRight(K.GeometricAugmentationBase2D):
    """Cuts off the right side: a fraction `smallest` to 1 of the width is kept, whole pixels, at its own scale.

    What is kept goes to the middle and the rest is filled with black, as preparation pads an image that is narrower than
    the frame. It is not stretched to the frame's width: that would change the ratio of width to height of every vertebra,
    which is what a stage is read from. And nothing is resampled. Points that were cut off become NaN, unknown: they would
    lie on black.
    """

    def __init__(self, smallest: float, p: float) -> None:
        super().__init__(p=p)
        self.smallest = smallest

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> Drawn:
        """kept: (B,) pixels of the width, at least 1."""
        width = batch_shape[-1]
        fraction_B = self.smallest + (1 - self.smallest) * torch.rand(batch_shape[0])
        return {"kept": (fraction_B * width).round().clamp_min(1)}

    def compute_transformation(self, input: Tensor, params: Drawn, flags: dict[str, Any]) -> Tensor:
        """(B, 3, 3) shifts in x by whole pixels."""
        matrix_B33 = torch.eye(3, dtype=input.dtype, device=input.device).repeat(len(input), 1, 1)
        matrix_B33[:, 0, 2] = _moved(params["kept"].to(input.device), input.shape[-1])
        return matrix_B33

    def apply_transform(
        self, input: Tensor, params: Drawn, flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W) -> the same; images and masks alike."""
        width = input.shape[-1]
        kept_B = params["kept"].to(input.device)
        source_BW = torch.arange(width, device=input.device) - _moved(kept_B, width)[:, None].long()
        seen_BW = (source_BW >= 0) & (source_BW < kept_B[:, None])
        index_BW = source_BW.clamp(0, width - 1)
        moved: Tensor = input.gather(-1, index_BW[:, None, None, :].expand_as(input))
        return moved * seen_BW[:, None, None, :]

    def apply_transform_keypoint(
        self, input: Keypoints, params: Drawn, flags: dict[str, Any], transform: Tensor | None = None
    ) -> Keypoints:
        """Points move along; those beyond the kept columns become NaN."""
        kept_B = params["kept"].to(input.data.device)
        gone_BK = input.data[..., 0] > kept_B[:, None] - 0.5
        moved: Keypoints = super().apply_transform_keypoint(input, params, flags, transform)
        moved.data.masked_fill_(gone_BK[..., None], math.nan)
        return moved


def _moved(kept_B: Tensor, width: int) -> Tensor:
    """(B,) whole pixels to the right that bring the kept columns to the middle."""
    return ((width - kept_B) / 2).floor()
