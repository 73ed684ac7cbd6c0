"""Predictions whose figures are known, for the tests of this folder."""

import numpy as np

from boneage_ray.anatomy.growth import stage_of
from boneage_ray.tasks.age.findings.analysis import Predictions


def predictions(true, predicted, sex=None, stages=None, direct=()):
    """Predictions with names 0, 1, 2 ...; stages from the predicted age unless given."""
    ids = [str(k) for k in range(len(true))]
    by_age = [{scheme: stage_of(age, scheme) for scheme in ("three", "four")} for age in predicted]
    return Predictions(
        record_id=ids,
        input_uri=[f"s3://hands/{k}.png" for k in ids],
        sex=sex or ["F", "M"] * (len(true) // 2) + ["F"] * (len(true) % 2),
        true_months=list(true),
        predicted_months=list(predicted),
        stages=stages or by_age,
        direct=direct,
    )


def many(n, spread=8.0, seed=0):
    """Seeded cases from 4 to 228 months with normal errors; every twentieth sex is unknown."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(4, 228, n).round()
    sex = [None if k % 20 == 0 else "FM"[k % 2] for k in range(n)]
    return predictions(true.tolist(), (true + rng.normal(0, spread, n)).tolist(), sex)
