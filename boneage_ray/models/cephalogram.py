"""A multi-task U-Net for lateral cephalograms: named maps of the whole image, and optionally a second look at the neck, or at
the surroundings of each point.

Axis letters: B batch, H height, W width, K points, n those that are looked at again, S side of a square. Points are (x, y) in
pixels, pixel centres at integers.
"""

from __future__ import annotations

from typing import cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boneage_ray.anatomy.cephalometry import FACIAL, SETS, VERTEBRAL
from boneage_ray.errors import UsageError
from boneage_ray.models.config import CephalogramConfig, MapName
from boneage_ray.models.frames import coarser, cut, moved, surroundings, turned_back
from boneage_ray.models.heatmap import decode_heatmaps
from boneage_ray.models.model import Model
from boneage_ray.models.unet import SMALL, STEP, Shape, start_from, unet

CHANNELS: dict[MapName, int] = {"reconstruction": 1, "edges": 1, "vertebral": len(VERTEBRAL), "facial": len(FACIAL)}
# Of the image's side: a neck is never narrower or wider, whatever an untrained network says.
_NARROWEST, _WIDEST = 0.15, 0.6
_DEEP = 3  # of an encoder's maps: an eighth of the side and less, where a network can memorise single heads
_DOUBTFUL = 0.8  # a head that is seen is seen with 0.9 and more (measured), any other picture with less
_PEAK = 2.0  # pixels about a peak that its place is taken from; only the region hangs on it
# In training the region is moved and scaled at random, as if it had been found less well.
_MOVED, _SCALED = 0.12, 0.15
# Of a square around a point: where the point lies off its middle in training, in one half of all cases and in the other.
_NEAR, _FAR = 0.05, 0.2


