"""What `boneage calibrate` gains, on made-up sites: `python tests/benchmarks/site_calibration.py out-of-fold.csv`.

The CSV is that of hands.py: ages of hands that the model has not seen. A site is a draw of some of them, their predictions
changed as a biased model's would be; its calibration is tried on all others. Means over 100 sites.
"""

from __future__ import annotations

import csv
import sys

import numpy as np
from common import machine

from boneage_ray.tasks.age.intervals import interval
from boneage_ray.tasks.age.site import SiteCases, fit_site, nested

SITES = 100
MODELS = {"as it is": (1.0, 0.0), "10 months too old": (1.0, 10.0), "1.1 x age - 6": (1.1, -6.0)}


def covered(true_N, bounds):
    """The share of true ages inside, and the mean width in months."""
    low_N, high_N = np.array([pair for pair in bounds if pair is not None]).T
    kept_N = np.array([true for true, pair in zip(true_N, bounds, strict=True) if pair is not None])
    return float(((low_N <= kept_N) & (kept_N <= high_N)).mean()), float((high_N - low_N).mean())


def one_site(cases, size, chance):
    """Figures of one draw: on the other cases, and what nested cross-validation said of them."""
    order = chance.permutation(len(cases.true_N))
    own, others = (cases.part(np.isin(np.arange(len(order)), part)) for part in (order[:size], order[size:]))
    site = fit_site(own)
    after_N = site.correction(others.predicted_N)
    bounds = [interval(site.groups, str(sex), float(age)) for sex, age in zip(others.sexes, after_N, strict=True)]
    said_N, said_bounds = nested(own)
    errors = [np.abs(ages - given.true_N).mean() for ages, given in ((others.predicted_N, others), (after_N, others))]
    return [
        *errors,
        np.abs(said_N - own.true_N).mean(),
        *covered(others.true_N, bounds),
        covered(own.true_N, said_bounds)[0],
    ]


def main():
    rows = list(csv.DictReader(open(sys.argv[1])))  # noqa: SIM115  read at once
    sexes = np.array([row["sex"] for row in rows])
    true_N, predicted_N = (np.array([float(row[name]) for row in rows]) for name in ("true_months", "predicted_months"))
    print(machine())
    print("model, cases: MAE before, after, as nested CV says; covered, width in months, covered as nested CV says")
    for name, (slope, shift) in MODELS.items():
        for size in (60, 120, 300):
            chance = np.random.default_rng(0)
            cases = SiteCases(sexes, true_N, slope * predicted_N + shift)
            before, after, said, share, width, told = np.mean(
                [one_site(cases, size, chance) for _ in range(SITES)], axis=0
            )
            print(f"{name}, {size}: {before:.2f}, {after:.2f}, {said:.2f}; {share:.1%}, {width:.1f}, {told:.1%}")


if __name__ == "__main__":
    main()
