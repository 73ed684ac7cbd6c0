"""Batch normalisation folded into the convolutions before it, for prediction: the same function in fewer steps.

In evaluation a batch normalisation is one factor and one summand a channel, which the weights of the convolution before it can
hold (Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018, 3.2).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode

from boneage_ray.models.model import Model

_LARGEST = 256  # pixels a side: larger images pass through the same modules


def fold_batch_norms(model: Model, side: int) -> int:
    """Fold, in the networks that a pass over one image of this side computes, whatever can be; returns how many were.

    A normalisation is folded where its input is what one convolution made in its only pass, and nothing else takes it. Outputs
    differ by rounding, about 1e-6 of their size. Only for a model in evaluation, which is not trained afterwards.
    """
    seen: dict[str, int] = {}

    def look(model: Model, name: str, image_BCHW: Tensor) -> Tensor:
        """Each network once: of a second pass, as of the mirror image, no module may be counted twice."""
        if name not in seen:
            seen[name] = _fold(model, name, image_BCHW)
        return model.network(name, image_BCHW)

    side = side if model.fixed_size else min(side, _LARGEST)
    with torch.no_grad(), model.computed_by(look):
        model(torch.full((1, 1, side, side), 0.5, device=next(model.parameters()).device))
    return sum(seen.values())


def _fold(model: Model, name: str, image_BCHW: Tensor) -> int:
    pairs = _pairs(model, name, image_BCHW)
    places = {module: (parent, key) for parent in model.modules() for key, module in parent.named_children()}
    for convolution, norm in pairs:
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        parent, key = places[norm]
        setattr(parent, key, nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity())
    return len(pairs)


def _pairs(model: Model, name: str, image_BCHW: Tensor) -> list[tuple[nn.Conv2d, Any]]:
    """Convolutions and the normalisations that nothing stands between, from one pass of a network."""
    taken: list[tuple[Any, Any]] = []
    passes: Counter[nn.Module] = Counter()
    uses = _Uses()

    def note_made(module: nn.Module, given: object, answer: Any) -> None:  # noqa: ANN401
        passes[module] += 1
        answer.made_by = module

    def note_taken(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        passes[module] += 1
        taken.append((getattr(given[0], "made_by", None), module))

    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(note_made))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d) and _is_constant(module):
            hooks.append(module.register_forward_pre_hook(note_taken))
    try:
        with uses:
            model.network(name, image_BCHW)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        pair for pair in taken if pair[0] is not None and uses.of[pair[0]] == passes[pair[0]] == passes[pair[1]] == 1
    ]


def _is_constant(norm: Any) -> bool:  # noqa: ANN401
    """Whether it normalises by stored figures, each with a factor and a summand."""
    return norm.running_mean is not None and norm.weight is not None and not norm.training


class _Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts by convolution how many operations take what it made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.of: Counter[nn.Module] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        for each in torch.utils._pytree.tree_leaves((args, kwargs)):
            if (module := getattr(each, "made_by", None)) is not None:
                self.of[module] += 1
        return func(*args, **(kwargs or {}))
