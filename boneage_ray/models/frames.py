"""Frames: where a map, or a square that is cut out, lies in the image that a model was given.

x_image = x0 + s * x_map, y_image = y0 + s * y_map; the columns of a frame are x0, y0, s. It is (B, 3), or (B, K, 3) where the
map of each point lies elsewhere.

Axis letters: B batch, H height, W width, K points, S side of a square. Points are (x, y) in pixels, pixel centres at integers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CONTEXT = (1, 2, 4)  # times a square's side: what the three channels of `surroundings` show


def turned_back(outputs: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """What was seen in a mirror image, `width` pixels wide, as of the image itself."""
    turned = {name: values if name.endswith("frame") else values.flip(-1) for name, values in outputs.items()}
    for name in {"neck", "detail"} & outputs.keys():
        x0, y0, scale = outputs[f"{name}_frame"].unbind(-1)
        last = outputs[name].shape[-1] - 1
        turned[f"{name}_frame"] = torch.stack([width - 1 - x0 - scale * last, y0, scale], -1)
    return turned


def moved(points_BK2: Tensor, frame: Tensor) -> Tensor:
    """Points of a map as points of the image.

    >>> moved(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[0.5, 0.5, 2.0]])).tolist()
    [[[2.5, 4.5]]]
    """
    frame_BK3 = of_each(frame)
    return frame_BK3[..., :2] + frame_BK3[..., 2:] * points_BK2


def moved_back(points_BK2: Tensor, frame: Tensor) -> Tensor:
    """The inverse of `moved`: points of the image as points of a map."""
    frame_BK3 = of_each(frame)
    return (points_BK2 - frame_BK3[..., :2]) / frame_BK3[..., 2:]


def of_each(frame: Tensor) -> Tensor:
    """(B, K, 3), or (B, 1, 3) of a frame that all points share."""
    return frame if frame.ndim == 3 else frame[:, None]


def coarser(frame: Tensor, stride: float) -> Tensor:
    """The frame of a map of which one pixel is `stride` pixels of the map that the frame was of; the same square is covered.

    >>> coarser(torch.tensor([[0.0, 4.0, 1.0]]), 2).tolist()
    [[0.5, 4.5, 2.0]]
    """
    x0, y0, scale = frame.unbind(-1)
    offset = scale * (stride - 1) / 2
    return torch.stack([x0 + offset, y0 + offset, scale * stride], -1)


def cut(image_B1HW: Tensor, frame_BK3: Tensor, side: int) -> Tensor:
    """The squares (B, K, side, side) that frames describe, bilinear; 0 outside of the image."""
    height, width = image_B1HW.shape[-2:]
    steps = torch.arange(side, device=image_B1HW.device, dtype=torch.float32)
    x_BKS, y_BKS = (frame_BK3[..., k, None] + frame_BK3[..., 2, None] * steps for k in (0, 1))
    x_BKSS = (2 * x_BKS / (width - 1) - 1)[..., None, :].expand(-1, -1, side, side)
    y_BKSS = (2 * y_BKS / (height - 1) - 1)[..., :, None].expand(-1, -1, side, side)
    grid = torch.stack([x_BKSS, y_BKSS], -1).flatten(1, 2).to(image_B1HW.dtype)
    found = F.grid_sample(image_B1HW, grid, mode="bilinear", align_corners=True)
    return found.view(*frame_BK3.shape[:2], side, side)


def surroundings(image_B1HH: Tensor, frame_BK3: Tensor, side: int, whole: int) -> Tensor:
    """(B, K, 3, side, side): the squares of frames, and twice and four times as much around their middles, as coarsely.

    `whole`: the side that the image has in pixels of the squares.
    """
    shown = []
    for factor in CONTEXT:
        size = whole // factor
        small = F.interpolate(image_B1HH, (size, size), mode="bilinear", align_corners=False, antialias=True)
        wider_BK3 = widened(frame_BK3, side, factor)
        shown.append(cut(small, in_smaller(wider_BK3, image_B1HH.shape[-1] / size), side))
    return torch.stack(shown, 2)


def widened(frame: Tensor, side: int, factor: float) -> Tensor:
    """The frame of a square of as many pixels that shows `factor` times as much about the same middle.

    >>> widened(torch.tensor([[10.0, 20.0, 1.0]]), 5, 2).tolist()
    [[8.0, 18.0, 2.0]]
    """
    x0, y0, scale = frame.unbind(-1)
    more = scale * (factor - 1) * (side - 1) / 2
    return torch.stack([x0 - more, y0 - more, scale * factor], -1)


def in_smaller(frame: Tensor, factor: float) -> Tensor:
    """A frame of an image as one of the image made `factor` times smaller.

    >>> in_smaller(torch.tensor([[0.5, 4.5, 2.0]]), 2).tolist()
    [[0.0, 2.0, 1.0]]
    """
    return torch.cat([(frame[..., :2] + 0.5) / factor - 0.5, frame[..., 2:] / factor], -1)
