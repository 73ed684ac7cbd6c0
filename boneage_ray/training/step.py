"""One training step and one validation pass, with no knowledge of Ray, epochs or objectives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from boneage_ray.augment.pipeline import Augment
from boneage_ray.datasets.batch import Batch, as_float
from boneage_ray.errors import BoneageError
from boneage_ray.tasks.task import Columns, Task

OnStep = Callable[[int, float], None]


@dataclass
class Learner:
    """What a step needs. `model` is trained and may be wrapped for DDP; `raw` is the same network unwrapped, for
    validation, where workers take unequal numbers of steps. `precision` is the autocast type or None for float32."""

    model: nn.Module
    raw: nn.Module
    task: Task
    augment: Augment
    device: torch.device
    precision: torch.dtype | None
    optimizer: Optimizer
    schedule: LambdaLR
    clip_norm: float = 0.0
    frozen: tuple[nn.Module, ...] = ()  # not trained in this stage; their batch-norm statistics stay as they are

    def autocast(self) -> torch.autocast:
        """Mixed precision where it was chosen."""
        return torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision is not None)


class NonFiniteLossError(BoneageError):
    """The loss became NaN or infinite; carries the ids of the batch."""

    def __init__(self, ids: tuple[str, ...]) -> None:
        super().__init__(ids)
        self.ids = ids

    def __str__(self) -> str:
        return (
            f"the loss is not finite for the batch {', '.join(self.ids)}; the checkpoint before it is kept. "
            "Give a lower --set stage.lr or --set precision=float32"
        )


def choose_precision(asked: str, device: torch.device) -> torch.dtype | None:
    """bfloat16 where the device computes in it, else float32 (None)."""
    if asked == "bfloat16":
        return torch.bfloat16
    if asked == "float32":
        return None
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if supported else None


def train_step(learner: Learner, batch: Batch) -> Tensor:
    """Augment on the device, forward, backward, clip, step; returns the loss as a device scalar."""
    batch = batch.to(learner.device)
    batch = batch.with_image(learner.augment(as_float(batch.image_B1HW)).image_B1HW)
    with learner.autocast():
        outputs = learner.model(batch.image_B1HW, batch.sex_B)
    loss = torch.stack(list(learner.task.losses(outputs, batch).values())).sum()
    learner.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if learner.clip_norm:
        nn.utils.clip_grad_norm_(learner.model.parameters(), learner.clip_norm)
    learner.optimizer.step()
    learner.schedule.step()
    return loss.detach()


def train_epoch(learner: Learner, batches: Iterable[Batch], on_step: OnStep) -> float:
    """Mean loss a case over an epoch. Raises `NonFiniteLossError`, checked a step late so that the device never waits."""
    learner.model.train()
    for module in learner.frozen:
        module.eval()
    total = torch.zeros((), device=learner.device)
    cases, previous = 0, None
    for batch in batches:
        loss = train_step(learner, batch)
        if previous is not None:
            _check(*previous)
        previous = (loss, batch.ids)
        total += loss * len(batch)
        cases += len(batch)
        on_step(len(batch), float(loss) if learner.device.type == "cpu" else float("nan"))
    if previous is not None:
        _check(*previous)
    return float(total) / max(cases, 1)


@torch.inference_mode()
def predict_epoch(learner: Learner, batches: Iterable[Batch]) -> tuple[Columns, Columns, tuple[float, int]]:
    """Predicted columns, true columns, and (summed loss, cases) over a split."""
    learner.raw.eval()
    predicted: dict[str, list[Any]] = {}
    truth: dict[str, list[Any]] = {"age_months": []}
    total, cases = 0.0, 0
    for batch in batches:
        on_device = batch.to(learner.device)
        with learner.autocast():
            outputs = learner.raw(as_float(on_device.image_B1HW), on_device.sex_B)
        loss = torch.stack(list(learner.task.losses(outputs, on_device).values())).sum()
        total += float(loss) * len(batch)
        cases += len(batch)
        for name, values in learner.task.predict(outputs).items():
            predicted.setdefault(name, []).extend(values)
        truth["age_months"].extend(batch.age_B.tolist())
    return predicted, truth, (total, cases)


def _check(loss: Tensor, ids: tuple[str, ...]) -> None:
    if not torch.isfinite(loss):
        raise NonFiniteLossError(ids)
