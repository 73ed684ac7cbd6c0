"""The training cases that are most like the cases of the largest errors: what the network may have gone by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from boneage_ray import bundle
from boneage_ray.datasets.balance import pixel_marks
from boneage_ray.drawing import encode_jpeg
from boneage_ray.errors import UsageError
from boneage_ray.evaluation.page import PagePicture, Section
from boneage_ray.evaluation.split_job import pixels_of
from boneage_ray.findings.task_findings import EvaluationOrder
from boneage_ray.records.schema import Row
from boneage_ray.tasks.age.findings.heat_sheets import case_in_words, chosen_cases, record_at, within
from boneage_ray.tasks.age.findings.predictions import predict_ages

EACH, SIDE = 3, 200
TITLE = "Training cases like those of the largest errors"
_MEANING = (
    "Left the case, beside it the training cases that are nearest to it in the features of the network. Where their ages lie "
    "around the predicted one, it took the case for one of them; where the case looks as they do, its label may be wrong."
)


def check_similar(order: EvaluationOrder) -> None:
    """Raise `UsageError`, before anything is computed, unless the training split of the data is what the first model learnt from.

    A bundle that does not tell what it learnt from is believed.
    """
    first, data = order.models.members[0], order.datasets[0]
    if not data.rows("train"):
        raise UsageError(f"--similar: {data.uri} holds no training case; give the data that the model was trained with")
    marks, told = set(pixel_marks(data.shards("train"))) - {None}, bundle.learnt_marks(first.uri)
    if told is not None and not marks <= set(told):
        raise UsageError(
            f"--similar: {first.name} did not learn from {len(marks - set(told))} of the {len(marks)} training pictures "
            f"of {data.uri}; give the data that it was trained with"
        )


def similar_section(order: EvaluationOrder, rows: Sequence[Row], note: str) -> Section:
    """The cases of the largest errors, from `rows` of `predict_ages`, each beside its nearest training cases."""
    known = [row for row in predict_ages(order.models, order.datasets, "train", order.compute) if row["features"]]
    worst, _ = chosen_cases(
        [row["true_months"] for row in rows], [r["predicted_months"] - r["true_months"] for r in rows]
    )
    asked = [rows[k] for k in worst if rows[k]["features"]]
    if len(known) < EACH or not asked:
        return Section(TITLE, [f"Not enough training cases ({len(known)} of {EACH})."])
    near = nearest_cases([row["features"] for row in known], [row["features"] for row in asked])
    pictures = [_picture(row, [known[k] for k in numbers]) for row, numbers in zip(asked, near, strict=True)]
    return Section(TITLE, [_MEANING, *([note] if note else [])], pictures=pictures, command=order.command)


def nearest_cases(
    known_NF: Sequence[Sequence[float]], asked_QF: Sequence[Sequence[float]], each: int = EACH
) -> list[list[int]]:
    """For each of Q cases the numbers of the nearest of N known ones, the nearest first, over features in standard deviations.

    >>> nearest_cases([[0.0, 5.0], [1.0, 5.0], [9.0, 5.0]], [[0.9, 5.0]], 2)
    [[1, 0]]
    """
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(known_NF)
    neighbours = NearestNeighbors(n_neighbors=each).fit(scaler.transform(known_NF))
    found: list[list[int]] = neighbours.kneighbors(scaler.transform(asked_QF), return_distance=False).tolist()
    return found


def _picture(case: Row, like: Sequence[Row]) -> PagePicture:
    tiles = [_tile(pixels_of(record_at(row))) for row in (case, *like)]
    ages = ", ".join(f"{row['record_id']} ({row['true_months'] / 12:.1f} years)" for row in like)
    said = f"{case_in_words(case)}; nearest: {ages}"
    return PagePicture(
        encode_jpeg(np.hstack(tiles)), f"The case beside its nearest training cases. {said}", said, wide=True
    )


def _tile(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A gray image (H, W) within a square, with a black line to its right."""
    small = within(pixels, SIDE)
    tile = np.zeros((SIDE, SIDE + 4), np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small
    return tile
