"""The loop over epochs and stages. It knows no Ray and no objective: batches, a gather and reports are handed in."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from boneage_ray import storage
from boneage_ray.augment.pipeline import Augment
from boneage_ray.datasets.batch import Batch
from boneage_ray.models.build import build_model
from boneage_ray.models.model import Model
from boneage_ray.optimization import Stage, build_optimizer, build_schedule
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.tasks.build import build_task
from boneage_ray.training import checkpoint
from boneage_ray.training.step import (
    Learner,
    NonFiniteLossError,
    choose_precision,
    predict_epoch,
    train_epoch,
)


class World(Protocol):
    """What the loop needs of its surroundings; training/driver.py gives it on Ray, tests give a plain one."""

    rank: int
    size: int
    device: torch.device

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, made to average gradients over the workers."""

    def same_buffers(self, raw: nn.Module) -> None:
        """Give every worker the batch-norm statistics of the first, so that all validate the same model."""

    def train_batches(self, epoch: int) -> Iterable[Batch]:
        """This worker's batches of an epoch; the same for the same epoch, also after a resume."""

    def val_batches(self) -> Iterable[Batch]:
        """This worker's part of the validation split."""

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401  any picklable value
        """The values of all workers, in rank order."""

    def on_step(self, cases: int, loss: float) -> None:
        """Called after every step."""

    def on_epoch(self, line: dict[str, Any]) -> None:
        """Called on every worker after an epoch was committed."""


@dataclass(frozen=True)
class Job:
    """One training: what to run, and where its checkpoints go."""

    recipe: Recipe
    run_uri: str
    fingerprint: str
    steps_per_epoch: int


def train(job: Job, world: World) -> checkpoint.Progress:
    """Train from the last whole checkpoint of `job.run_uri`, or from the start, to the end of the last stage."""
    found = checkpoint.load_latest(job.run_uri, job.fingerprint)
    progress = found[0] if found else checkpoint.Progress()
    torch.manual_seed(job.recipe.seed)
    raw = build_model(job.recipe.model, with_weights=found is None).to(world.device)
    raw = raw.to(memory_format=torch.channels_last)
    if found:
        raw.load_state_dict(checkpoint.model_weights(found[1]))
    learner = _learner(job, world, raw, progress, found[1] if found else None)
    while progress.stage < len(job.recipe.stages):
        _one_epoch(job, world, raw, learner, progress)
        if _stage_is_over(job.recipe.stages[progress.stage], progress):
            progress.stage, progress.epoch_in_stage, progress.since_best = progress.stage + 1, 0, 0
            if progress.stage < len(job.recipe.stages):
                learner = _learner(job, world, raw, progress, None)
        _commit(job, world, raw, learner, progress)
        world.on_epoch(progress.history[-1])
    return progress


def _learner(
    job: Job, world: World, raw: Model, progress: checkpoint.Progress, tensors: dict[str, Tensor] | None
) -> Learner:
    """The optimizer and schedule of the present stage, with their saved state if there is one."""
    stage = job.recipe.stages[min(progress.stage, len(job.recipe.stages) - 1)]
    _set_trainable(raw, stage)
    optimizer = build_optimizer(stage, raw.parameters())
    schedule = build_schedule(stage, optimizer, job.steps_per_epoch)
    if tensors is not None:
        checkpoint.restore_optimizer(optimizer, progress, tensors)
        schedule.last_epoch = progress.steps_in_stage  # the rates themselves came back with the optimizer
        torch.set_rng_state(tensors["rng"])
    return Learner(
        model=world.wrap(raw),
        raw=raw,
        task=build_task(job.recipe.task),
        augment=Augment(job.recipe.augment),
        device=world.device,
        precision=choose_precision(job.recipe.precision, world.device),
        optimizer=optimizer,
        schedule=schedule,
        clip_norm=stage.clip_norm,
        frozen=() if stage.trainable == "all" else (raw.backbone,),
    )


def _one_epoch(job: Job, world: World, raw: Model, learner: Learner, progress: checkpoint.Progress) -> None:
    """Train, validate over all workers, and extend the history by one line."""
    started = time.monotonic()
    # Reseeded from (seed, epoch, rank): a resumed epoch draws what the unbroken one drew, on any worker.
    torch.manual_seed((job.recipe.seed * 1_000_003 + progress.epoch) * 1_009 + world.rank)
    try:
        loss = train_epoch(learner, world.train_batches(progress.epoch), world.on_step)
    except NonFiniteLossError as error:
        uri = storage.join(job.run_uri, "nonfinite-loss.json")
        storage.write_json(uri, {"epoch": progress.epoch + 1, "ids": list(error.ids)})
        raise
    trained = time.monotonic()
    world.same_buffers(raw)
    parts = world.gather(predict_epoch(learner, world.val_batches()))
    losses = world.gather(loss)
    progress.epoch += 1
    progress.epoch_in_stage += 1
    line = {
        "epoch": progress.epoch,
        "stage": progress.stage,
        "lr": learner.schedule.get_last_lr()[0],
        "train_loss": sum(losses) / len(losses),
        "train_seconds": round(trained - started, 3),
        "val_seconds": round(time.monotonic() - trained, 3),
        **_validation(learner, parts),
    }
    progress.history.append(line)
    _note_best(job, world, raw, progress, line[job.recipe.best_by])


def _validation(learner: Learner, parts: list[Any]) -> dict[str, float | None]:
    """Metrics over the whole split, from every worker's columns."""
    predicted: dict[str, list[Any]] = {}
    truth: dict[str, list[Any]] = {}
    for part_predicted, part_truth, _ in parts:
        for whole, part in ((predicted, part_predicted), (truth, part_truth)):
            for name, values in part.items():
                whole.setdefault(name, []).extend(values)
    total, cases = (sum(part[2][k] for part in parts) for k in (0, 1))
    found = {"loss": total / max(cases, 1), **learner.task.metrics(predicted, truth)}
    return {f"val_{name}": value if math.isfinite(value) else None for name, value in found.items()}


def _note_best(job: Job, world: World, raw: Model, progress: checkpoint.Progress, score: float | None) -> None:
    """A score that is not finite (None) is never better than one that is."""
    progress.since_best += 1
    first = progress.best_epoch == 0
    if first or (score is not None and (progress.best_score is None or score < progress.best_score)):
        progress.best_score, progress.best_epoch, progress.since_best = score, progress.epoch, 0
        if world.rank == 0:
            checkpoint.save_best(job.run_uri, raw.state_dict())


def _stage_is_over(stage: Stage, progress: checkpoint.Progress) -> bool:
    patient = stage.patience == 0 or progress.since_best < stage.patience
    return progress.epoch_in_stage >= stage.epochs or not patient


def _commit(job: Job, world: World, raw: Model, learner: Learner, progress: checkpoint.Progress) -> None:
    if world.rank == 0:
        progress.steps_in_stage = learner.schedule.last_epoch
        checkpoint.save(job.run_uri, job.fingerprint, progress, raw.state_dict(), learner.optimizer)


def _set_trainable(raw: Model, stage: Stage) -> None:
    for parameter in raw.parameters():
        parameter.requires_grad = stage.trainable == "all"
    for parameter in raw.head_parameters():
        parameter.requires_grad = True