@final
class Cephalogram(Model):
    """image_B1HW float in [0, 1] -> logits by name.

    `reconstruction` (B, 1, h, w), `edges` (B, 1, h, w), `vertebral` (B, 13, h, w), `facial` (B, 19, h, w), as far as the config
    names them, and their `frame` (B, 3). With `neck`: `neck` (B, 13, n, n) and its `neck_frame` (B, 3). With `detail`: `detail`
    (B, 19, d, d), each map of what surrounds its own point, and `detail_frame` (B, 19, 3).
    """

    def __init__(self, config: CephalogramConfig, with_weights: bool = True, size: int | None = None) -> None:
        super().__init__()
        self.config = config
        wide = Shape(decoder=config.decoder)
        nets = {"whole": unet(config, sum(CHANNELS[name] for name in config.maps), with_weights, config.stride, wide)}
        if config.neck:
            nets["neck"] = unet(config, CHANNELS["vertebral"], with_weights, config.stride, wide)
        if config.detail:
            nets["detail"] = unet(config, CHANNELS["facial"], with_weights, config.stride, SMALL)
        self.number = {name: number for number, name in enumerate(nets)}
        self.wants_points = bool(config.detail)
        encoders = [net.encoder for net in nets.values()]
        self.backbone = nn.ModuleList(encoders)
        self.decoders = nn.ModuleList(net.decoder for net in nets.values())
        self.heads = nn.ModuleList(net.segmentation_head for net in nets.values())
        if with_weights:
            start_from(self, encoders, config)

    def forward(
        self, image_B1HW: Tensor, sex_B: Tensor | None = None, points_BK2: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits of all maps; sex is no input. Raises `UsageError` for a side that is no multiple of 32.

        In evaluation, an image with a low confidence is also predicted mirrored; the more confident answer of the two counts,
        turned back. In training, `detail` looks about the labelled points (B, 32, 2) instead of those that were found, and at
        some of them only; the frames of all others are NaN.
        """
        outputs = self._look(image_B1HW, points_BK2)
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

    def _look(self, image_B1HW: Tensor, points_BK2: Tensor | None = None) -> dict[str, Tensor]:
        whole_B1hw, scale = self._whole(image_B1HW)
        logits = self.compute("whole", whole_B1hw)
        parts = torch.split(logits, [CHANNELS[name] for name in self.config.maps], dim=1)
        outputs: dict[str, Tensor] = dict(zip(map(str, self.config.maps), parts, strict=True))
        frame = F.pad(torch.ones(len(image_B1HW), 1, device=logits.device), (2, 0))
        outputs["frame"] = coarser(frame, scale * self.config.stride)
        if self.config.neck:
            neck_frame = self._neck(outputs, max(image_B1HW.shape[-2:]))
            outputs["neck_frame"] = coarser(neck_frame, self.config.stride)
            outputs["neck"] = self.compute("neck", cut(image_B1HW, neck_frame[:, None], self.config.neck))
        if self.config.detail:
            outputs |= self._detail(image_B1HW, outputs, points_BK2)
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
        """The U-Net of the whole image or of the neck (B, 1, H, W), or of squares (N, 3, S, S): logits of all its maps."""
        number = self.number[name]
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

    def _detail(self, image_B1HW: Tensor, outputs: dict[str, Tensor], points_BK2: Tensor | None) -> dict[str, Tensor]:
        """`detail` and `detail_frame`: what surrounds each facial point, looked at once more."""
        side, stride = image_B1HW.shape[-1], self.config.stride
        if self.training and points_BK2 is not None:
            places_BK2 = points_BK2[:, SETS["facial"]]
        else:
            found = decode_heatmaps(outputs["facial"].detach(), _PEAK, maps="logits").points_BK2
            places_BK2 = moved(found, outputs["frame"]).nan_to_num((side - 1) / 2)
        chosen_Bn = self._chosen(places_BK2)
        frame_Bn3 = self._squares(places_BK2.gather(1, chosen_Bn[..., None].expand(-1, -1, 2)), side)
        squares = surroundings(image_B1HW, frame_Bn3.nan_to_num(), self.config.detail, self.config.detail_side)
        logits = self.compute("detail", squares.flatten(0, 1))
        logits = logits.view(*chosen_Bn.shape, *logits.shape[1:])
        # Each square has a map for every point: its own counts.
        own = chosen_Bn[..., None, None, None].expand(-1, -1, 1, *logits.shape[-2:])
        logits_Bnhw, frame_Bn3 = logits.gather(2, own)[:, :, 0], coarser(frame_Bn3, stride)
        at = chosen_Bn[..., None]
        maps_BKhw = logits_Bnhw.new_zeros(*places_BK2.shape[:2], *logits.shape[-2:])
        frame_BK3 = torch.full_like(places_BK2[..., :1], torch.nan).repeat(1, 1, 3)
        return {
            "detail": maps_BKhw.scatter(1, at[..., None].expand_as(logits_Bnhw), logits_Bnhw),
            "detail_frame": frame_BK3.scatter(1, at.expand_as(frame_Bn3), frame_Bn3),
        }

    def _chosen(self, places_BK2: Tensor) -> Tensor:
        """(B, n) which points are looked at: all of them; in training some, drawn from those that have a label."""
        count = places_BK2.shape[1]
        if not self.training:
            return torch.arange(count, device=places_BK2.device).expand(len(places_BK2), -1)
        drawn_BK = torch.rand_like(places_BK2[..., 0]) + places_BK2.isfinite().all(-1)
        return drawn_BK.topk(min(self.config.detail_points, count), dim=1).indices

    def _squares(self, centre_Bn2: Tensor, side: int) -> Tensor:
        """(B, n, 3) frames of squares around points; in training the points lie off their middles."""
        step = side / self.config.detail_side
        extent = self.config.detail * step
        if self.training:
            near = _NEAR * torch.randn_like(centre_Bn2)
            far = _FAR * (2 * torch.rand_like(centre_Bn2) - 1)
            centre_Bn2 = centre_Bn2 + extent * torch.where(torch.rand_like(centre_Bn2[..., :1]) < 0.5, near, far)
        corner_Bn2 = centre_Bn2 - step * (self.config.detail - 1) / 2
        return torch.cat([corner_Bn2, torch.full_like(corner_Bn2[..., :1], step)], -1)


def _sure(outputs: dict[str, Tensor]) -> Tensor:
    """(B,) mean confidence of the points: of the less sure pass over the neck, or of the facial points without one.

    The second pass alone is not enough: it always gets some region, and is sure of a jaw too.
    """
    names: list[str] = [name for name in ("neck", "vertebral") if name in outputs] or ["facial"]
    return torch.stack(
        [decode_heatmaps(outputs[name], _PEAK, maps="logits").confidence_BK.mean(1) for name in names]
    ).amin(0)
