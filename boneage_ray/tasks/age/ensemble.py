"""The answers of several age models as one: the mean of their ages, and how far they lie apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from boneage_ray.anatomy.growth import SCHEMES, SchemeName, stage_of
from boneage_ray.models.config import ModelSettings
from boneage_ray.preparation.geometry import Floats
from boneage_ray.tasks.task import Columns

MONTH_DIGITS = 3  # of the months that are stored, as for a single model


def stage_heads(model: ModelSettings) -> tuple[SchemeName, ...]:
    """The stage schemes that a model has a classifier for."""
    return tuple(getattr(model, "stage_heads", ()))


def voted_schemes(models: Sequence[ModelSettings]) -> tuple[SchemeName, ...]:
    """The stage schemes that every one of several models has a classifier for."""
    return tuple(name for name in SCHEMES if all(name in stage_heads(model) for model in models))


def combine_ages(
    names: Sequence[str],
    answers: Sequence[Columns],
    voted: Sequence[SchemeName],
    correct: Callable[[Floats], Floats] = np.asarray,
) -> Columns:
    """The columns of all members as one.

    age_months: their mean, as `correct` changes it. age_spread_months: their sample standard deviation. stages: for a scheme in
    `voted` (every member has a head for it) the class with most votes, of equals the one nearest to the class of age_months, then
    the younger; for any other scheme the class that age_months falls in.
    """
    ages_MB = np.array([answer["age_months"] for answer in answers], np.float64)
    with np.errstate(invalid="ignore"):  # an infinite age makes no score, see rows.py
        means, spreads = ages_MB.mean(axis=0), ages_MB.std(axis=0, ddof=1)
    months = [round(float(mean), MONTH_DIGITS) for mean in correct(means)]
    return {
        "age_months": months,
        "age_spread_months": [round(float(spread), MONTH_DIGITS) for spread in spreads],
        "age_parts": [dict(zip(names, case, strict=True)) for case in ages_MB.T.tolist()],
        "stages": [
            {name: _stage([a["stages"][k][name] for a in answers], age, name, name in voted) for name in SCHEMES}
            for k, age in enumerate(months)
        ],
    }


def _stage(votes: Sequence[str], age_months: float, scheme: SchemeName, voted: bool) -> str:
    if not voted:
        return stage_of(age_months, scheme)
    classes, at = SCHEMES[scheme].classes, SCHEMES[scheme].index(age_months)
    counts = Counter(votes)
    leading = [name for name in classes if counts[name] == max(counts.values())]
    return min(leading, key=lambda name: abs(classes.index(name) - at))
