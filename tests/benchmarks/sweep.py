"""A recipe tuned by `boneage train --sweep`: `python tests/benchmarks/sweep.py HANDS --work DIR [--side 96] [--trials 16]
[--epochs 12] [--seeds 3]`.

HANDS as in hands.py. Of its five parts two are to learn from, one chooses, one is tested, one is left out: these figures choose
nothing that is reported elsewhere. Afterwards the recipe as it is and the best trial's settings are trained with as many seeds
each, and tested on the part that chose nothing. What is done is not done again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from common import boneage, machine
from hands import folds_of, groups_of
from pretraining import RECIPE, errors, prepared, sets

from boneage_ray.evaluation.bootstrap import bootstrap_interval

SPLITS = {0: "train", 1: "train", 2: "val", 3: "test"}
FILE = """
trials = {trials}
grace_epochs = 3
[settings]
"stage.lr" = {{ low = 3e-4, high = 4e-3, log = true }}
"stage.weight_decay" = {{ low = 3e-3, high = 0.2, log = true }}
"stage.ema" = [0.95, 0.98, 0.99]
"model.dropout" = [0.0, 0.2, 0.4]
"augment.zoom" = {{ low = 0.05, high = 0.3 }}
"augment.rotation_deg" = [10, 20, 30]
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    side = f"image.size={options.side}"
    folds = folds_of(groups_of(options.source))
    splits = {stem: SPLITS[fold] for stem, fold in folds.items() if fold in SPLITS}
    data, _ = prepared(options.work, "sweep", options.source, splits, side)
    first = [side, f"stage.epochs={options.epochs}"]
    out, asked = options.work / "sweep", options.work / "sweep.toml"
    if not (out / "sweep.json").exists():
        asked.write_text(FILE.format(trials=options.trials))
        boneage("train", "--recipe", RECIPE, "--data", data, "--sweep", asked, "--out", out, "--resume", *sets(first))
    trials = json.loads((out / "sweep.json").read_text())["trials"]
    print(f"{machine()}; {options.side} px, {options.epochs} epochs; trials, the best first:", flush=True)
    for trial in trials:
        print(json.dumps({key: trial[key] for key in ("number", "status", "epochs", "best", "settings")}), flush=True)
    best = [*first, *(f"{key}={value}" for key, value in trials[0]["settings"].items())]
    tested = {}
    for name, settings in (("default", first), ("best", best)):
        tested[name] = np.mean(
            [errors(options.work / f"{name}-{k}", data, [*settings, f"seed={k}"]) for k in range(options.seeds)], axis=0
        )
    chance = np.random.default_rng(0)
    for name, values in [*tested.items(), ("best - default", tested["best"] - tested["default"])]:
        low, high = bootstrap_interval(values, chance)
        print(f"{name}: {values.mean():.2f} months ({low:.2f} to {high:.2f}), n {len(values)}", flush=True)


if __name__ == "__main__":
    main()
