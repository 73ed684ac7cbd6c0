"""Square patches of large images: drawn for training, and put together again for prediction.

Axis letters: B batch, C channels, H height, W width, P patches, N places. Places are (y, x) of a patch's upper left pixel.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Network = Callable[[Tensor], Tensor]
_AT_ONCE = {"cpu": 4, "cuda": 64}  # patches; more at a time are not faster, and need more memory
_LEAST_WEIGHT = 1e-3


def starts(length: int, patch: int, stride: int) -> list[int]:
    """Where patches begin along one side: every `stride`, and the last one flush with the end. `length` >= `patch`.

    >>> starts(600, 256, 128), starts(256, 256, 128)
    ([0, 128, 256, 344], [0])
    """
    inside = range(0, length - patch + 1, stride)
    return [*inside, *([length - patch] if (length - patch) % stride else [])]


def places(size: tuple[int, int], patch: int, stride: int) -> Tensor:
    """(N, 2) int64: the grid of patches that covers an image of `size` (height, width), row by row."""
    ys, xs = (starts(length, patch, stride) for length in size)
    return torch.tensor([(y, x) for y in ys for x in xs])


def enlarged(image_BCHW: Tensor, least: int, multiple: int = 1) -> Tensor:
    """Zeros added below and on the right, so that both sides are at least `least` and a multiple of `multiple`."""
    height, width = image_BCHW.shape[-2:]
    more = [max(least, -(-side // multiple) * multiple) - side for side in (width, height)]
    return F.pad(image_BCHW, (0, more[0], 0, more[1])) if any(more) else image_BCHW


def draw_places(mask_B1HW: Tensor, patch: int, stride: int, count: int, foreground: float) -> Tensor:
    """(B, count, 2) random places on the grid: with hand (a pixel of value 1) by the chance `foreground`, else without.

    Where all places of an image are of one kind, all are drawn from it.
    """
    height, width = mask_B1HW.shape[-2:]
    grid = places((height, width), patch, stride).to(mask_B1HW.device, non_blocking=True)
    hand = (mask_B1HW[:, 0] == 1).to(torch.float64)
    sums = F.pad(hand.cumsum(1).cumsum(2), (1, 0, 1, 0))  # of everything above and left
    y, x = grid[:, 0], grid[:, 1]
    held = sums[:, y + patch, x + patch] - sums[:, y, x + patch] - sums[:, y + patch, x] + sums[:, y, x]
    has = held > 0
    part = has.sum(1, keepdim=True)
    weight = torch.where(has, foreground / part.clamp(min=1), (1 - foreground) / (has.shape[1] - part).clamp(min=1))
    weight = torch.where(weight.sum(1, keepdim=True) > 0, weight, 1.0)
    return grid[torch.multinomial(weight, count, replacement=True)]


def cut_patches(image_BCHW: Tensor, places_BP2: Tensor, patch: int) -> Tensor:
    """Patches (B * P, C, patch, patch), those of one image after each other."""
    side = torch.arange(patch, device=image_BCHW.device)
    rows, columns = (places_BP2[..., k, None] + side for k in (0, 1))  # (B, P, patch)
    image = torch.arange(len(image_BCHW), device=image_BCHW.device)[:, None, None, None]
    # The channels last: an index for each pixel, not for each value.
    found = image_BCHW.permute(0, 2, 3, 1)[image, rows[..., :, None], columns[..., None, :]]
    return found.flatten(0, 1).permute(0, 3, 1, 2).contiguous()


def patch_weights(patch: int) -> Tensor:
    """(patch, patch) weights: smooth, symmetric, positive, 1 in the middle and almost 0 at the rim, where context is missing."""
    side = torch.sin(torch.pi * (torch.arange(patch) + 0.5) / patch) ** 2
    return torch.outer(side, side).clamp(min=_LEAST_WEIGHT)


def stitched(network: Network, image_BCHW: Tensor, patch: int, stride: int) -> Tensor:
    """The network's answer (B, 1, H, W) float32 to a whole image: the weighted mean of its answers to overlapping patches.

    `network`: (n, C, patch, patch) to (n, 1, patch, patch). A network that works on each pixel alone gives what it gives for the
    whole image.
    """
    height, width = image_BCHW.shape[-2:]
    image = enlarged(image_BCHW, patch)
    tall, wide = image.shape[-2:]
    weight = patch_weights(patch).to(image.device, non_blocking=True)
    grid: list[tuple[int, int]] = [(y, x) for y, x in places((tall, wide), patch, stride).tolist()]
    total = torch.zeros((len(image), 1, tall, wide), device=image.device)
    weights = torch.zeros((tall, wide), device=image.device)
    together = max(1, _AT_ONCE.get(image.device.type, 4) // len(image))
    for first in range(0, len(grid), together):
        chosen = grid[first : first + together]
        pieces = torch.cat([image[:, :, y : y + patch, x : x + patch] for y, x in chosen])
        answers = torch.split(network(pieces).float(), len(image))
        for answer, (y, x) in zip(answers, chosen, strict=True):
            total[:, :, y : y + patch, x : x + patch] += answer * weight
            weights[y : y + patch, x : x + patch] += weight
    return (total / weights)[:, :, :height, :width]
