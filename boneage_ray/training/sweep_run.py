"""The trials of a sweep on Ray Tune: side by side, and those that are behind are stopped early (ASHA, Li et al. 2020).

A trial is a training of one process whose checkpoints lie in OUT/trials/NNN. So the same command goes on after a kill: a trial
first reports the epochs that it has.
"""

from __future__ import annotations

import io
import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from boneage_ray import storage
from boneage_ray.datasets.batch import Batch
from boneage_ray.datasets.load import open_prepared
from boneage_ray.errors import BoneageError
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.recipes.stage import Data
from boneage_ray.runtime.devices import Precision
from boneage_ray.runtime.runs import say
from boneage_ray.training import checkpoint
from boneage_ray.training.driver import CHECKPOINTS, TrainOptions, training_fingerprint
from boneage_ray.training.feed import Feed
from boneage_ray.training.loop import TrainingRun, train_stages
from boneage_ray.training.notice import Notice
from boneage_ray.training.sweep import SweepFile, Trial, best_figure, figure_of

Status = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class TrialResult:
    """What became of a trial; `best`: its lowest figure, infinite if it has none. `why`: of one that failed."""

    trial: Trial
    status: Status
    epochs: int
    best: float
    history: Sequence[dict[str, Any]]
    why: str = ""


def run_trials(file: SweepFile, trials: Sequence[Trial], options: TrainOptions) -> list[TrialResult]:
    """Train the trials on the connected cluster. Raises what ended the first one if all failed."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    figure, cpus = figure_of(trials[0].recipe), float(ray.cluster_resources().get("CPU", 1.0))
    longest = max(trial.epochs for trial in trials)
    held = open_prepared(options.data).is_held("train")
    # What is read by Ray Data in each epoch needs CPUs beside the trials, or it waits for ever.
    each = {"CPU": min(1.0, cpus if held else 0.75 * cpus), **({"GPU": 1.0} if options.gpu else {})}
    at_once = max(1, int((cpus if held else 0.75 * cpus) / each["CPU"]))
    say(
        f"sweep of {len(trials)} trials, at most {at_once} at once, {each} each; the lowest {figure} of an epoch counts"
    )
    if len(trials) < file.trials:
        say(f"{file.trials} trials were asked for, but the settings make no more than {len(trials)} different ones")
    work = partial(_work, list(trials), options, figure)
    # Tune's own state is not needed to go on, and its tables would stand in the answer of the command.
    with tempfile.TemporaryDirectory() as state, redirect_stdout(io.StringIO()):
        grid = tune.Tuner(
            tune.with_resources(work, each),
            param_space={"number": tune.grid_search([trial.number for trial in trials])},
            tune_config=tune.TuneConfig(
                metric="figure",
                mode="min",
                max_concurrent_trials=at_once,
                scheduler=ASHAScheduler(
                    time_attr="epoch", max_t=longest, grace_period=min(file.grace_epochs, longest), reduction_factor=3
                ),
            ),
            run_config=tune.RunConfig(storage_path=state, verbose=0, callbacks=[_teller(figure)]),
        ).fit()
    failed = {result.config["number"]: result.error for result in grid if result.error and result.config}
    found = [_result(trial, options, figure, failed.get(trial.number)) for trial in trials]
    if all(result.status == "failed" for result in found):
        raise BoneageError(f"every trial failed, the first one: {found[0].why}")
    return found


def _work(trials: list[Trial], options: TrainOptions, figure: str, config: dict[str, Any]) -> None:
    """The main function of a trial."""
    from ray import tune

    torch.set_num_threads(1)
    trial = trials[config["number"]]

    def report(line: dict[str, Any]) -> None:
        value = line.get(figure)
        tune.report({"epoch": line["epoch"], "figure": math.inf if value is None else float(value)})

    run_uri, mark = _place(trial, options)
    if before := checkpoint.load_latest(run_uri, mark):
        for line in before[0].history:
            report(line)
    world = _TrialWorld(trial.recipe, options, report)
    steps, *more = [world.feed.batches_per_epoch(data) for data in world.feed.sources]
    train_stages(TrainingRun(trial.recipe, run_uri, mark, steps, sum(more), options.hold), world)


def _place(trial: Trial, options: TrainOptions) -> tuple[str, str]:
    """Where the checkpoints of a trial are, and what they must be of."""
    mark = training_fingerprint(trial.recipe, open_prepared(options.data), options)
    return storage.join(options.out, "trials", trial.name, CHECKPOINTS), mark


def _result(trial: Trial, options: TrainOptions, figure: str, error: Exception | None) -> TrialResult:
    found = checkpoint.load_latest(*_place(trial, options))
    history = found[0].history if found else []
    # By stages, not epochs: one that no longer gains ends early, and is finished all the same.
    is_over = found is not None and found[0].stage == len(trial.recipe.stages)
    status: Status = "failed" if error else "finished" if is_over else "stopped"
    why = _cause(error) if error else ""
    return TrialResult(trial, status, len(history), best_figure(history, figure), history, why)


def _cause(error: BaseException) -> str:
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {str(cause).strip().splitlines()[-1] if str(cause).strip() else ''}"


def _teller(figure: str) -> Any:  # noqa: ANN401  a callback of Tune
    from ray import tune

    class _Teller(tune.Callback):  # type: ignore[misc]
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:  # noqa: ANN401
            say(f"trial {trial.config['number']}: epoch {result['epoch']}, {figure} {result['figure']:.4g}")

    return _Teller()


class _TrialWorld:
    """The loop's `World` of one process."""

    rank, size = 0, 1

    def __init__(self, recipe: Recipe, options: TrainOptions, report: Any) -> None:  # noqa: ANN401  takes a line
        self.device = torch.device("cuda" if options.gpu else "cpu")
        self.auto_precision: Precision | None = options.compute.auto
        uris: dict[Data, str | None] = {"train": options.data, "pretrain": options.pretrain}
        self.feed = Feed(recipe, {data: open_prepared(uri) for data, uri in uris.items() if uri is not None}, 0, 1)
        self.on_epoch = report

    def wrap(self, model: nn.Module) -> nn.Module:
        return model

    def same_buffers(self, raw: nn.Module) -> None:
        pass

    def train_batches(self, epoch: int, data: Data) -> Iterable[Batch]:
        return self.feed.train_batches(epoch, data)

    def val_batches(self) -> Iterable[Batch]:
        return self.feed.val_batches()

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401
        return [value]

    def on_step(self, cases: int, loss: float) -> None:
        pass

    def notice(self) -> Notice:
        return Notice.NONE
