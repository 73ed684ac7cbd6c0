"""The loop over epochs and stages, independent of Ray and of the task: a `World` supplies batches, gather and reports."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from boneage_ray.augment.pipeline import Augment
from boneage_ray.datasets.batch import Batch
from boneage_ray.errors import MismatchError
from boneage_ray.models.model import Model
from boneage_ray.models.precision import choose_precision
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.recipes.stage import Data, Stage
from boneage_ray.runtime.devices import Precision
from boneage_ray.runtime.lease import Hold
from boneage_ray.tasks.build import build_model, build_task
from boneage_ray.tasks.known import LAST_EPOCH
from boneage_ray.tasks.task import Columns, extend
from boneage_ray.training import checkpoint
from boneage_ray.training.midway import continued, draws, worker_state
from boneage_ray.training.notice import Notice
from boneage_ray.training.optimization import (
    build_optimizer,
    build_schedule,
    frozen_layers,
    parameter_groups,
    plateau_factor,
    set_trainable,
)
from boneage_ray.training.step import (
    EpochSums,
    Learner,
    averaged,
    predict_epoch,
    train_epoch,
)

Validated = tuple[Columns, Columns, float]  # predicted and true columns of the validation split, and its mean loss


class World(Protocol):
    """The interface between the loop and its environment: Ray in training/driver.py, a plain one in tests."""

    rank: int
    size: int
    device: torch.device
    auto_precision: Precision | None  # what "auto" means for all workers; None leaves it to the device

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, wrapped to average gradients over the workers."""

    def same_buffers(self, raw: nn.Module) -> None:
        """Copy the batch-norm statistics of the first worker to all, so that they validate the same model."""

    def train_batches(self, epoch: int, data: Data) -> Iterable[Batch]:
        """This worker's batches of an epoch; the same for the same epoch, also after a resume."""

    def val_batches(self) -> Iterable[Batch]:
        """This worker's part of the validation split."""

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401  any picklable value
        """The values of all workers, in rank order."""

    def on_step(self, cases: int, loss: float) -> None:
        """Called after every step."""

    def notice(self) -> Notice:
        """Whether to end now and go on later, or to write a checkpoint; asked after every step, and the same on every worker."""

    def on_epoch(self, line: dict[str, Any]) -> None:
        """Called on every worker after each committed epoch."""


