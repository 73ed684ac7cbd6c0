"""Landmarks by cross-validation: `python tests/benchmarks/cephalograms.py SOURCE --work DIR --recipe NAME [--set K=V ...]`.

SOURCE is a folder with images/, vertebral/ and facial/, and stage_by_model.csv (the stage that a published model gave; not the
truth). Every image is predicted once, by a model that has seen neither it nor
a copy of it: `--folds` parts by image, shared out so that each has as many annotated spines, copies (equal pixels, or
`--same 038=283`) in one part. Each fold is prepared, trained and evaluated by the commands; what is done is not done again.
The table is made of all predictions together. `--all` trains the model of all heads too, but for a few that are watched.
`--other-reader 301-400`: the facial points of these images were marked by another reader; to learn from, they are moved by the
mean difference (readers.py), which is taken from the heads that are learnt from. Those that are tested stay where they are.
DIR/sigma.json holds, for jobs/make_builtin.py, by what the sigmas of a model without a calibration are to be multiplied, so that
95 % of the points lie in their circles of 95 %.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import common
import cv2
import numpy as np
import pyarrow.parquet as pq
from common import machine, on_one_core
from readers import difference
from sklearn.metrics import cohen_kappa_score

from boneage_ray.anatomy.cephalometry import LANDMARKS, SETS
from boneage_ray.archives.isbi import read_isbi
from boneage_ray.records.schema import from_table
from boneage_ray.tasks.cephalogram.findings.analysis import analyse_landmarks
from boneage_ray.tasks.cephalogram.findings.predictions import LANDMARK_PREDICTIONS, as_landmark_predictions

NAMES = {name: LANDMARKS[which] for name, which in SETS.items()}


def groups_of(source, same):
    """Lists of image names that are the same picture, the annotated spines first; each in an order by chance, but seeded."""
    names = sorted(path.name for path in (source / "images").iterdir())
    twins = dict(pair.split("=")[::-1] for pair in same)
    found = {}
    for name in names:
        pixels = cv2.imread(str(source / "images" / name), cv2.IMREAD_UNCHANGED)
        key = hashlib.sha256(pixels.tobytes()).hexdigest()
        stem = name.split(".")[0]
        found.setdefault(twins.get(stem, stem if stem in twins.values() else key), []).append(name)
    groups = list(found.values())
    random.Random(0).shuffle(groups)
    return sorted(groups, key=lambda group: not any(spine(source, name).exists() for name in group))


def spine(source, name):
    return source / "vertebral" / (name.split(".")[0] + ".json")


def write_split(path, groups, fold, options):
    """Which image is for training, validation and test in one fold; copies go together."""
    folds = options.folds
    rest = [group for k, group in enumerate(groups) if k % folds != fold]
    every = max(2, round(1 / options.validation))
    validation = {name for k, group in enumerate(rest) if k % every == (fold or 0) % every for name in group}
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["record_id", "split"])
        for k, group in enumerate(groups):
            for name in group:
                split = "test" if k % folds == fold else "val" if name in validation else "train"
                table.writerow([name.split(".")[0], split])


def run_fold(options, groups, fold):
    """The rows of one fold's test images; None: the model of all heads, and no row."""
    work = options.work / ("all" if fold is None else f"fold-{fold}")
    work.mkdir(parents=True, exist_ok=True)
    split, data, model, out = work / "split.csv", work / "data", work / "model", work / "evaluation"
    write_split(split, groups, fold, options)
    settings = [word for setting in options.set for word in ("--set", setting)]
    labels = ["--labels", options.work / "spacing.csv"] if options.spacing else []
    boneage = partial(common.boneage, environment=on_one_core() if options.jobs > 1 else None)
    if not (data / "manifest.json").exists():
        source = as_one_reader(options, work, split) if options.other_reader else options.source
        boneage("prepare", source, "--recipe", options.recipe, *settings, "--split", split, *labels, "--out", data)
    if not (model / "manifest.json").exists():
        boneage("train", "--recipe", options.recipe, *settings, "--data", data, "--out", model, "--resume")
    if fold is None:
        return []
    if not (out / "metrics.json").exists():
        boneage(
            "evaluate", "--model", model, "--data", data, "--split", "test", "--open-test", "--out", out, "--overwrite"
        )
    return from_table(pq.read_table(out / "predictions.parquet", schema=LANDMARK_PREDICTIONS))


def as_one_reader(options, work, split):
    """A copy of the archive in which the facial points that are learnt from are all as of the first reader."""
    learnt = {row["record_id"] for row in csv.DictReader(split.open()) if row["split"] != "test"}
    marks = {path.stem: path for path in sorted((options.source / "facial").iterdir()) if path.stem in learnt}
    points = np.array([read_isbi(path.read_bytes()) for path in marks.values()])
    other = np.array([int(stem) in numbers(options.other_reader) for stem in marks])
    moved = points - other[:, None, None] * difference(points, other)
    archive = work / "archive"
    shutil.copytree(options.source, archive, copy_function=shutil.copyfile, dirs_exist_ok=True)  # not read-only
    for path, found in zip(marks.values(), moved, strict=True):
        rest = [line for line in path.read_text("utf-8-sig").splitlines() if line.strip()][len(found) :]
        (archive / "facial" / path.name).write_text("\n".join([*(f"{x:.2f},{y:.2f}" for x, y in found), *rest]))
    return archive


