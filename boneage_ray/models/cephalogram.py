"""A multi-task U-Net for lateral cephalograms: named maps of the whole image, and optionally a second pass over the neck.

Axis letters: B batch, H height, W width, K points. Points are (x, y) in pixels, pixel centres at integers.

A frame (B, 3) says where a map lies in the image that the model was given: x_image = x0 + s * x_map, y_image = y0 + s * y_map,
its columns x0, y0, s.
"""

from __future__ import annotations

from typing import cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boneage_ray.anatomy.cephalometry import FACIAL, VERTEBRAL
from boneage_ray.errors import UsageError
from boneage_ray.models.config import CephalogramConfig, MapName
from boneage_ray.models.heatmap import decode_heatmaps
from boneage_ray.models.model import Model
from boneage_ray.models.unet import STEP, start_from, unet

CHANNELS: dict[MapName, int] = {"reconstruction": 1, "edges": 1, "vertebral": len(VERTEBRAL), "facial": len(FACIAL)}
_NETWORKS = ("whole", "neck")
# Of the image's side: a neck is never narrower or wider, whatever an untrained network says.
_NARROWEST, _WIDEST = 0.15, 0.6
_DEEP = 3  # of an encoder's maps: an eighth of the side and less, where a network can memorise single heads
_DOUBTFUL = 0.8  # a head that is seen is seen with 0.9 and more (measured), any other picture with less
_PEAK = 2.0  # pixels about a peak that its place is taken from; only the region hangs on it
# In training the region is moved and scaled at random, as if it had been found less well.
_MOVED, _SCALED = 0.12, 0.15


