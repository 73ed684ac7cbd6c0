"""Scoring against a tuned bare loop: `python tests/benchmarks/scoring.py --work DIR [--count 2000] [--rounds 2] [--memory]`.

The bare loop is one process a core, each with one torch thread, over its share of the files: the same decode, model and
precision, no Ray. Steady throughput of `boneage score` leaves out the first part of each actor (start-up). `--memory` compares
the peak memory of the process tree for 2,000 and 20,000 inputs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
from pathlib import Path

import pyarrow.parquet as pq
from common import bare_rate, boneage, hands, machine, random_bundle


def bare(files, start, model):
    """One process of the bare loop; loading the model is left out."""
    import cv2
    import torch

    from boneage_ray import bundle
    from boneage_ray.prediction.predictor import Predictor
    from boneage_ray.preparation.prepare import prepare_image

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    predictor = Predictor(bundle.load(str(model)), "cpu")
    config, size = predictor.recipe.image, predictor.batch_size
    start()
    ages = []
    for first in range(0, len(files), size):
        images = [prepare_image(path.read_bytes(), config).pixels for path in files[first : first + size]]
        ages += predictor({"image": images, "sex": [None] * len(images)})["age_months"]
    return len(ages)


def ours(model, images, out, environment=None):
    """Steady images per second of `boneage score`, and seconds from command to first committed part."""
    shutil.rmtree(out, ignore_errors=True)
    ran = boneage("score", images, "--model", model, "--out", out, environment=environment)
    parts = sorted((path.stat().st_mtime, pq.read_metadata(path).num_rows) for path in (out / "results").iterdir())
    cores = len(os.sched_getaffinity(0))
    steady = parts[cores:]
    rate = sum(rows for _, rows in steady) / (steady[-1][0] - parts[cores - 1][0])
    return rate, parts[0][0] - ran.started


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    work = arguments.work
    model = random_bundle(work / "model-resnet34", "timm-regressor", "model.backbone.name=resnet34")
    print(f"machine: {machine()}; {arguments.count} PNG of 512 px, resnet34 at 256 px", flush=True)
    if arguments.memory:
        peaks = []
        for count in (2000, 20_000):
            images, out = hands(work / f"hands-{count}", count, 512), work / "scores-memory"
            shutil.rmtree(out, ignore_errors=True)
            ran = boneage("score", images, "--model", model, "--out", out, memory=True)
            peaks.append(ran.peak_mib)
            print(
                f"memory: {count} inputs, peak {ran.peak_mib:.0f} MiB of the process tree, {ran.seconds:.0f} s",
                flush=True,
            )
        print(f"memory: ratio {peaks[1] / peaks[0]:.3f}")
        return
    images = hands(work / f"hands-{arguments.count}", arguments.count, 512)
    ratios = []
    for turn in range(arguments.rounds):
        plain = bare_rate(bare, sorted(images.iterdir()), model)
        rate, first = ours(model, images, work / "scores")
        ratios.append(rate / plain)
        told = f"bare {plain:.1f} images/s, boneage score {rate:.1f} steady, ratio {ratios[-1]:.3f}"
        print(f"round {turn + 1}: {told}, first part after {first:.1f} s", flush=True)
    print(f"ratio: median {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