@dataclass(frozen=True)
class TrainingRun:
    """One training: its recipe, where its checkpoints go, its hold on OUT. Batches are counted per worker and epoch.

    `any_workers`: every step takes the same cases however many workers share them, so that others can go on in mid-epoch.
    """

    recipe: Recipe
    run_uri: str
    fingerprint: str
    batches_per_epoch: int
    pretrain_batches: int = 0
    hold: Hold = Hold("")  # noqa: RUF009  immutable
    any_workers: bool = False

    def steps_per_epoch(self, stage: Stage) -> int:
        """Optimizer steps of an epoch of a stage."""
        batches = self.batches_per_epoch if stage.data == "train" else self.pretrain_batches
        return -(-batches // stage.accumulate)

    def check_batches(self, progress: checkpoint.TrainingProgress, workers: int) -> None:
        """Raise `MismatchError` if so many workers make other batches than those that trained until now."""
        before, now = progress.batch_size, self.recipe.batch_size
        if before and before != now:
            raise MismatchError(
                f"{self.run_uri} was trained with {before} images a step; {workers} workers take {now}: resume with the "
                "--workers that it was begun with"
            )


def train_stages(job: TrainingRun, world: World) -> checkpoint.TrainingProgress:
    """Train from the last checkpoint of `job.run_uri`, or from the start, to the end of the last stage."""
    with _determinism(job.recipe.deterministic):
        return _train(job, world)


def _train(job: TrainingRun, world: World) -> checkpoint.TrainingProgress:
    found = checkpoint.load_latest(job.run_uri, job.fingerprint, 0 if job.any_workers else world.size)
    progress = found[0] if found else checkpoint.TrainingProgress()
    job.check_batches(progress, world.size)
    world.gather(None)  # all have read
    if world.rank == 0:
        checkpoint.delete_after(job.run_uri, (progress.epoch, progress.step))
    torch.manual_seed(job.recipe.seed)
    raw = build_model(job.recipe.model, found is None, job.recipe.image.size).to(world.device)
    raw = raw.to(memory_format=torch.channels_last)
    if found:
        raw.load_state_dict(checkpoint.model_weights(found[1]))
    learner = _learner(job, world, raw, progress, found[1] if found else None)
    begun = None
    if found and progress.step:
        begun = continued(learner, progress, found[1], job.recipe.seed, world.rank, world.size)
    while progress.stage < len(job.recipe.stages):
        if not _one_epoch(job, world, learner, progress, begun):
            return progress
        begun = None
        over = _stage_is_over(job.recipe.stages[progress.stage], progress)
        if over:
            _keep_pretrained(job, world, learner, progress)
            progress.stage, progress.epoch_in_stage, progress.since_best = progress.stage + 1, 0, 0
            if progress.stage < len(job.recipe.stages):
                _forget_pretraining_score(job, progress)
                # A stage starts from the weights that were validated in the one before.
                raw.load_state_dict(learner.validated.state_dict())
                learner = _learner(job, world, raw, progress, None)
        _commit(job, world, learner, progress)
        world.on_epoch(progress.history[-1])
    return progress


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    """Use only deterministic algorithms; on a GPU, operations without one raise an error."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _learner(
    job: TrainingRun, world: World, raw: Model, progress: checkpoint.TrainingProgress, tensors: dict[str, Tensor] | None
) -> Learner:
    """The optimizer, schedule and averaged weights of the current stage, with their saved state if any."""
    number = min(progress.stage, len(job.recipe.stages) - 1)
    stage = job.recipe.stages[number]
    groups = parameter_groups(stage, raw.head_parameters(), raw.blocks())
    set_trainable(raw, groups)
    optimizer = build_optimizer(stage, groups)
    schedule = build_schedule(stage, optimizer, job.steps_per_epoch(stage), _plateau(stage, number, progress))
    average = averaged(raw, stage.ema) if stage.ema else None
    if tensors is not None:
        checkpoint.restore_optimizer(optimizer, progress, tensors)
        schedule.last_epoch = progress.steps_in_stage  # the rates themselves are restored with the optimizer
        if average is not None:
            average.load_state_dict(checkpoint.average_weights(tensors))
        torch.set_rng_state(tensors["rng"])
    model: Any = torch.compile(raw) if job.recipe.compile else raw
    return Learner(
        model=world.wrap(model),
        raw=raw,
        task=build_task(job.recipe.task),
        augment=Augment(job.recipe.augment),
        device=world.device,
        precision=choose_precision(job.recipe.precision, world.device, world.auto_precision),
        optimizer=optimizer,
        schedule=schedule,
        clip_norm=stage.clip_norm,
        accumulate=stage.accumulate,
        average=average,
        cut=raw.training_batch,
        frozen=frozen_layers(raw.backbone),
        losses=stage.losses,
    )


def _plateau(stage: Stage, number: int, progress: checkpoint.TrainingProgress) -> Callable[[], float]:
    """The plateau's factor on the rate, computed once an epoch from the scores of the stage."""
    known: dict[int, float] = {}

    def reduced() -> float:
        if progress.epoch not in known:
            scores = [line["score"] for line in progress.history if line["stage"] == number]
            known[progress.epoch] = plateau_factor(stage, scores)
        return known[progress.epoch]

    return reduced


def _one_epoch(
    job: TrainingRun, world: World, learner: Learner, progress: checkpoint.TrainingProgress, begun: EpochSums | None
) -> bool:
    """Train, validate over all workers, and extend the history by one line; False if the run shall end in mid-epoch."""
    data = job.recipe.stages[progress.stage].data
    batches: Iterable[Batch] = world.train_batches(progress.epoch, data)
    if begun is None:
        # Reseeded from (seed, epoch, rank), so that a resumed epoch has the same draws on every worker.
        torch.manual_seed(draws(job.recipe.seed, progress.epoch, world.rank))
    else:
        batches = islice(batches, begun.steps * learner.accumulate, None)
    sums = begun or EpochSums(learner.device)
    loss = train_epoch(
        learner, batches, world.on_step, sums, lambda so_far: _ends(job, world, learner, progress, so_far)
    )
    if sums.ended:
        return False
    seconds, trained = sums.seconds, time.monotonic()
    world.same_buffers(learner.raw)
    if learner.average is not None:
        world.same_buffers(learner.average)
    parts = world.gather(predict_epoch(learner, world.val_batches()))
    columns = _joined(parts)
    losses, cases = world.gather(loss), sum(world.gather(learner.cases))
    progress.epoch, progress.step = progress.epoch + 1, 0
    progress.epoch_in_stage += 1
    line = {
        "epoch": progress.epoch,
        "stage": progress.stage,
        "lr": learner.schedule.get_last_lr()[0],
        "train_loss": sum(losses) / len(losses),
        "train_cases": cases,
        "workers": world.size,
        "train_seconds": round(seconds, 3),
        "val_seconds": round(time.monotonic() - trained, 3),
        **_validation(learner, *columns),
    }
    # Less is better, and the last epoch is to be the best.
    line["score"] = -progress.epoch if job.recipe.best_by == LAST_EPOCH else line[job.recipe.best_by]
    progress.history.append(line)
    if world.rank == 0:
        job.hold.check()  # nothing is written over the run that took this one's place
    _note_best(job, world, learner, progress, columns)
    return True


def _joined(parts: list[Any]) -> Validated:
    """The columns of all workers, and the mean loss."""
    predicted: dict[str, list[Any]] = {}
    truth: dict[str, list[Any]] = {}
    for part_predicted, part_truth, _ in parts:
        extend(predicted, part_predicted)
        extend(truth, part_truth)
    total, cases = (sum(part[2][k] for part in parts) for k in (0, 1))
    return predicted, truth, total / max(cases, 1)


def _validation(learner: Learner, predicted: Columns, truth: Columns, loss: float) -> dict[str, float | None]:
    """Metrics over the whole validation split."""
    found = {"loss": loss, **learner.task.metrics(predicted, truth)}
    return {f"val_{name}": value if math.isfinite(value) else None for name, value in found.items()}


def _note_best(
    job: TrainingRun,
    world: World,
    learner: Learner,
    progress: checkpoint.TrainingProgress,
    validated: Validated,
) -> None:
    """Save the weights, and what the validation split says of them, if the score is among the best so far.

    A score that is not finite (None) is never better.
    """
    score = progress.history[-1]["score"]
    progress.since_best += 1
    first = progress.best_epoch == 0
    better = score is not None and (progress.best_score is None or score < progress.best_score)
    if first or better:
        progress.best_score, progress.best_epoch, progress.since_best = score, progress.epoch, 0
    if world.rank == 0:
        predicted, truth, _ = validated
        calibration = learner.task.calibration(predicted, truth)
        weights = learner.validated.state_dict()
        checkpoint.keep_best(job.run_uri, progress, weights, calibration, job.recipe.checkpoint.keep)


def _forget_pretraining_score(job: TrainingRun, progress: checkpoint.TrainingProgress) -> None:
    """Reset the best score when pretraining ends: it does not count for the following stages."""
    before, now = (job.recipe.stages[progress.stage - k].data for k in (1, 0))
    if before == "pretrain" and now == "train":
        progress.best_score, progress.best_epoch, progress.best = None, 0, []


def _stage_is_over(stage: Stage, progress: checkpoint.TrainingProgress) -> bool:
    patient = stage.patience == 0 or progress.since_best < stage.patience
    return progress.epoch_in_stage >= stage.epochs or not patient


def _keep_pretrained(job: TrainingRun, world: World, learner: Learner, progress: checkpoint.TrainingProgress) -> None:
    """Save the weights of a pretraining stage next to the checkpoints, as a start for other trainings."""
    if world.rank == 0 and job.recipe.stages[progress.stage].data == "pretrain":
        checkpoint.save_weights(job.run_uri, checkpoint.PRETRAINED, learner.validated.state_dict())


def _ends(
    job: TrainingRun, world: World, learner: Learner, progress: checkpoint.TrainingProgress, sums: EpochSums
) -> bool:
    """Commit in mid-epoch if that is due after this step; whether the run ends here."""
    notice, every = world.notice(), job.recipe.checkpoint.every_steps
    if sums.steps == job.steps_per_epoch(job.recipe.stages[progress.stage]):
        return False  # the epoch is whole: its own commit follows
    if notice >= Notice.LEAVING or (every and sums.steps % every == 0):
        workers = world.gather(worker_state(learner, sums))
        if world.rank == 0:
            job.hold.check()
        _commit(job, world, learner, replace(progress, step=sums.steps), workers)
    return notice is Notice.STOP


def _commit(
    job: TrainingRun,
    world: World,
    learner: Learner,
    progress: checkpoint.TrainingProgress,
    workers: Sequence[dict[str, Tensor]] = (),
) -> None:
    if world.rank == 0:
        progress.steps_in_stage = learner.schedule.last_epoch
        progress.workers, progress.batch_size = world.size, job.recipe.batch_size
        average = learner.average.state_dict() if learner.average is not None else None
        state = checkpoint.TrainingState(learner.raw.state_dict(), learner.optimizer, average, workers)
        checkpoint.save_checkpoint(job.run_uri, job.fingerprint, progress, state)
