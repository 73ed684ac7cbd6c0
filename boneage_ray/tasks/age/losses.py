"""Losses as plain functions of float32 tensors; cases without a label (NaN) do not count."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def absolute_error(predicted_B: Tensor, target_B: Tensor) -> Tensor:
    """Mean |difference| over labelled cases, in the unit of the inputs; 0 when there is none."""
    known = ~torch.isnan(target_B)
    return _mean((predicted_B - target_B)[known].abs())


def huber(predicted_B: Tensor, target_B: Tensor, delta: float) -> Tensor:
    """Huber (1964): quadratic up to `delta`, linear beyond, over labelled cases."""
    known = ~torch.isnan(target_B)
    if not known.any():
        return predicted_B.sum() * 0.0
    return F.huber_loss(predicted_B[known], target_B[known], delta=delta)


def cross_entropy(logits_BC: Tensor, class_B: Tensor) -> Tensor:
    """Over cases whose class is not -1; 0 when there is none."""
    known = class_B >= 0
    if not known.any():
        return logits_BC.sum() * 0.0
    return F.cross_entropy(logits_BC[known], class_B[known])


def _mean(values: Tensor) -> Tensor:
    return values.mean() if values.numel() else values.sum() * 0.0
