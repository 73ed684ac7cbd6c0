"""Several bundles that predict as one: the mean of their ages, and how far they lie apart.

With one member it is that member. Members may want different images of the same radiograph: `images` lists the distinct
configs, and the columns hold one image column for each (`image_column`). Lakshminarayanan et al., Simple and scalable
predictive uncertainty estimation using deep ensembles, 2017.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from boneage_ray import bundle
from boneage_ray.anatomy.growth import SCHEMES, SchemeName, stage_of
from boneage_ray.errors import MismatchError
from boneage_ray.prediction.members import Member, Models
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.tasks.task import Columns

DIGITS = 3  # of the months that are stored, as a single model's


class Scorer(Protocol):
    """What result rows are made with: a `Predictor`, or an `Ensemble` of several."""

    name: str
    sha256: str
    batch_size: int

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> Columns:
        """Columns in, columns out; at most `batch_size` cases at a time."""


def image_column(number: int) -> str:
    """Name of the column with the images of config `number` of `Models.images`.

    >>> image_column(0), image_column(1)
    ('image', 'image_1')
    """
    return f"image_{number}" if number else "image"


def load_predictor(models: Models, device: str | None = None) -> Scorer:
    """All members on a device. Raises `MismatchError` if one is not what it was when `models` were resolved."""
    predictors = [_predictor(member, device) for member in models.members]
    return Ensemble(models, predictors) if len(predictors) > 1 else predictors[0]


def _predictor(member: Member, device: str | None) -> Predictor:
    loaded = bundle.load(member.uri)
    if loaded.sha256 != member.sha256:
        raise MismatchError(f"{member.uri} was exchanged while it was in use; give the command again")
    return Predictor(loaded, device)


class Ensemble:
    """Two or more predictors, one for each member and in their order."""

    def __init__(self, models: Models, predictors: Sequence[Scorer]) -> None:
        self.name, self.sha256, self.voted = models.name, models.sha256, models.heads
        self.names = [member.name for member in models.members]
        self.columns = [image_column(models.images.index(member.recipe.image)) for member in models.members]
        self.predictors = list(predictors)
        self.batch_size = min(predictor.batch_size for predictor in self.predictors)

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> Columns:
        """age_months, age_spread_months, age_parts (member name -> months) and stages; see `combine`."""
        if not columns["sex"]:
            return {}
        answers = [
            predictor({"image": columns[name], "sex": columns["sex"]})
            for name, predictor in zip(self.columns, self.predictors, strict=True)
        ]
        return combine(self.names, answers, self.voted)


def combine(names: Sequence[str], answers: Sequence[Columns], voted: Sequence[SchemeName]) -> Columns:
    """The columns of all members as one.

    age_months: their mean. age_spread_months: their sample standard deviation. stages: for a scheme in `voted` (every member
    has a head for it) the class with most votes, of equals the one nearest to the class of the mean age, then the younger;
    for any other scheme the class that the mean age falls in.
    """
    ages_MB = np.array([answer["age_months"] for answer in answers], np.float64)
    with np.errstate(invalid="ignore"):  # an infinite age makes no score, see rows.py
        means, spreads = ages_MB.mean(axis=0), ages_MB.std(axis=0, ddof=1)
    months = [round(float(mean), DIGITS) for mean in means]
    return {
        "age_months": months,
        "age_spread_months": [round(float(spread), DIGITS) for spread in spreads],
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
