"""Losses as plain functions of float32 tensors; cases without a label (NaN) do not count.

None reads how many cases have a label: on a GPU the host would wait for all that it gave it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def absolute_error(predicted_B: Tensor, target_B: Tensor) -> Tensor:
    """Mean |difference| over labelled cases, in the unit of the inputs; 0 when there is none."""
    known_B, filled_B = _filled(predicted_B, target_B)
    return _mean((predicted_B - filled_B).abs(), known_B)


def huber(predicted_B: Tensor, target_B: Tensor, delta: float) -> Tensor:
    """Huber (1964): quadratic up to `delta`, linear beyond, over labelled cases."""
    known_B, filled_B = _filled(predicted_B, target_B)
    return _mean(F.huber_loss(predicted_B, filled_B, reduction="none", delta=delta), known_B)


def cross_entropy(logits_BC: Tensor, class_B: Tensor) -> Tensor:
    """Over cases whose class is not -1; 0 when there is none."""
    return _mean(F.cross_entropy(logits_BC, class_B, ignore_index=-1, reduction="none"), class_B >= 0)


def _filled(predicted_B: Tensor, target_B: Tensor) -> tuple[Tensor, Tensor]:
    """Which cases have a label, and the targets with the prediction itself where there is none: no error, no gradient."""
    known_B = ~torch.isnan(target_B)
    return known_B, torch.where(known_B, target_B, predicted_B.detach())


def _mean(values_B: Tensor, known_B: Tensor) -> Tensor:
    """Over the known cases, where values of the others are 0."""
    return values_B.sum() / known_B.sum().clamp_min(1)
