"""How the published ways of measuring a vertebral body change the stage: agreement on real annotations, and steadiness.

    python tests/benchmarks/cvm_alternatives.py FOLDER

FOLDER holds vertebral/*.json (labelme), images of 0.1 mm per pixel, and stage_by_model.csv (the stage that a published model
gave; not the truth). Columns: agreement with that model, linearly and quadratically weighted kappa, how many CS1 to CS6 come
out, how many are atypical; `steady`: the part of the stages that stay when every coordinate is off by 0.4 mm (a mean radial
error of 0.5 mm); `phantoms`: the part of phantoms with that error whose true stage is found.
"""

from __future__ import annotations

import csv
import itertools
import sys
from pathlib import Path

import numpy as np
from sklearn.metrics import cohen_kappa_score

from boneage_ray.anatomy.cvm import CvmConfig, measure
from boneage_ray.anatomy.cvm_rules import decide
from boneage_ray.archives.labelme import read_labelme
from boneage_ray.phantoms.spine_shape import build_spine

SPACING_MM, NOISE_MM, DRAWS = 0.1, 0.4, 200
WAYS = {
    "sides' means": ("mean", "mean"),
    "mid-lines": ("midline", "midline"),
    "base/anterior": ("inferior", "anterior"),
    "base/posterior": ("inferior", "posterior"),
    "superior/posterior": ("superior", "posterior"),
    "mean/anterior": ("mean", "anterior"),
    "mean/posterior": ("mean", "posterior"),
}


def annotations(folder):
    """Points (N, 13, 2) and the model's stages (N,)."""
    with (folder / "stage_by_model.csv").open() as file:
        told = {
            Path(row["image"]).stem: int(row["cvm_stage_predicted_by_published_model"]) for row in csv.DictReader(file)
        }
    files = [path for path in sorted((folder / "vertebral").glob("*.json")) if path.stem in told]
    points = np.array([read_labelme(path.read_bytes()) for path in files])
    return points, np.array([told[path.stem] for path in files])


def phantoms(count=25):
    made = itertools.product(range(count), range(1, 7))
    pairs = [(build_spine(np.random.default_rng(seed), stage, np.zeros(2)).points, stage) for seed, stage in made]
    return np.array([points for points, _ in pairs]) / SPACING_MM + 900, np.array([stage for _, stage in pairs])


def noisy(points):
    """(N, DRAWS, 13, 2)"""
    noise = np.random.default_rng(0).standard_normal((DRAWS, 13, 2)) * NOISE_MM / SPACING_MM
    return points[:, None] + noise


def share(measured, stages, config):
    """Part of the usable draws whose stage is the head's."""
    same = decide(measured, config).stages == stages[:, None]
    return same[measured.usable].mean()


def config(way, band=0.05, **changes):
    width, height = WAYS[way]
    return CvmConfig(width=width, height=height, square_low=1 - band, square_high=1 + band, **changes)


def alternatives():
    """(name, config)"""
    for tapered, way, band in itertools.product(("trapezoid", "ratio"), WAYS, (0.05, 0.10)):
        yield f"{way}, +-{band:.0%}, tapered: {tapered}", config(way, band, tapered=tapered)
    for way, tapered in (("sides' means", "trapezoid"), ("base/anterior", "ratio")):
        yield f"{way}, +-5%, tapered: {tapered}, cascade", config(way, tapered=tapered, cascade=True)
    yield "cvmt", CvmConfig(compat="cvmt")


def kappa(truth, stages):
    return [cohen_kappa_score(truth, stages, weights=weights, labels=range(7)) for weights in ("linear", "quadratic")]


def intervals(truth, given, rounds=400):
    """95 % intervals, by resampling heads, of agreement, quadratic kappa and their gains over the first of `given`."""
    rng = np.random.default_rng(0)
    picks = rng.integers(len(truth), size=(rounds, len(truth)))
    for name, stages in given.items():
        first = next(iter(given.values()))
        gains = [
            (
                (stages[p] == truth[p]).mean(),
                kappa(truth[p], stages[p])[1],
                (stages[p] == truth[p]).mean() - (first[p] == truth[p]).mean(),
                kappa(truth[p], stages[p])[1] - kappa(truth[p], first[p])[1],
            )
            for p in picks
        ]
        low, high = np.percentile(gains, [2.5, 97.5], axis=0)
        told = ("agreement", "kappa", "gain of agreement", "gain of kappa")
        print(name, *(f"{what} {a:.2f}..{b:.2f}" for what, a, b in zip(told, low, high, strict=True)), sep="; ")


def main(folder):
    points, truth = annotations(folder)
    made, made_truth = phantoms()
    spacings = {"mm": SPACING_MM, "free": None}
    given, shaken, made_shaken = (
        {mode: measure(draws, spacing) for mode, spacing in spacings.items()}
        for draws in (points, noisy(points), noisy(made))
    )
    print(f"{len(points)} annotations; the model's stages: {np.bincount(truth, minlength=7)[1:]}")
    print(f"{'':<56}{'':<6} agree  lin  quad  CS1..CS6{'':<12} atypical steady phantoms")
    for (name, chosen), mode in itertools.product(alternatives(), spacings):
        decided = decide(given[mode], chosen)
        stages = decided.stages
        linear, quadratic = kappa(truth, stages)
        row = f"{name:<56}{mode:<6} {(stages == truth).mean():5.2f} {linear:5.2f} {quadratic:5.2f}"
        counts = " ".join(f"{n:2d}" for n in np.bincount(stages, minlength=7)[1:])
        steady = share(shaken[mode], stages, chosen)
        found = share(made_shaken[mode], made_truth, chosen)
        print(f"{row}  {counts:<20} {(~decided.typical).sum():5d}    {steady:.3f}  {found:.3f}", flush=True)
    compared = {
        "plain (sides' means, trapezoids stay)": config("sides' means", tapered="trapezoid"),
        "sides' means by ratio": config("sides' means"),
        "default (base/anterior by ratio)": CvmConfig(),
        "default with cascade": CvmConfig(cascade=True),
    }
    for mode in spacings:
        print(f"95 % intervals, {mode}; gains over the first")
        intervals(truth, {name: decide(given[mode], chosen).stages for name, chosen in compared.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
