"""A stage of training: how long, how fast, and what is trainable."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:  # naming a recipe does not load torch
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR


class Stage(BaseModel):
    """One stage; a recipe holds a tuple of them, run in order.

    `schedule` scales `lr` over the steps of this stage: constant; cosine from `lr` to `final_lr` after a linear warm-up
    from 0 over `warmup` of the steps; step multiplies by `gamma` every `step_epochs` epochs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(default=10, ge=1)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(default=1e-4, gt=0)
    final_lr: float = Field(default=0.0, ge=0)
    weight_decay: float = Field(default=1e-5, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    schedule: Literal["constant", "cosine", "step"] = "constant"
    warmup: float = Field(default=0.0, ge=0, lt=1)
    step_epochs: int = Field(default=10, ge=1)
    gamma: float = Field(default=0.1, gt=0, le=1)
    clip_norm: float = Field(default=0.0, ge=0, description="0 switches gradient clipping off")
    trainable: Literal["all", "head"] = "all"
    patience: int = Field(default=0, ge=0, description="epochs without a better score before the stage ends; 0: never")


def build_optimizer(stage: Stage, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The stage's optimizer over parameters that require gradients."""
    import torch

    chosen = [p for p in parameters if p.requires_grad]
    if stage.optimizer == "adam":
        return torch.optim.Adam(chosen, lr=stage.lr, weight_decay=stage.weight_decay)
    if stage.optimizer == "adamw":
        return torch.optim.AdamW(chosen, lr=stage.lr, weight_decay=stage.weight_decay)
    return torch.optim.SGD(
        chosen, lr=stage.lr, weight_decay=stage.weight_decay, momentum=stage.momentum, nesterov=stage.momentum > 0
    )


def build_schedule(stage: Stage, optimizer: Optimizer, steps_per_epoch: int) -> LambdaLR:
    """A schedule to be stepped once after every optimizer step."""
    from torch.optim.lr_scheduler import LambdaLR

    total = max(1, stage.epochs * steps_per_epoch)
    warm = stage.warmup * total
    floor = stage.final_lr / stage.lr

    def factor(step: int) -> float:
        if stage.schedule == "step":
            return float(stage.gamma ** (step // (stage.step_epochs * steps_per_epoch)))
        if step < warm:
            return step / warm
        if stage.schedule == "constant":
            return 1.0
        done = min(1.0, (step - warm) / max(1.0, total - warm))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))

    return LambdaLR(optimizer, factor)
