"""Training against a bare loop: `python tests/benchmarks/training.py --work DIR [--recipe NAME ...] [--count 640] [--rounds 2]`.

The bare loop is plain PyTorch over the same prepared records already in memory: the same model, augmentation, loss, optimizer
and precision, one process with a thread a core. Rates are of whole epochs after the first. `augmentation` is its part of the
bare loop's time. `--workers`: two DDP workers against one worker of two threads. `--s3`: the first epoch from an S3 server on
loopback (rclone), and later ones. `--feed`: batches alone, without a network, in this process on one core, and the seconds to the
first batch of each epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from common import boneage, hands, machine

sys.path.insert(0, str(Path(__file__).parents[1]))
from s3server import serve_s3

from boneage_ray.augment.pipeline import Augment
from boneage_ray.datasets.batch import as_float, collate
from boneage_ray.datasets.load import open_prepared
from boneage_ray.models.precision import choose_precision
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.recipes.stage import Stage
from boneage_ray.tasks.build import build_model, build_task
from boneage_ray.training.feed import Feed

EPOCHS = 3


def settings_of(name):
    """Everything trained in one stage of few epochs, from scratch; what only the driver does is left out."""
    recipe = find_recipe(name)
    stage = Stage(epochs=EPOCHS, optimizer="adam", lr=1e-4, weight_decay=1e-5, clip_norm=5.0)
    told = [f"{key}={json.dumps(value)}" for key, value in stage.model_dump().items()]
    stages = "stages=[{" + ", ".join(told) + "}]"
    weights = "model.weights" if recipe.model.kind == "hand-mask" else "model.backbone.weights"
    # An empty TOML value cannot be given: a blend is fitted after the last epoch, outside of what is measured.
    return [stages, f"{weights}=none"]


def bare(recipe, data):
    """Images per second of a bare loop, epochs after the first, and the part of augmentation in it."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    table = pa.concat_tables([pq.read_table(path) for path in sorted((data / "train").glob("part-*.parquet"))])
    whole = collate(table.to_pydict())
    model = build_model(recipe.model, False, recipe.image.size).to(memory_format=torch.channels_last).train()
    task, augment = build_task(recipe.task), Augment(recipe.augment)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=1e-5)
    precision = choose_precision(recipe.precision, torch.device("cpu"))
    seconds, augmenting = [], 0.0
    for epoch in range(EPOCHS):
        start = time.monotonic()
        for chosen in torch.randperm(len(whole)).split(recipe.batch_size):
            before = time.monotonic()
            mask = whole.mask_B1HW[chosen].float() if whole.mask_B1HW is not None else None
            made = augment(as_float(whole.image_B1HW[chosen]), mask)
            augmenting += (time.monotonic() - before) * (epoch > 0)
            ids = tuple(whole.ids[k] for k in chosen.tolist())
            batch = type(whole)(made.image_B1HW, whole.sex_B[chosen], whole.age_B[chosen], ids, made.mask_B1HW)
            batch = model.training_batch(batch)
            with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
                outputs = model(batch.image_B1HW, batch.sex_B)
            loss = sum(task.losses(outputs, batch).values())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        seconds.append(time.monotonic() - start)
    return len(whole) * (EPOCHS - 1) / sum(seconds[1:]), augmenting / sum(seconds[1:])


def ours(name, data, out, workers, rows, environment=None):
    """Images per second of `boneage train`: in the first epoch, and in those after it."""
    shutil.rmtree(out, ignore_errors=True)
    flags = [part for setting in settings_of(name) for part in ("--set", setting)]
    asked = ("train", "--recipe", name, "--data", data, "--out", out, "--workers", workers, *flags)
    boneage(*asked, environment=os.environ | environment if environment else None)
    first, *later = [line["train_seconds"] for line in json.loads((out / "metrics.json").read_text())["history"]]
    return rows / first, rows * len(later) / sum(later)


def fed(recipe, data, epochs=6):
    """Images per second of batches alone from the second epoch, and the most seconds to the first batch of one."""
    torch.set_num_threads(1)
    feed = Feed(recipe, {"train": open_prepared(str(data))}, 0, 1)
    seconds, starts, images = [], [], 0
    for epoch in range(epochs):
        start = time.monotonic()
        for number, batch in enumerate(feed.train_batches(epoch, "train")):
            if number == 0:
                starts.append(time.monotonic() - start)
            images += len(batch) * (epoch > 0)
        seconds.append(time.monotonic() - start)
    return images / sum(seconds[1:]), max(starts[1:])


def measure(name, arguments):
    """Rounds of bare loop and command, interleaved."""
    work = arguments.work
    recipe = override(find_recipe(name), settings_of(name))
    archive, data = work / f"train-hands-{arguments.count}", work / "buckets" / "train" / f"{arguments.count}-{name}"
    hands(archive, arguments.count, 320, distinct=arguments.count)
    if not data.exists():
        boneage("prepare", archive, "--recipe", name, "--out", data)
    rows = json.loads((data / "manifest.json").read_text())["counts"]["train"]
    told = f"{name}, {rows} records, {recipe.image.size} px, batch {recipe.batch_size}"
    if arguments.feed:
        rate, start = fed(recipe, data)
        print(f"{told}: batches alone {rate:.0f} images/s, later epochs begin after {start:.3f} s", flush=True)
    ratios = []
    for turn in range(arguments.rounds):
        plain, share = bare(recipe, data)
        first, one = ours(name, data, work / "model-1", 1, rows)
        ratios.append(one / plain)
        text = f"{told}, round {turn + 1}: bare {plain:.1f} images/s, one worker {one:.1f} (ratio {ratios[-1]:.3f})"
        print(f"{text}, its first epoch {first:.1f} ({first / plain:.3f}), augmentation {share:.3f}", flush=True)
        if arguments.s3:
            with serve_s3(work / "buckets") as server:
                place = f"s3://train/{data.name}"
                first, later = ours(name, place, work / "model-s3", 1, rows, server.environment)
            told_s3 = f"first epoch {first:.1f} ({first / plain:.3f}), later {later:.1f} ({later / plain:.3f})"
            print(f"{told}, from S3: {told_s3}", flush=True)
        if arguments.workers:
            _, two = ours(name, data, work / "model-2", 2, rows)
            print(f"{told}: two workers {two:.1f} (of one: {two / one:.3f})", flush=True)
    if ratios:
        print(f"{name}: one worker / bare: median {statistics.median(ratios):.3f}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--recipe", nargs="+", default=["resnet18-multitask"])
    parser.add_argument("--count", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=2)
    for flag in ("--workers", "--s3", "--feed"):
        parser.add_argument(flag, action="store_true")
    arguments = parser.parse_args()
    print(f"machine: {machine()}; from scratch", flush=True)
    for name in arguments.recipe:
        measure(name, arguments)


if __name__ == "__main__":
    main()