def numbers(text):
    """301-400: the images from 301 to 400."""
    first, last = map(int, text.split("-"))
    return range(first, last + 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--validation", type=float, default=0.08, help="which share of what is not tested is watched")
    parser.add_argument("--all", action="store_true", help="train the model of all heads too")
    parser.add_argument("--jobs", type=int, default=1, help="folds at a time; of several, each has one core")
    parser.add_argument("--only", type=int, nargs="*", help="these folds alone")
    parser.add_argument("--spacing", type=float, default=0.1, help="mm a pixel of every image; 0: what the files say")
    parser.add_argument("--other-reader", help="FIRST-LAST: images whose facial points another reader marked")
    parser.add_argument("--same", nargs="*", default=["038=283", "144=173"], help="images that are the same, by stem")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    groups = groups_of(options.source, options.same)
    if options.spacing:
        with (options.work / "spacing.csv").open("w", newline="") as file:
            names = sorted(name.split(".")[0] for group in groups for name in group)
            csv.writer(file).writerows([["image", "spacing"], *([name, options.spacing] for name in names)])
    folds = range(options.folds) if options.only is None else options.only
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {fold: pool.submit(run_fold, options, groups, fold) for fold in folds}
        whole = [pool.submit(run_fold, options, groups, None)] if options.all else []
        tell(options, {fold: found.result() for fold, found in running.items()})
        for training in whole:
            training.result()


def tell(options, by_fold):
    """Print the table of all folds, and write what jobs/make_builtin.py takes."""
    rows = [row for found in by_fold.values() for row in found]
    (options.work / "sigma.json").write_text(json.dumps(sigma_ratios(options, by_fold), indent=1))
    analysis = analyse_landmarks(as_landmark_predictions(rows))
    (options.work / "metrics.json").write_text(json.dumps(analysis, indent=1))
    print(f"{options.recipe} {' '.join(options.set)}: {len(rows)} images in {len(by_fold)} folds, {machine()}")
    for name, found in analysis["sets"].items():
        shares = ", ".join(f"{limit} mm {rate['share']:.1%}" for limit, rate in found["sdr"].items())
        low, high = found["mre_mm_interval"]
        print(f"{name}: {found['n']} images, {found['mre_mm']:.3f} mm ({low:.2f} to {high:.2f}); within {shares}")
    if stage := analysis["stage"]:
        told = ("n", "accuracy", "adjacent", "weighted_kappa", "calibration_error")
        print("stage against that from the given points:", {name: stage[name] for name in told})
    print(f"stage against the published model's: {agreement(options.source, rows)}")
    print(f"sigma: {analysis['sigma']['coverage_95']:.1%} within the circle for 95 %")
    sure = np.quantile([row["confidence"] for row in rows], [0, 0.05, 0.5]).round(3)
    print(f"confidence: least {sure[0]}, 5 % {sure[1]}, median {sure[2]}")
    for name in ("vertebral", "facial"):
        for group, part in (("1 to 300", range(301)), ("301 to 400", range(301, 401))):
            errors = [e for row in rows if int(row["record_id"]) in part for e in errors_mm(row, name)]
            if errors:
                print(
                    f"{name}, images {group}: {np.mean(errors):.3f} mm, {np.mean(np.array(errors) <= 2):.1%} within 2 mm"
                )


def errors_mm(row, name):
    points = [point for point in row["landmarks"] if point["name"] in NAMES[name] and point["true_x"] is not None]
    return [np.hypot(p["x"] - p["true_x"], p["y"] - p["true_y"]) * row["pixel_spacing_mm"] for p in points]


def sigma_ratios(options, by_fold):
    """For a model without a calibration: the factors by which 95 % of the points lie in their circles of 95 %.

    Facial points of the other reader do not count: they are not where such a model is taught to look.
    """
    elsewhere = numbers(options.other_reader) if options.other_reader else ()
    squares = {name: [] for name in NAMES}
    for fold, rows in by_fold.items():
        metrics = json.loads((options.work / f"fold-{fold}/model/metrics.json").read_text())
        for name, found in squares.items():
            scaled = metrics.get(f"val_{name}_sigma_ratio") or 1.0
            for row in rows:
                if name == "facial" and int(row["record_id"]) in elsewhere:
                    continue
                for p in row["landmarks"]:
                    if p["name"] in NAMES[name] and p["true_x"] is not None:
                        error = np.hypot(p["x"] - p["true_x"], p["y"] - p["true_y"])
                        found.append((error / (p["sigma"] / scaled)) ** 2)
    ratios = {name: float(np.sqrt(np.quantile(found, 0.95) / (-2 * np.log(0.05)))) for name, found in squares.items()}
    return {"sigma_ratio": ratios, "fitted_on": f"{sum(map(len, by_fold.values()))} heads, predicted out of fold"}


def agreement(source, rows):
    """Share of equal stages, and kappa with linear and quadratic weights."""
    with (source / "stage_by_model.csv").open() as file:
        given = {line[0].split(".")[0]: int(line[1]) for line in list(csv.reader(file))[1:]}
    pairs = [
        (given[r["record_id"]], int(r["cvm_stage"][-1])) for r in rows if r["record_id"] in given and r["cvm_stage"]
    ]
    theirs, ours = zip(*pairs, strict=True)
    kappas = [round(cohen_kappa_score(theirs, ours, weights=weights), 3) for weights in ("linear", "quadratic")]
    return {"n": len(pairs), "equal": round(float(np.mean(np.equal(theirs, ours))), 3), "kappas": kappas}


if __name__ == "__main__":
    main()