@final
class Cephalogram(Model):
    """image_B1HW float in [0, 1] -> logits by name.

    `reconstruction` (B, 1, h, w), `edges` (B, 1, h, w), `vertebral` (B, 13, h, w), `facial` (B, 19, h, w), as far as the config
    names them, and their `frame` (B, 3). With `neck`: `neck` (B, 13, n, n) and its `neck_frame` (B, 3).
    """

    def __init__(self, config: CephalogramConfig, with_weights: bool = True, size: int | None = None) -> None:
        super().__init__()
        self.config = config
        maps = [sum(CHANNELS[name] for name in config.maps), *([CHANNELS["vertebral"]] if config.neck else [])]
        nets = [unet(config, count, with_weights, config.stride) for count in maps]
        encoders = [net.encoder for net in nets]
        self.backbone = nn.ModuleList(encoders)
        self.decoders = nn.ModuleList(net.decoder for net in nets)
        self.heads = nn.ModuleList(net.segmentation_head for net in nets)
        if with_weights:
            start_from(self, encoders, config)

    def forward(self, image_B1HW: Tensor, sex_B: Tensor | None = None) -> dict[str, Tensor]:
        """Logits of all maps; sex is no input. Raises `UsageError` for a side that is no multiple of 32.

        In evaluation, an image with a low confidence is also predicted mirrored; the more confident answer of the two counts,
        turned back.
        """
        outputs = self._look(image_B1HW)
        return outputs if self.training or not self.config.mirror else self._of_both_sides(image_B1HW, outputs)

    @torch.no_grad()
    def _of_both_sides(self, image_B1HW: Tensor, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        sure_B = _sure(outputs)
        doubtful = (sure_B < _DOUBTFUL).nonzero()[:, 0]
        if not len(doubtful):
            return outputs
        mirrored = self._look(image_B1HW[doubtful].flip(-1))
        better_B = _sure(mirrored) > sure_B[doubtful]
        turned = turned_back(mirrored, image_B1HW.shape[-1])
        taken = doubtful[better_B]
        return {name: values.index_copy(0, taken, turned[name][better_B]) for name, values in outputs.items()}

    def _look(self, image_B1HW: Tensor) -> dict[str, Tensor]:
        whole_B1hw, scale = self._whole(image_B1HW)
        logits = self.compute("whole", whole_B1hw)
        parts = torch.split(logits, [CHANNELS[name] for name in self.config.maps], dim=1)
        outputs: dict[str, Tensor] = dict(zip(map(str, self.config.maps), parts, strict=True))
        frame = F.pad(torch.ones(len(image_B1HW), 1, device=logits.device), (2, 0))
        outputs["frame"] = coarser(frame, scale * self.config.stride)
        if self.config.neck:
            neck_frame = self._neck(outputs, max(image_B1HW.shape[-2:]))
            outputs["neck_frame"] = coarser(neck_frame, self.config.stride)
            outputs["neck"] = self.compute("neck", cut_neck(image_B1HW, neck_frame, self.config.neck))
        return outputs

    def _whole(self, image_B1HW: Tensor) -> tuple[Tensor, float]:
        """The image with the side that is asked for, and how many pixels of the image one of its pixels is."""
        side = image_B1HW.shape[-1]
        wanted = self.config.side or side
        if wanted % STEP:
            raise UsageError(
                f"a side of {wanted} px is not divisible by {STEP}: give --set image.size={-(-wanted // STEP) * STEP}"
            )
        if wanted == side:
            return image_B1HW, 1.0
        small = F.interpolate(image_B1HW, (wanted, wanted), mode="bilinear", align_corners=False, antialias=True)
        return small, side / wanted

    def network(self, name: str, image_BCHW: Tensor) -> Tensor:
        """The U-Net of the whole image or of the neck (B, 1, H, W): logits of all its maps."""
        number = _NETWORKS.index(name)
        features = cast(nn.ModuleList, self.backbone)[number](image_BCHW.contiguous(memory_format=torch.channels_last))
        deep = [F.dropout2d(maps, self.config.dropout, self.training) for maps in features[-_DEEP:]]
        features = [*features[:-_DEEP], *deep]
        logits: Tensor = self.heads[number](self.decoders[number](features))
        return logits

    @torch.no_grad()
    def _neck(self, outputs: dict[str, Tensor], side: int) -> Tensor:
        """The frame of the square around the vertebral points that were found in the whole image."""
        found = decode_heatmaps(outputs["vertebral"], _PEAK, maps="logits").points_BK2
        points_BK2 = moved(found, outputs["frame"]).nan_to_num((side - 1) / 2)
        low_B2, high_B2 = points_BK2.amin(1), points_BK2.amax(1)
        centre_B2 = (low_B2 + high_B2) / 2
        extent_B1 = (high_B2 - low_B2).amax(1, keepdim=True) * (1 + 2 * self.config.neck_margin)
        extent_B1 = extent_B1.clamp(_NARROWEST * side, _WIDEST * side)
        if self.training:
            centre_B2 = centre_B2 + extent_B1 * _MOVED * (2 * torch.rand_like(centre_B2) - 1)
            extent_B1 = extent_B1 * (1 + _SCALED * (2 * torch.rand_like(extent_B1) - 1))
        step_B1 = extent_B1 / self.config.neck
        return torch.cat([centre_B2 - step_B1 * (self.config.neck - 1) / 2, step_B1], 1)


def _sure(outputs: dict[str, Tensor]) -> Tensor:
    """(B,) mean confidence of the points: of the less sure pass over the neck, or of the facial points without one.

    The second pass alone is not enough: it always gets some region, and is sure of a jaw too.
    """
    names: list[str] = [name for name in ("neck", "vertebral") if name in outputs] or ["facial"]
    return torch.stack(
        [decode_heatmaps(outputs[name], _PEAK, maps="logits").confidence_BK.mean(1) for name in names]
    ).amin(0)


def turned_back(outputs: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """What was seen in a mirror image, `width` pixels wide, as of the image itself."""
    turned = {name: values if values.ndim == 2 else values.flip(-1) for name, values in outputs.items()}
    if "neck" in outputs:
        x0, y0, scale = outputs["neck_frame"].unbind(-1)
        last = outputs["neck"].shape[-1] - 1
        turned["neck_frame"] = torch.stack([width - 1 - x0 - scale * last, y0, scale], -1)
    return turned


def moved(points_BK2: Tensor, frame_B3: Tensor) -> Tensor:
    """Points of a map as points of the image.

    >>> moved(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[0.5, 0.5, 2.0]])).tolist()
    [[[2.5, 4.5]]]
    """
    return frame_B3[:, None, :2] + frame_B3[:, None, 2:] * points_BK2


def moved_back(points_BK2: Tensor, frame_B3: Tensor) -> Tensor:
    """The inverse of `moved`: points of the image as points of a map."""
    return (points_BK2 - frame_B3[:, None, :2]) / frame_B3[:, None, 2:]


def coarser(frame_B3: Tensor, stride: float) -> Tensor:
    """The frame of a map of which one pixel is `stride` pixels of the map that the frame was of; the same square is covered.

    >>> coarser(torch.tensor([[0.0, 4.0, 1.0]]), 2).tolist()
    [[0.5, 4.5, 2.0]]
    """
    x0, y0, scale = frame_B3.unbind(-1)
    offset = scale * (stride - 1) / 2
    return torch.stack([x0 + offset, y0 + offset, scale * stride], -1)


def cut_neck(image_B1HW: Tensor, frame_B3: Tensor, side: int) -> Tensor:
    """The square (B, 1, side, side) that a frame describes, bilinear; 0 outside of the image."""
    height, width = image_B1HW.shape[-2:]
    steps = torch.arange(side, device=image_B1HW.device, dtype=torch.float32)
    x_BS, y_BS = (frame_B3[:, k, None] + frame_B3[:, 2, None] * steps for k in (0, 1))
    x_BSS = (2 * x_BS / (width - 1) - 1)[:, None, :].expand(-1, side, side)
    y_BSS = (2 * y_BS / (height - 1) - 1)[:, :, None].expand(-1, side, side)
    grid = torch.stack([x_BSS, y_BSS], -1).to(image_B1HW.dtype)
    return F.grid_sample(image_B1HW, grid, mode="bilinear", align_corners=True)
