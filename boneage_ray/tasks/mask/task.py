"""Hand masks: which pixels belong to the hand.

Axis letters: B batch, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from boneage_ray.datasets.batch import NO_MASK, Batch
from boneage_ray.tasks.mask.config import MaskTaskConfig
from boneage_ray.tasks.task import Columns, Task, on_host


@final
class MaskTask(Task):
    """Reads `mask` logits (B, 1, H, W) from a model's outputs; cases without a mask do not count."""

    uses_masks = True

    def __init__(self, config: MaskTaskConfig) -> None:
        self.config = config

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`dice` over the pixels of the batch, and `bce` a pixel."""
        logits = outputs["mask"].float()
        if batch.mask_B1HW is None:
            nothing = logits.sum() * 0.0
            return {"dice": nothing, "bce": nothing}
        known = batch.mask_B1HW != NO_MASK
        target = batch.mask_B1HW.masked_fill(~known, 0).float()
        # Sums over the known pixels: taking these out would make the host wait until their number is known.
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return {
            "dice": self.config.dice_weight * soft_dice_loss(logits, target, known),
            "bce": self.config.bce_weight * (each * known).sum() / known.sum().clamp_min(1),
        }

    def predict(self, outputs: Mapping[str, Tensor]) -> Columns:
        """mask: a (H, W) uint8 array a case, 1 on the hand."""
        return {"mask": list(on_host({"mask": (outputs["mask"][:, 0] > 0).byte()})["mask"].numpy())}

    def truth(self, batch: Batch) -> Columns:
        """mask: a (H, W) uint8 array a case, or None."""
        if batch.mask_B1HW is None:
            return {"mask": [None] * len(batch)}
        masks = batch.mask_B1HW[:, 0].byte().cpu().numpy()
        return {"mask": [None if (mask == NO_MASK).any() else mask for mask in masks]}

    def summarise(self, predicted: Columns, truth: Columns) -> tuple[Columns, Columns]:
        """overlap: (Dice, IoU) of each case that has a mask; the masks themselves, megabytes a case, are let go."""
        cases = zip(predicted["mask"], truth["mask"], strict=True)
        return {"overlap": [overlap(given, true) for given, true in cases if true is not None]}, {}

    def metrics(self, predicted: Columns, truth: Columns) -> dict[str, float]:
        """Dice and IoU, each an image: their mean and the least. NaN where no case has a mask."""
        pairs = predicted.get("overlap", [])
        if not pairs:
            return dict.fromkeys(("dice_mean", "dice_min", "iou_mean", "iou_min"), math.nan)
        found: dict[str, float] = {}
        for name, values in zip(("dice", "iou"), zip(*pairs, strict=True), strict=True):
            found |= {f"{name}_mean": float(np.mean(values)), f"{name}_min": float(min(values))}
        return found


def soft_dice_loss(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """1 - Dice of probabilities with a 0/1 target, over all known pixels together (Milletari et al. 2016, with plain sums).

    The target is 0 where it is not known.
    """
    chance = logits.sigmoid() * known
    return 1.0 - (2.0 * (chance * target).sum() + 1.0) / (chance.sum() + target.sum() + 1.0)


def overlap(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> tuple[float, float]:
    """Dice and IoU of two 0/1 masks of one size; 1 where both are empty.

    >>> overlap(np.array([[1, 1, 0]]), np.array([[0, 1, 1]]))
    (0.5, 0.3333333333333333)
    """
    a, b = one > 0, other > 0
    both, either = int((a & b).sum()), int((a | b).sum())
    return (2 * both / (both + either), both / either) if either else (1.0, 1.0)
