"""Bone age by cross-validation: `python tests/benchmarks/hands.py SOURCE --work DIR [--recipe NAME] [--set K=V ...] [--all]`.

SOURCE is a folder of hands, its label CSV SOURCE.csv beside it. Every hand is predicted once, by a model that has seen neither
it nor an exact copy: five parts, equal in sex and age, copies in one. Each is prepared, trained and evaluated by the commands;
what is done is not done again. Ten hands of the others are only watched, and choose nothing. Predictions go to
DIR/out-of-fold.csv.

`--all` trains the model of all hands afterwards, but for ten that are watched, and writes its gate by pixels to
DIR/all/gate.json: the limit lies where the five networks, each with a gate of its own, reject the share `LOST` of the hands that
they have not seen. Their own gates, each limited by the hands of the four others, go to DIR/fold-K/gate.json. With `--heads`, a
folder of cephalograms, all gates know these for other things too.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import random
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import common
import cv2
import numpy as np
import pyarrow.parquet as pq
import torch
from common import machine, on_one_core

from boneage_ray import bundle
from boneage_ray.datasets.load import open_prepared
from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.evaluation.bootstrap import bootstrap_interval
from boneage_ray.models.pixel_gate import LOST
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.preparation.prepare import prepare_image, prepare_radiograph
from boneage_ray.storage import write_json
from boneage_ray.tasks.age.intervals import COVERAGE, fit_intervals, interval
from boneage_ray.training.blend import clean_batches, trained_regressor
from boneage_ray.training.gate import features_of_pictures, gate_without_limit, picture_batches

FOLDS, WATCHED = 5, 10
PHANTOMS = 240  # which gates know too: demo and page score them
EACH = 100  # pictures of each kind of other things, for a gate


def groups_of(source):
    """Lists of hands (stem, sex, age) of equal pixels, in an order by sex, age and seeded chance."""
    table = source.with_name(source.name + ".csv")
    chance, found = random.Random(12), defaultdict(list)
    files = {path.stem: path for path in sorted(source.rglob("*.png"))}
    for row in csv.DictReader(table.open()):
        digest = hashlib.sha256(cv2.imread(str(files[row["id"]]), cv2.IMREAD_GRAYSCALE).tobytes()).hexdigest()
        found[digest].append((row["id"], row["male"], float(row["boneage"])))
    return sorted(found.values(), key=lambda group: (group[0][1:], chance.random()))


def folds_of(groups):
    """Stem -> fold: of every five neighbours of one sex one goes into each."""
    chance, found = random.Random(12), {}
    for sex in sorted({group[0][1] for group in groups}):
        of_sex = [group for group in groups if group[0][1] == sex]
        for at in range(0, len(of_sex), FOLDS):
            order = chance.sample(range(FOLDS), FOLDS)
            for group, fold in zip(of_sex[at : at + FOLDS], order, strict=False):
                found |= {stem: fold for stem, *_ in group}
    return found


def write_split(path, groups, folds, tested):
    """Which hand is for training, validation and test; `tested`: a fold, or None for the model of all hands."""
    rest = [group for group in groups if folds[group[0][0]] != tested]
    step = len(rest) // WATCHED
    watched = {stem for group in rest[step // 2 :: step] for stem, *_ in group}
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["record_id", "split"])
        for stem, fold in folds.items():
            rows.writerow([stem, "test" if fold == tested else "val" if stem in watched else "train"])


def trained(options, groups, folds, tested):
    """The folder of one model, evaluated if something is left to be tested, and of its data."""
    work = options.work / ("all" if tested is None else f"fold-{tested}")
    work.mkdir(parents=True, exist_ok=True)
    split, data, model = work / "split.csv", work / "data", work / "model"
    write_split(split, groups, folds, tested)
    boneage = partial(common.boneage, environment=on_one_core() if options.jobs > 1 else None)
    recipe = ["--recipe", options.recipe, *[word for setting in options.set for word in ("--set", setting)]]
    if not (data / "manifest.json").exists():
        boneage("prepare", options.source, *recipe, "--split", split, "--out", data)
    if not (model / "manifest.json").exists():
        boneage("train", *recipe, "--data", data, "--out", model, "--resume")
    out = model.parent / "evaluation"
    if tested is not None and not (out / "metrics.json").exists():
        boneage("evaluate", "--model", model, "--data", data, "--split", "test", "--open-test", "--out", out)
    return model, data


def phantoms(config):
    """Batches of drawn hands of many ages and sizes."""
    drawn = (
        hand_phantom(seed, 20 + (seed * 37) % 200, "FM"[seed % 2], 200 + (seed * 53) % 300) for seed in range(PHANTOMS)
    )
    return picture_batches([prepare_radiograph(Radiograph(hand.image), config).pixels for hand in drawn])


def prepared_heads(folder, config):
    """Batches of the cephalograms of a folder, as a model of hands sees them."""
    quality = config.quality.model_copy(update={"header_gate": False, "pixel_gate": False})
    asked = config.model_copy(update={"quality": quality}).expecting("hand")
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".jpg", ".png")]
    return picture_batches([prepare_image(path.read_bytes(), asked).pixels for path in files])


def write_gates(work, heads):
    """Write gate.json of the model of all hands and of each fold; say how many hands gates reject that did not know them."""
    fitted, held_out = {}, {}
    for name in (*(f"fold-{fold}" for fold in range(FOLDS)), "all"):
        loaded, data = bundle.load(str(work / name / "model")), open_prepared(str(work / name / "data"))
        model, config = trained_regressor(loaded.recipe, loaded.weights, torch.device("cpu")), loaded.recipe.image
        known = [*clean_batches(data, "train"), *phantoms(config)]
        others = list(prepared_heads(heads, config)) if heads else []
        fitted[name] = gate_without_limit(model, loaded.recipe, known, None, EACH, others)
        if name != "all":
            held_out[name] = features_of_pictures(model, clean_batches(data, "test"), None)
    raw = {name: fitted[name].gate.likeness(features) for name, features in held_out.items()}
    lost = 0
    for name, (gate, known, others) in fitted.items():
        limiting = np.concatenate([likeness for other, likeness in raw.items() if other != name])
        limited = gate.limited(limiting)
        lost += int((limited.likeness(held_out[name]) < 0).sum()) if name in held_out else 0
        counts = {"known": known, "others": others, "held_out": len(limiting), "held_out_below": LOST}
        said = {"fitted_on": f"{len(limiting)} hands, each held out of a network of its own"}
        write_json(str(work / name / "gate.json"), limited.as_json() | counts | said)
    print(
        f"\ngates by pixels reject {lost} of {sum(map(len, raw.values()))} hands that they and their limits had not seen"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--recipe", default="efficientnet-lite-hand")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--all", action="store_true", help="train the model of all hands too")
    parser.add_argument("--jobs", type=int, default=1, help="folds at a time; of several, each has one core")
    parser.add_argument("--heads", type=Path, help="a folder of cephalograms: see --all")
    options = parser.parse_args()
    groups = groups_of(options.source)
    folds = folds_of(groups)
    rows = []
    wanted = [*range(FOLDS), *([None] if options.all else [])]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(partial(trained, options, groups, folds), wanted))
    for fold in range(FOLDS):
        found = options.work / f"fold-{fold}" / "evaluation" / "predictions.parquet"
        rows += [row | {"fold": fold} for row in pq.read_table(found).to_pylist()]
    if options.all:
        write_gates(options.work, options.heads)
    names = ("record_id", "sex", "true_months", "predicted_months", "fold")
    with (options.work / "out-of-fold.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *[[row[name] for name in names] for row in rows]])
    print(f"{options.recipe} {' '.join(options.set)}: {len(rows)} hands, {machine()}\n")
    print("| hands | n | MAE in months (95 %) | bias | within 12 months |\n|---|---|---|---|---|")
    parts = {"all": lambda row: True, "girls": lambda row: row["sex"] == "F", "boys": lambda row: row["sex"] == "M"}
    for name, belongs in parts.items():
        errors = np.array([row["predicted_months"] - row["true_months"] for row in rows if belongs(row)])
        low, high = bootstrap_interval(np.abs(errors), np.random.default_rng(0))
        mean, near = np.abs(errors).mean(), (np.abs(errors) <= 12).mean()
        print(f"| {name} | {len(errors)} | {mean:.2f} ({low:.2f} to {high:.2f}) | {errors.mean():+.2f} | {near:.1%} |")
    widths, inside = covered(rows)
    print(
        f"\n{COVERAGE:.0%} intervals, each fold's from the others: cover {inside:.1%}, {widths:.1f} months wide on average"
    )


def covered(rows):
    """Mean width in months, and the share of true ages inside, of intervals that no case of its own fold decided."""
    widths, inside = [], []
    for fold in range(FOLDS):
        others = [row for row in rows if row["fold"] != fold]
        true, predicted = (np.array([row[name] for row in others]) for name in ("true_months", "predicted_months"))
        groups = fit_intervals([row["sex"] for row in others], true, predicted)
        for row in rows:
            if row["fold"] == fold:
                low, high = interval(groups, row["sex"], row["predicted_months"])
                widths.append(high - low)
                inside.append(low <= row["true_months"] <= high)
    return np.mean(widths), np.mean(inside)


if __name__ == "__main__":
    main()
