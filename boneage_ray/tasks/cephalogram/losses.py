"""Losses of landmark heatmaps as plain functions; maps without a label (known_BK false) do not count.

All compute in float32, whatever comes in, and give 0 (with a gradient of 0) when nothing is known. None reads how many maps are
known: on a GPU the host would wait for all that it gave it.

Axis letters: B batch, K maps, H height, W width.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

POSITIVE = 0.9  # a pixel whose target is above this is a place of the point
_LN2 = math.log(2.0)


def focal_loss(logits_BKHW: Tensor, target_BKHW: Tensor, known_BK: Tensor) -> Tensor:
    """-(sum over t > 0.9 of log2(p) (1-p)^2 + sum over the rest of log2(1-p) p^2 (1-t)^4) / number of t > 0.9.

    p = sigmoid(logits), t the heatmap with peak 1 (after Law & Deng 2018, CornerNet); sums and number are over all known maps
    together, the number at least 1. Logarithms are taken of the logits, so that p = 0 and p = 1 stay finite. The pixel nearest
    to a point between four has t = exp(-1 / (4 sigma^2)): below sigma = 1.55 a map may have no positive pixel at all.

    >>> one = torch.ones(1, 1, 1, 1)
    >>> focal_loss(torch.zeros(1, 1, 1, 1), one, torch.ones(1, 1, dtype=torch.bool))  # one positive with p = 0.5
    tensor(0.2500)
    """
    z, t = logits_BKHW.float(), _of_known(target_BKHW.float(), known_BK)
    p = z.sigmoid()
    positive = (t > POSITIVE) & known_BK[..., None, None]
    found = F.logsigmoid(z) * (1 - p).square()
    empty = F.logsigmoid(-z) * p.square() * (1 - t).pow(4)
    return -_of_known(found.where(positive, empty), known_BK).sum() / (_LN2 * positive.sum().clamp_min(1))


def map_cross_entropy(logits_BKHW: Tensor, target_BKHW: Tensor, known_BK: Tensor) -> Tensor:
    """Mean over known maps of -sum(q ln p): p the softmax of a map's logits over its pixels, q = t / sum(t).

    Its least value is the entropy of q, 1 + ln(2 pi sigma^2) for a Gaussian well inside the image. A known map whose target
    is all 0 adds 0.
    """
    log_p = logits_BKHW.float().flatten(2).log_softmax(-1)
    t = _of_known(target_BKHW.float(), known_BK).flatten(2)
    each_BK = (log_p * t).sum(-1) / t.sum(-1).clamp_min(1e-12)
    return -each_BK.masked_fill(~known_BK, 0.0).sum() / known_BK.sum().clamp_min(1)


def masked_mse(predicted_BKHW: Tensor, target_BKHW: Tensor, known_BK: Tensor) -> Tensor:
    """Mean squared difference over the pixels of known maps."""
    each_BK = (predicted_BKHW.float() - _of_known(target_BKHW.float(), known_BK)).square().mean((-2, -1))
    return each_BK.masked_fill(~known_BK, 0.0).sum() / known_BK.sum().clamp_min(1)


def _of_known(values_BKHW: Tensor, known_BK: Tensor) -> Tensor:
    return values_BKHW.masked_fill(~known_BK[..., None, None], 0.0)
