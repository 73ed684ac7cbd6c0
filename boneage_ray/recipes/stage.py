"""A training stage (its length, optimisation and trainable parameters), and the checkpoints of all of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Data = Literal["train", "pretrain"]


class CheckpointConfig(BaseModel):
    """How often a training can be continued, and what is kept of it: neither changes what it learns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every_steps: int = Field(
        default=0, ge=0, description="optimizer steps between checkpoints in mid-epoch; 0: at the end of epochs only"
    )
    keep: int = Field(default=1, ge=1, le=100, description="best epochs whose weights are kept")


class Stage(BaseModel):
    """One stage; a recipe holds a tuple of them, run in order.

    `schedule` scales `lr` over the steps of this stage, after a linear warm-up from 0 over `warmup` of the steps: constant;
    cosine down to `final_lr`; restarts: cosine again and again, the first time over `restart_epochs`, each time twice as long
    (Loshchilov and Hutter 2017); step: times `gamma` every `step_epochs` epochs; plateau: times `gamma` whenever the
    validation score has not improved for more than `plateau_patience` epochs, never below `final_lr`.

    `trainable`: all, head, or a number n: the head and the topmost n blocks of the encoder. The encoder's rate is `lr` times
    `backbone_lr_scale`, and times `block_lr_decay` for every block below the topmost one. `final_lr` is the head's; the encoder's
    floor is scaled alike.
    `data="pretrain"`: this stage trains on the data of `--pretrain-data` instead of `--data`.
    `losses`: the names of the task's losses that count in this stage; empty means all.
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
        default=0.0,
        ge=0,
        lt=1,
        description="decay of the averaged weights, which are saved and start the next stage; 0: none",
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
