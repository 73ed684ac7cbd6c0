"""Training against a bare loop: `python tests/benchmarks/training.py --work DIR [--count 640] [--rounds 2]`.

The bare loop is plain PyTorch over the same prepared records already in memory: the same model, augmentation, loss, optimizer
and precision, one process with a thread a core. Rates are of whole epochs after the first. Two DDP workers are compared with
one worker of two threads in the same rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from common import boneage, hands, machine

from boneage_ray.augment.pipeline import Augment
from boneage_ray.datasets.batch import as_float, collate
from boneage_ray.models.regressor import Regressor
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.tasks.age import AgeTask
from boneage_ray.training.step import choose_precision

EPOCHS = 3


def bare(recipe, data):
    """Images per second of a bare loop, epochs after the first."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    table = pa.concat_tables([pq.read_table(path) for path in sorted((data / "train").glob("part-*.parquet"))])
    whole = collate(table.to_pydict())
    model = Regressor(recipe.model).to(memory_format=torch.channels_last).train()
    task, augment = AgeTask(recipe.task), Augment(recipe.augment)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=1e-5)
    precision = choose_precision(recipe.precision, torch.device("cpu"))
    seconds = []
    for _ in range(EPOCHS):
        start = time.monotonic()
        for chosen in torch.randperm(len(whole)).split(recipe.batch_size):
            image = augment(as_float(whole.image_B1HW[chosen])).image_B1HW
            with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
                outputs = model(image, whole.sex_B[chosen])
            batch = type(whole)(image, whole.sex_B[chosen], whole.age_B[chosen])
            loss = sum(task.losses(outputs, batch).values())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        seconds.append(time.monotonic() - start)
    return len(whole) * (EPOCHS - 1) / sum(seconds[1:])


def ours(data, out, workers, rows, flags):
    """Images per second of `boneage train`, epochs after the first."""
    shutil.rmtree(out, ignore_errors=True)
    boneage("train", "--recipe", "resnet18-multitask", "--data", data, "--out", out, "--workers", workers, *flags)
    history = json.loads((out / "metrics.json").read_text())["history"]
    return rows * (EPOCHS - 1) / sum(line["train_seconds"] for line in history[1:])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    work = arguments.work
    settings = ["model.backbone.weights=none", f"stage.epochs={EPOCHS}"]
    flags = [part for setting in settings for part in ("--set", setting)]
    recipe = override(find_recipe("resnet18-multitask"), settings)
    archive, data = work / f"train-hands-{arguments.count}", work / f"train-data-{arguments.count}"
    hands(archive, arguments.count, 320, distinct=arguments.count)
    if not data.exists():
        boneage("prepare", archive, "--recipe", "resnet18-multitask", "--out", data)
    rows = json.loads((data / "manifest.json").read_text())["counts"]["train"]
    print(
        f"machine: {machine()}; {rows} records, resnet18-multitask from scratch, 256 px, batch {recipe.batch_size}",
        flush=True,
    )
    single, double = [], []
    for turn in range(arguments.rounds):
        plain = bare(recipe, data)
        one = ours(data, work / "model-1", 1, rows, flags)
        two = ours(data, work / "model-2", 2, rows, flags)
        single.append(one / plain)
        double.append(two / one)
        print(f"round {turn + 1}: bare {plain:.1f} images/s, one worker {one:.1f} (ratio {single[-1]:.3f})", flush=True)
        print(f"round {turn + 1}: two workers {two:.1f} (of one: {double[-1]:.3f})", flush=True)
    print(f"one worker / bare: median {statistics.median(single):.3f}")
    print(f"two workers / one: median {statistics.median(double):.3f}")


if __name__ == "__main__":
    main()
