"""Training on Ray: a TorchTrainer whose workers run training/loop.py."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from boneage_ray import __version__, bundle, storage
from boneage_ray.datasets.balance import pixel_marks, shared_pixels
from boneage_ray.datasets.load import PreparedData, open_prepared
from boneage_ray.errors import BoneageError, MismatchError, NoUsableInputError, UsageError
from boneage_ray.preparation.split import Split
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.recipes.stage import Data
from boneage_ray.runtime import nodes
from boneage_ray.runtime.cluster import first_cause
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.runtime.lease import SHARED_PLACE, Hold
from boneage_ray.runtime.runs import say, versions
from boneage_ray.tasks.build import build_model, build_task
from boneage_ray.training import checkpoint, elastic
from boneage_ray.training.blend import check_blend, fit_blend
from boneage_ray.training.board import progress_line
from boneage_ray.training.feed import FEW_IMAGES, any_workers, shared_recipe
from boneage_ray.training.gallery import AUGMENTED, show_augmentation
from boneage_ray.training.gate import fit_training_gate
from boneage_ray.training.loop import TrainingRun, train_stages
from boneage_ray.training.optimization import parameter_groups
from boneage_ray.training.ray_world import RayWorld
from boneage_ray.training.tracking import Tracking, tracked

CHECKPOINTS = "checkpoints"
TRIES = 3  # from one epoch; as long as epochs are finished, workers may fail as often as they do
# Ray Train runs the loop in a thread. glibc gives a thread its own arena, which returns every large activation to the
# kernel: a tenth of the training time on CPUs, measured.
_ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**33)}

_DECISIVE = ("boneage-ray", "torch", "torchvision", "timm", "kornia")
_DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # cuBLAS needs it before its first use


@dataclass(frozen=True)
class TrainOptions:
    """The options of a training from the command line; `hold` and `compute` are known once OUT is claimed.

    `workers` share the batch; with `min_workers`, fewer of them go on where there is no room for all (`elastic`).
    """

    data: str
    out: str
    pretrain: str | None = None
    workers: int = 1
    min_workers: int = 0  # 0: as many as `workers`, always
    gpu: bool = False
    cache_on_gpu: bool = False
    hold: Hold = Hold("")  # noqa: RUF009  immutable
    compute: RunDevice = RunDevice()  # noqa: RUF009  immutable
    track: tuple[str, ...] = ()


def training_fingerprint(recipe: Recipe, prepared: PreparedData, options: TrainOptions) -> str:
    """A hash of the settings and data that a resumed run must share."""
    more = [open_prepared(options.pretrain).manifest["fingerprint"]] if options.pretrain else []
    decisive = recipe.model_dump(mode="json", exclude={"summary", "checkpoint"})
    values = (__version__, decisive, prepared.manifest["fingerprint"], *more)
    return checkpoint.fingerprint_of(*values)


def check_pretraining(recipe: Recipe, prepared: PreparedData, pretrain: str | None) -> None:
    """Raise unless pretraining data are given exactly if a stage needs them, prepared alike, without images of val and test."""
    wanted = any(stage.data == "pretrain" for stage in recipe.stages)
    if wanted and pretrain is None:
        raise UsageError(
            f"recipe {recipe.name} starts with pretraining: give --pretrain-data DATA2 (prepared with --recipe {recipe.name}; "
            "`boneage phantoms` writes an archive for it)"
        )
    if pretrain is not None and not wanted:
        raise UsageError(f"--pretrain-data {pretrain}: recipe {recipe.name} has no stage with data = pretrain")
    if pretrain is not None:
        pretraining = open_prepared(pretrain)
        pretraining.check_image(recipe.image)
        check_labels(recipe, pretraining, ("train",))
        if shared := shared_pixels(
            pretraining.shards("train"), [*prepared.shards("val"), *prepared.all_shards("test")]
        ):
            raise UsageError(
                f"--pretrain-data {pretrain} holds {shared} images of the val or test split of {prepared.uri}: the model would "
                "be evaluated on images that it was trained on; prepare it without them"
            )


def check_labels(recipe: Recipe, prepared: PreparedData, splits: Sequence[Split] = ("train", "val")) -> None:
    """Raise `NoUsableInputError` for a split without a record, or without the labels that the task needs."""
    task = build_task(recipe.task)
    for split in splits:
        if missing := task.missing_labels(prepared.shards(split)):
            raise NoUsableInputError(f"{prepared.uri}: no case of the {split} split has {missing}")


def run_training(
    recipe: Recipe, prepared: PreparedData, options: TrainOptions
) -> tuple[checkpoint.TrainingProgress, str]:
    """Train on the connected cluster, save the bundle of the best epoch, and return the history and its `model_sha256`."""
    with tracked(recipe, options.out, options.track) as tracking:
        progress, sha256 = _trained(recipe, prepared, options, tracking)
        reported = {"best_epoch": progress.best_epoch, "model_sha256": sha256, "data": prepared.manifest["fingerprint"]}
        tracking.complete(progress.history, reported, [AUGMENTED])
    return progress, sha256


def _trained(
    recipe: Recipe, prepared: PreparedData, options: TrainOptions, tracking: Tracking
) -> tuple[checkpoint.TrainingProgress, str]:
    run_uri = storage.join(options.out, CHECKPOINTS)
    mark = training_fingerprint(recipe, prepared, options)
    total = sum(stage.epochs for stage in recipe.stages)
    shared = shared_recipe(recipe, options.workers)
    sizes = elastic.sizes(shared.batch_size, options.workers, options.min_workers or options.workers)
    if checkpoint.load_latest(run_uri, mark) is None:
        # Built here first: a wrong name, file, hash or number of blocks, or an unreachable hub, fails before workers start.
        for warning in build_task(recipe.task).label_warnings(recipe.model, prepared.shards("train")):
            say(warning)
        say(f"building {recipe.model.describe()}")
        model = build_model(recipe.model, size=recipe.image.size)
        for stage in recipe.stages:
            parameter_groups(stage, model.head_parameters(), model.blocks())
        check_blend(recipe)
        show_augmentation(recipe, prepared, options.out)
    with progress_line(total, recipe.task_kind.figure, tracking.epoch) as board:
        _fit(shared, options, mark, sizes, board)
    found = checkpoint.load_latest(run_uri, mark)
    if found is None:
        raise MismatchError(f"{run_uri} holds no checkpoint, so a worker wrote to another place; {SHARED_PLACE}")
    progress = found[0]
    if progress.stage < len(recipe.stages):  # asked to stop, see board.progress_line
        say(f"the checkpoint after epoch {progress.epoch} and {progress.step} steps is committed")
        raise KeyboardInterrupt
    metrics = {key: value for key, value in progress.history[progress.best_epoch - 1].items() if value is not None}
    for doubt in build_task(recipe.task).doubts(metrics):
        say(doubt)
    best = checkpoint.load_best(run_uri)
    trees, blended = fit_blend(recipe, prepared, best, options.compute)
    found_best = checkpoint.load_calibration(run_uri)
    validated = found_best.pop("validated", None) if found_best else None
    calibration = _calibration(recipe, found_best, prepared)
    gate = fit_training_gate(recipe, prepared, best, options.compute)
    metrics["data_fingerprint"] = prepared.manifest["fingerprint"]
    metrics["compute"] = options.compute.as_json() | {
        "precision": options.compute.precision_of(recipe.precision),
        "workers": options.workers,
        **({"min_workers": options.min_workers} if options.min_workers else {}),
        "batch_size": shared.batch_size,
    }
    options.hold.check()
    # Of a blend, the errors of the network alone would mislead.
    metrics |= {"validated": validated} if validated and recipe.blend is None else {}
    metrics |= {"history": progress.history} | blended
    learnt = sorted(mark for mark in set(pixel_marks(prepared.shards("train"))) if mark)
    extras = bundle.Extras(calibration=calibration, gate=gate, learnt=learnt)
    sha256 = bundle.save(options.out, recipe, best, metrics, trees, extras)
    return progress, sha256


def _say_what_is_lost(run_uri: str, mark: str, workers: int) -> None:
    """Say it if so many workers cannot go on where the last checkpoint ends."""
    found = checkpoint.load_latest(run_uri, mark)
    if found and found[0].step and found[0].workers != workers:
        say(
            f"the steps after epoch {found[0].epoch} are trained again: {found[0].workers} workers had dealt out its cases, "
            f"{workers} do it in another order"
        )


def _calibration(recipe: Recipe, found: dict[str, Any] | None, prepared: PreparedData) -> dict[str, Any] | None:
    """calibration.json, with the cases that it was fitted on; what lacks in it is said."""
    if found is None:
        return None
    if recipe.blend is not None:  # the validation split has fitted the trees: it says too little of their error
        say(
            "no intervals: the validation split has chosen the trees too; `boneage calibrate` gives some from other cases"
        )
        return None
    for note in found.pop("notes", []):
        say(note)
    used = {"fingerprint": prepared.manifest["fingerprint"], "splits": ["val"]}
    return found | ({"data": used} if found["calibrated"] else {})


def resources_per_worker(cluster_cpus: float, workers: int, gpu: bool, changes: bool = False) -> dict[str, float]:
    """Resources of a worker. All workers take at most three quarters of the CPUs, the rest is for Ray Data's reads.

    `changes`: workers of a number that changes share no CPU (elastic.py).
    """
    cpus = elastic.CPU_OF_EACH if changes and not gpu else min(1.0, 0.75 * cluster_cpus / workers)
    return {"CPU": cpus, "GPU": 1.0} if gpu else {"CPU": cpus}


def _fit(recipe: Recipe, options: TrainOptions, mark: str, sizes: tuple[int, ...], board: Any) -> None:  # noqa: ANN401  a Ray actor handle
    """Train with the first of these numbers of workers, or with the largest for which there is room."""
    import ray

    cpus, changes = _cluster_cpus(), len(sizes) > 1
    group = elastic.Group(sizes, resources_per_worker(cpus, options.workers, options.gpu, changes), board)
    told = f"{sizes[-1]} to {sizes[0]}" if changes else str(options.workers)
    say(f"training {recipe.name} on {told} worker(s), {group.each} each; the cluster has {cpus:g} CPU(s)")
    if options.workers > 1 and recipe.batch_size // options.workers < FEW_IMAGES:
        how = (
            "over all workers"
            if options.gpu
            else "of these alone, for CPUs cannot share it: fewer workers may learn better"
        )
        say(f"{recipe.batch_size // options.workers} images a worker and step are few: batch normalisation is {how}")
    run_uri = storage.join(options.out, CHECKPOINTS)
    sources = [open_prepared(uri) for uri in (options.data, options.pretrain) if uri is not None]
    in_mid_epoch = any_workers(sources)
    if options.cache_on_gpu and not in_mid_epoch:
        say("--cache-on-gpu: a training split is too large to be kept, and streamed")
    config = {
        "recipe": recipe.model_dump_json(),
        "data": options.data,
        "pretrain": options.pretrain,
        "out": options.out,
        "mark": mark,
        "hold": options.hold,
        "compute": options.compute,
        "board": board,
        "versions": code_versions(),
        "cache_on_gpu": options.cache_on_gpu,
    }

    def train_once() -> None:
        going_on = True
        while going_on and (workers := group.choose()):
            if not in_mid_epoch:
                _say_what_is_lost(run_uri, mark, workers)
            ray.get(board.begin.remote())
            with group.growing(workers, in_mid_epoch):
                _train_group(recipe, options, config, workers, group)
            # Workers end when all is trained, or when they are asked to: to stop, or for more of them.
            going_on = changes and not ray.get(board.state.remote())[1] and not _is_trained(run_uri, mark, recipe)

    _from_epoch_to_epoch(train_once, run_uri, changes)


def _is_trained(run_uri: str, mark: str, recipe: Recipe) -> bool:
    found = checkpoint.load_latest(run_uri, mark)
    return found is None or found[0].stage >= len(recipe.stages)


def _cluster_cpus() -> float:
    import ray

    return float(ray.cluster_resources().get("CPU", 1.0))


def _train_group(
    recipe: Recipe, options: TrainOptions, config: dict[str, Any], workers: int, group: elastic.Group
) -> None:
    """Train with so many workers, to the end or until they are asked to stop. Raises Ray Train's `TrainingFailedError`."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    # An upper limit: a node may have fewer cores than the cluster.
    threads = max(1, int(_cluster_cpus()) // workers)
    filesystem, path = storage.arrow_filesystem(storage.join(options.out, CHECKPOINTS))
    # A group of workers that finds no room is tried for a minute each time, and not for ever; one that may be smaller once.
    tries = 1 if group.changes else math.ceil(nodes.patience() / 60)
    TorchTrainer(
        _worker_main,
        train_loop_config=config | {"threads": threads},
        torch_config=TorchConfig(backend="nccl" if options.gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=options.gpu, resources_per_worker=dict(group.each)),
        run_config=RunConfig(
            name=f"ray-{time.time_ns()}",  # Ray's own state; a resume only needs our checkpoints
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(0, controller_failure_limit=tries),
            worker_runtime_env={"env_vars": _ALLOCATOR | (_DETERMINISTIC if recipe.deterministic else {})},
        ),
    ).fit()


def _from_epoch_to_epoch(train_once: Callable[[], None], run_uri: str, changes: bool = False) -> None:
    """Train until it ends, from the last epoch after each failure of a worker. Raises the cause of the last one.

    `changes`: also after a group whose number changes found no room, which may have been there a moment before.

    Not by Ray's own count of failures: it would try again what is wrong each time, and end a long run that a node now and then
    leaves.
    """
    from ray.train import TrainingFailedError

    done, tries = (-1, 0), 0
    while True:
        try:
            train_once()
            return
        except TrainingFailedError as error:
            failures = getattr(error, "worker_failures", {}) or {}
            cause = first_cause(next(iter(failures.values()), error))
            before, done = done, max(checkpoint.saved_places(run_uri), default=(0, 0))
            tries = tries + 1 if done == before else 1
            # What was found wrong is wrong again; whatever else befell a worker may have been its node.
            if isinstance(cause, BoneageError) or not (failures or changes) or tries >= TRIES:
                raise cause from error
            say(
                f"a worker ended ({type(cause).__name__}); going on after epoch {done[0]}"
                + (f" and {done[1]} steps" if done[1] else "")
                + f", try {tries + 1} of {TRIES} from there"
            )


def code_versions() -> dict[str, str]:
    """What decides a training's numbers, without the build (+cu130): the driver may well have another one than its workers."""
    found = versions()
    return {name: found[name].partition("+")[0] for name in _DECISIVE}


def check_packages(asked: Mapping[str, str]) -> None:
    """Raise `MismatchError` where this node has not the packages of the command: its numbers would be others."""
    here = code_versions()
    if other := {name: version for name, version in asked.items() if here[name] != version}:
        told = ", ".join(f"{name} {here[name]} (the command has {version})" for name, version in other.items())
        raise MismatchError(f"node {socket.gethostname()} has other packages: {told}; install the same on all nodes")


def _worker_main(config: dict[str, Any]) -> None:
    """The main function of a Train worker."""
    import ray.train

    check_packages(config["versions"])
    here = ray.train.get_context().get_local_world_size()
    torch.set_num_threads(min(config["threads"], max(1, len(os.sched_getaffinity(0)) // here)))
    recipe = Recipe.model_validate_json(config["recipe"])
    uris: dict[Data, str | None] = {"train": config["data"], "pretrain": config["pretrain"]}
    world = RayWorld(recipe, uris, config["board"], config["compute"], config["cache_on_gpu"])
    steps, *more = [world.feed.batches_per_epoch(data) for data in world.feed.sources]
    hold: Hold = config["hold"]
    hold.check()
    run_uri = storage.join(config["out"], CHECKPOINTS)
    in_mid_epoch = any_workers(world.feed.sources.values())
    job = TrainingRun(recipe, run_uri, config["mark"], steps, sum(more), hold, in_mid_epoch)
    train_stages(job, world)
