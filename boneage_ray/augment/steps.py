"""Augmentation steps that Kornia lacks. Loading Kornia takes two seconds: import this module only to build a pipeline.

Axis letters: B batch, C channels, H height, W width. Points are (x, y) in pixels, pixel centres at integer coordinates.
"""

from __future__ import annotations

import math
from typing import Any, final

import kornia.augmentation as K
import torch
import torch.nn.functional as F
from kornia.geometry.keypoints import Keypoints
from torch import Tensor

Drawn = dict[str, Tensor]


@final
class AffineSometimesTurned(K.RandomAffine):  # type: ignore[misc]  # Kornia is not typed for strict checks
    """Zoom and shift always, and rotation with its own probability, in one resampling."""

    def __init__(self, rotation_p: float, **settings: Any) -> None:  # noqa: ANN401  RandomAffine's own
        super().__init__(**settings)
        self.rotation_p = rotation_p

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> Drawn:
        """RandomAffine's draws, and which cases are rotated."""
        drawn: Drawn = super().generate_parameters(batch_shape)
        angle = drawn["angle"]
        turned = torch.rand(len(angle), dtype=angle.dtype, device=angle.device) < self.rotation_p
        return drawn | {"angle": angle * turned}


@final
class Bend(K.GeometricAugmentationBase2D):
    """Elastic deformation by a smooth displacement field, interpolated from a coarse grid of random displacements.

    `greatest`: the largest displacement of a grid point in x and in y, as a fraction of the image's side. Up to 0.05 the field
    does not fold. (Simard et al. 2003 draw a displacement for every pixel and smooth them: the same effect for more work.)
    """

    GRID = 5

    def __init__(self, greatest: float) -> None:
        super().__init__(p=1.0)
        self.greatest = greatest

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> Drawn:
        """bend: (B, 2, 5, 5) displacements in x and y, as fractions of the side."""
        return {"bend": self.greatest * (2 * torch.rand(batch_shape[0], 2, self.GRID, self.GRID) - 1)}

    def compute_transformation(self, input: Tensor, params: Drawn, flags: dict[str, Any]) -> Tensor:
        """(B, 3, 3) identities, because a matrix cannot describe this deformation."""
        return torch.eye(3, dtype=input.dtype, device=input.device).repeat(len(input), 1, 1)

    def apply_transform(
        self, input: Tensor, params: Drawn, flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W) -> the same, bilinear; outside is black."""
        return self._fetched(input, params, "bilinear")

    def apply_transform_mask(
        self, input: Tensor, params: Drawn, flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Masks (B, C, H, W) -> the same, by the nearest pixel."""
        return self._fetched(input, params, "nearest")

    def apply_transform_keypoint(
        self, input: Keypoints, params: Drawn, flags: dict[str, Any], transform: Tensor | None = None
    ) -> Keypoints:
        """A point p moves with its pixel: to q with q + field(q) = p."""
        height, width = (int(side) for side in params["forward_input_shape"][-2:])
        field_B2HW = self._field(params, input.data, height, width)
        size = _pair(width - 1, height - 1, input.data)
        points_BK2, q_BK2 = input.data, input.data
        for _ in range(8):
            grid = 2 * q_BK2.nan_to_num() / size - 1
            moved_B2K1 = F.grid_sample(field_B2HW, grid[:, :, None], padding_mode="border", align_corners=True)
            q_BK2 = points_BK2 - moved_B2K1[..., 0].mT
        return Keypoints(q_BK2, False)

    def _fetched(self, input: Tensor, params: Drawn, mode: str) -> Tensor:
        height, width = input.shape[-2:]
        field_B2HW = self._field(params, input, height, width)
        rows, columns = (
            torch.linspace(-1, 1, side, dtype=input.dtype, device=input.device) for side in (height, width)
        )
        y_HW, x_HW = torch.meshgrid(rows, columns, indexing="ij")
        scale = _pair(2 / (width - 1), 2 / (height - 1), input)
        grid_BHW2 = torch.stack([x_HW, y_HW], -1) + field_B2HW.permute(0, 2, 3, 1) * scale
        return F.grid_sample(input, grid_BHW2, mode=mode, align_corners=True)

    def _field(self, params: Drawn, like: Tensor, height: int, width: int) -> Tensor:
        """(B, 2, H, W) displacements in pixels, of the dtype and on the device of `like`."""
        bend = _on(like.device, params["bend"].float())
        smooth = F.interpolate(bend, (height, width), mode="bicubic", align_corners=True)
        return (smooth * _pair(width, height, smooth)[:, None, None]).to(like.dtype)


@final
class CropRight(K.GeometricAugmentationBase2D):
    """Cuts off the right side; a fraction `smallest` to 1 of the width is kept, in whole pixels.

    The kept columns are centred on black, as preparation pads a narrow image. They are not stretched: that would change the
    ratio of width to height of every vertebra, on which the stage depends. Nothing is resampled. Points that were cut off
    become NaN (unknown).
    """

    def __init__(self, smallest: float, p: float) -> None:
        super().__init__(p=p)
        self.smallest = smallest

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> Drawn:
        """kept: (B,) pixels of the width that are kept, at least 1."""
        width = batch_shape[-1]
        fraction_B = self.smallest + (1 - self.smallest) * torch.rand(batch_shape[0])
        return {"kept": (fraction_B * width).round().clamp_min(1)}

    def compute_transformation(self, input: Tensor, params: Drawn, flags: dict[str, Any]) -> Tensor:
        """(B, 3, 3) shifts in x by whole pixels."""
        matrix_B33 = torch.eye(3, dtype=input.dtype, device=input.device).repeat(len(input), 1, 1)
        matrix_B33[:, 0, 2] = _moved(_on(input.device, params["kept"]), input.shape[-1])
        return matrix_B33

    def apply_transform(
        self, input: Tensor, params: Drawn, flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W) -> the same; images and masks alike."""
        width = input.shape[-1]
        kept_B = _on(input.device, params["kept"])
        source_BW = torch.arange(width, device=input.device) - _moved(kept_B, width)[:, None].long()
        seen_BW = (source_BW >= 0) & (source_BW < kept_B[:, None])
        index_BW = source_BW.clamp(0, width - 1)
        moved: Tensor = input.gather(-1, index_BW[:, None, None, :].expand_as(input))
        return moved * seen_BW[:, None, None, :]

    def apply_transform_keypoint(
        self, input: Keypoints, params: Drawn, flags: dict[str, Any], transform: Tensor | None = None
    ) -> Keypoints:
        """Points move with the image; those beyond the kept columns become NaN."""
        kept_B = _on(input.data.device, params["kept"])
        gone_BK = input.data[..., 0] > kept_B[:, None] - 0.5
        moved: Keypoints = super().apply_transform_keypoint(input, params, flags, transform)
        moved.data.masked_fill_(gone_BK[..., None], math.nan)
        return moved


def _on(device: torch.device, drawn: Tensor) -> Tensor:
    """What was drawn on the host, on a device, without waiting for it."""
    return drawn.to(device, non_blocking=True)


def _pair(x: float, y: float, like: Tensor) -> Tensor:
    """(2,) x and y, made on the device."""
    return torch.stack([torch.full((), value, dtype=like.dtype, device=like.device) for value in (x, y)])


def _moved(kept_B: Tensor, width: int) -> Tensor:
    """(B,) shift to the right in whole pixels that centres the kept columns."""
    return ((width - kept_B) / 2).floor()
