"""A stage of training: how long, how fast, and what is trainable."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from boneage_ray.errors import UsageError

if TYPE_CHECKING:  # naming a recipe does not load torch
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

Data = Literal["train", "pretrain"]


class Stage(BaseModel):
    """One stage; a recipe holds a tuple of them, run in order.

    `schedule` scales `lr` over the steps of this stage, after a linear warm-up from 0 over `warmup` of the steps: constant;
    cosine down to `final_lr`; restarts: cosine again and again, the first time over `restart_epochs`, each time twice as long
    (Loshchilov and Hutter 2017); step: times `gamma` every `step_epochs` epochs; plateau: times `gamma` whenever the
    validation score has not improved for more than `plateau_patience` epochs, never below `final_lr`.

    `trainable`: all, head, or a number n: the head and the topmost n blocks of the encoder. The encoder's rate is `lr` times
    `backbone_lr_scale`, and times `block_lr_decay` for every block below the topmost one. `final_lr` is the head's; the encoder's
    floor is scaled alike.
    `data="pretrain"`: this stage learns from the data of `train --pretrain-data`, not from those of `--data`.
    `losses`: the names of the task's losses that count in this stage; none named: all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(default=10, ge=1)
    data: Data = "train"
    losses: tuple[str, ...] = ()
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(default=1e-4, gt=0)
    final_lr: float = Field(default=0.0, ge=0)
    weight_decay: float = Field(default=1e-5, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    schedule: Literal["constant", "cosine", "restarts", "step", "plateau"] = "constant"
    warmup: float = Field(default=0.0, ge=0, lt=1)
    restart_epochs: int = Field(default=10, ge=1)
    step_epochs: int = Field(default=10, ge=1)
    plateau_patience: int = Field(default=5, ge=0)
    gamma: float = Field(default=0.1, gt=0, le=1)
    clip_norm: float = Field(default=0.0, ge=0, description="0 switches gradient clipping off")
    accumulate: int = Field(default=1, ge=1, description="batches whose gradients make one step")
    ema: float = Field(
        default=0.0, ge=0, lt=1, description="decay of the averaged weights, which are kept and handed on; 0: none"
    )
    trainable: Literal["all", "head"] | Annotated[int, Field(ge=1)] = "all"
    backbone_lr_scale: float = Field(default=1.0, gt=0)
    block_lr_decay: float = Field(default=1.0, gt=0, le=1)
    patience: int = Field(default=0, ge=0, description="epochs without a better score before the stage ends; 0: never")

    @field_validator("trainable", mode="before")
    @classmethod
    def _all_head_or_a_number(cls, given: object) -> object:
        if given in ("all", "head") or (isinstance(given, int) and not isinstance(given, bool) and given >= 1):
            return given
        raise ValueError("give all, head, or a number of blocks from 1 up")

    @model_validator(mode="after")
    def _falls_to_its_final_rate(self) -> Stage:
        if self.final_lr > self.lr:
            raise ValueError(f"final_lr={self.final_lr} is above lr={self.lr}: lower final_lr")
        return self


def build_optimizer(stage: Stage, parameters: Iterable[nn.Parameter | dict[str, Any]]) -> Optimizer:
    """The stage's optimizer over parameters that require gradients, or over groups of them with rates of their own."""
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
    """The head and the trainable blocks (given from the stem to the top) as groups with their rates, for an optimizer.

    Raises `UsageError` when the stage wants more blocks than there are.
    """
    if isinstance(stage.trainable, int) and stage.trainable > len(blocks):
        raise UsageError(
            f"trainable={stage.trainable}, but the number of blocks of this encoder is {len(blocks)}: "
            f"give a number up to it, all or head"
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
    """A schedule to be stepped once after every optimizer step; `reduced` tells what a plateau has left of the rate."""
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
    """How much of the present cycle is done, 0 to 1; cycles are `first`, 2 `first`, 4 `first` ... epochs long."""
    cycle = int(math.log2(epochs / first + 1))
    begun, length = first * ((1 << cycle) - 1), first << cycle
    return (epochs - begun) / length


def plateau_factor(stage: Stage, scores: Sequence[float | None]) -> float:
    """What PyTorch's ReduceLROnPlateau leaves of the rate after an epoch with each of these scores (None: not finite).

    Replayed from the scores, so that a resumed run needs no further state.
    """
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=stage.gamma, patience=stage.plateau_patience, min_lr=stage.final_lr / stage.lr
    )
    for score in scores:
        plateau.step(math.inf if score is None else score)
    return float(optimizer.param_groups[0]["lr"])
