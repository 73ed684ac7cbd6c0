"""One training step and one validation pass, independent of Ray, epochs and the task."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from boneage_ray.augment.pipeline import Augment
from boneage_ray.datasets.batch import Batch, as_float
from boneage_ray.errors import UsageError
from boneage_ray.tasks.task import Columns, Task, extend
from boneage_ray.training.ahead import LossReader, on_device

OnStep = Callable[[int, float], None]


class EpochSums:
    """An epoch as far as a worker has come: the loss summed over cases (on the device), cases, optimizer steps and seconds.

    `ended`: it was left before its end, to go on later.
    """

    def __init__(self, device: torch.device, seconds: float = 0.0) -> None:
        self.loss = torch.zeros((), device=device)
        self.cases = self.steps = 0
        self.losses = LossReader(device)
        self.ended = False
        self._started = time.monotonic() - seconds

    @property
    def seconds(self) -> float:
        """Since it began, without a time between two runs."""
        return time.monotonic() - self._started

    def add(self, loss: Tensor, batches: Sequence[Batch]) -> int:
        """Count one step with its mean loss; returns its number of cases."""
        size = sum(map(len, batches))
        self.losses.add(loss, tuple(name for batch in batches for name in batch.ids))
        self.loss += loss * size
        self.cases, self.steps = self.cases + size, self.steps + 1
        return size


@dataclass
class Learner:
    """Model, optimizer and settings of a step; `precision` is the autocast type or None for float32.

    `model` is trained and may be wrapped for DDP; `raw` is the same network without the wrapper, for validation, where
    workers take unequal numbers of steps.
    """

    model: nn.Module
    raw: nn.Module
    task: Task
    augment: Augment
    device: torch.device
    precision: torch.dtype | None
    optimizer: Optimizer
    schedule: LambdaLR
    clip_norm: float = 0.0
    accumulate: int = 1
    cases: int = 0  # in the current epoch so far
    average: AveragedModel | None = None  # the weights that are validated and saved, if the stage averages weights
    cut: Callable[[Batch], Batch] | None = None  # cuts patches from an augmented batch, for networks trained on patches
    frozen: tuple[nn.Module, ...] = ()  # not trained in this stage, their batch-norm statistics included
    losses: tuple[str, ...] = ()  # the task's losses that count in this stage; none named: all

    @property
    def validated(self) -> nn.Module:
        """The network that is validated and saved."""
        return self.raw if self.average is None else self.average.module

    def autocast(self) -> torch.autocast:
        """The autocast context for `precision`."""
        return torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision is not None)


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a model's weights and batch-norm statistics, with a warm-up of the decay."""

    def update(averages: Any, values: Any, count: Any) -> None:  # noqa: ANN401  lists of tensors by torch
        seen = float(count)
        average = get_ema_multi_avg_fn(min(decay, (1 + seen) / (10 + seen)))  # type: ignore[no-untyped-call]
        average(averages, values, count)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def train_step(learner: Learner, *batches: Batch) -> Tensor:
    """Augment on the device, forward, backward, clip, step; returns the mean loss per case as a device scalar.

    Several batches are accumulated to one step, in the memory of one.
    """
    learner.optimizer.zero_grad(set_to_none=True)
    cases = sum(map(len, batches))
    total = torch.zeros((), device=learner.device)
    for k, batch in enumerate(batches):
        with _no_sync(learner.model) if k + 1 < len(batches) else nullcontext():
            loss = _loss(learner, batch) * (len(batch) / cases)
            loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    if learner.clip_norm:
        nn.utils.clip_grad_norm_(learner.model.parameters(), learner.clip_norm)
    learner.optimizer.step()
    learner.schedule.step()
    if learner.average is not None:
        learner.average.update_parameters(learner.raw)
    return total


def _loss(learner: Learner, batch: Batch) -> Tensor:
    mask = batch.mask_B1HW.float() if learner.task.uses_masks and batch.mask_B1HW is not None else None
    points = batch.points_BK2 if learner.task.uses_points else None
    augmented = learner.augment(as_float(batch.image_B1HW), mask, points)
    others = [learner.augment(as_float(batch.image_B1HW)).image_B1HW for _ in range(learner.task.views - 1)]
    batch = batch.with_image(augmented.image_B1HW, augmented.mask_B1HW, augmented.points_BK2)
    if learner.cut is not None:
        batch = learner.cut(batch)
    with learner.autocast():
        outputs = learner.model(torch.cat([batch.image_B1HW, *others]) if others else batch.image_B1HW, batch.sex_B)
    return _summed(learner.task.losses(outputs, batch), learner.losses)


def _summed(losses: dict[str, Tensor], counting: tuple[str, ...]) -> Tensor:
    if missing := set(counting) - losses.keys():
        raise UsageError(
            f"a stage names the losses {', '.join(sorted(missing))}; this recipe has {', '.join(losses)}: name some of these"
        )
    return torch.stack([loss for name, loss in losses.items() if not counting or name in counting]).sum()


def _no_sync(model: nn.Module) -> AbstractContextManager[None]:
    """Skip DDP's gradient averaging while gradients accumulate."""
    return model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext()


def train_epoch(
    learner: Learner,
    batches: Iterable[Batch],
    on_step: OnStep,
    sums: EpochSums | None = None,
    stops: Callable[[EpochSums], bool] = lambda _: False,
) -> float:
    """Mean loss per case over an epoch, or over what was done of it when `stops`, asked after each step, ended it.

    `sums`: of an epoch that is continued, `batches` being the rest. `on_step` gets the number of cases and
    the newest loss that is known; on a GPU that of an earlier step, NaN before the first. Raises `NonFiniteLossError`, on a GPU
    some steps late (`LossReader`).
    """
    learner.model.train()
    for module in learner.frozen:
        module.eval()
    sums = sums or EpochSums(learner.device)
    for group in _groups(on_device(batches, learner.device), learner.accumulate):
        size = sums.add(train_step(learner, *group), group)
        on_step(size, sums.losses.latest)
        if stops(sums):
            sums.ended = True
            break
    sums.losses.finish()
    learner.cases = sums.cases
    return float(sums.loss) / max(sums.cases, 1)


def _groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    waiting = iter(batches)
    while group := list(islice(waiting, size)):
        yield group


@torch.inference_mode()
def predict_epoch(learner: Learner, batches: Iterable[Batch]) -> tuple[Columns, Columns, tuple[float, int]]:
    """Predicted and true columns that the task needs for its metrics, and (summed loss, cases), over a split."""
    learner.validated.eval()
    predicted: dict[str, list[Any]] = {}
    truth: dict[str, list[Any]] = {}
    losses, cases = list[Tensor](), 0
    for batch in batches:
        moved = batch.to(learner.device)
        with learner.autocast():
            outputs = learner.validated(as_float(moved.image_B1HW), moved.sex_B)
        losses.append(torch.stack(list(learner.task.losses(outputs, moved).values())).sum() * len(batch))
        cases += len(batch)
        summed_up = learner.task.summarise(learner.task.predict(outputs), learner.task.truth(batch))
        for whole, columns in zip((predicted, truth), summed_up, strict=True):
            extend(whole, columns)
    return predicted, truth, (sum(torch.stack(losses).tolist()) if losses else 0.0, cases)
