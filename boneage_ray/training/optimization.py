"""The optimizer, parameter groups and learning rate schedule of a stage."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from boneage_ray.errors import UsageError
from boneage_ray.recipes.stage import Stage

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR


def build_optimizer(stage: Stage, parameters: Iterable[nn.Parameter | dict[str, Any]]) -> Optimizer:
    """The stage's optimizer over parameters that require gradients, or over groups with their own rates."""
    import torch

    groups: Any = [given for given in parameters if isinstance(given, dict) or given.requires_grad]
    if stage.optimizer == "adam":
        return torch.optim.Adam(groups, lr=stage.lr, weight_decay=stage.weight_decay)
    if stage.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=stage.lr, weight_decay=stage.weight_decay)
    return torch.optim.SGD(
        groups, lr=stage.lr, weight_decay=stage.weight_decay, momentum=stage.momentum, nesterov=stage.momentum > 0
    )


def parameter_groups(
    stage: Stage, head: Sequence[nn.Parameter], blocks: Sequence[Sequence[nn.Parameter]]
) -> list[dict[str, Any]]:
    """Groups of the head and the trainable blocks (given from the stem to the top) with their rates.

    Raises `UsageError` if the stage trains more blocks than there are.
    """
    if isinstance(stage.trainable, int) and stage.trainable > len(blocks):
        raise UsageError(
            f"trainable={stage.trainable}, but this encoder has {len(blocks)} blocks: "
            f"give a number up to that, all or head"
        )
    depth = {"all": len(blocks), "head": 0}.get(str(stage.trainable), stage.trainable)
    groups: list[dict[str, Any]] = [{"params": list(head), "lr": stage.lr}]
    for below, block in enumerate(reversed(blocks)):
        if below < int(depth):
            rate = stage.lr * stage.backbone_lr_scale * stage.block_lr_decay**below
            groups.append({"params": list(block), "lr": rate})
    return groups


def build_schedule(
    stage: Stage, optimizer: Optimizer, steps_per_epoch: int, reduced: Callable[[], float] = lambda: 1.0
) -> LambdaLR:
    """A schedule, stepped after every optimizer step; `reduced` returns the plateau's factor on the rate."""
    from torch.optim.lr_scheduler import LambdaLR

    total = max(1, stage.epochs * steps_per_epoch)
    warm = stage.warmup * total
    floor = stage.final_lr / stage.lr

    def cosine(done: float) -> float:
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def factor(step: int) -> float:
        if step < warm:
            return step / warm
        if stage.schedule == "cosine":
            return cosine((step - warm) / max(1.0, total - warm))
        if stage.schedule == "restarts":
            return cosine(_since_restart((step - warm) / steps_per_epoch, stage.restart_epochs))
        if stage.schedule == "step":
            return float(stage.gamma ** (step // (stage.step_epochs * steps_per_epoch)))
        return reduced() if stage.schedule == "plateau" else 1.0

    return LambdaLR(optimizer, factor)


def _since_restart(epochs: float, first: int) -> float:
    """The fraction of the current cycle that is done; cycles are `first`, 2 `first`, 4 `first` ... epochs long."""
    cycle = int(math.log2(epochs / first + 1))
    begun, length = first * ((1 << cycle) - 1), first << cycle
    return (epochs - begun) / length


def plateau_factor(stage: Stage, scores: Sequence[float | None]) -> float:
    """The factor of PyTorch's ReduceLROnPlateau on the rate after epochs with these scores (None: not finite).

    Computed from the scores, so that a resumed run needs no further state.
    """
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=stage.gamma, patience=stage.plateau_patience, min_lr=stage.final_lr / stage.lr
    )
    for score in scores:
        plateau.step(math.inf if score is None else score)
    return float(optimizer.param_groups[0]["lr"])


def set_trainable(raw: nn.Module, groups: list[dict[str, Any]]) -> None:
    """Let only the parameters of these groups learn."""
    chosen = {id(parameter) for group in groups for parameter in group["params"]}
    for parameter in raw.parameters():
        parameter.requires_grad = id(parameter) in chosen


def frozen_layers(backbone: nn.Module) -> tuple[nn.Module, ...]:
    """Layers of the encoder without trainable parameters; their batch-norm statistics are frozen too."""
    layers = [layer for layer in backbone.modules() if list(layer.parameters(recurse=False))]
    return tuple(layer for layer in layers if not any(p.requires_grad for p in layer.parameters(recurse=False)))
