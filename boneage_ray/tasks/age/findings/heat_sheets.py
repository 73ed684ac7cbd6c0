"""Sheets of heat maps: where the predicted ages of the worst and of typical cases come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from boneage_ray.datasets.plan import Slice
from boneage_ray.datasets.read import read_slice
from boneage_ray.drawing import encode_jpeg, warmed
from boneage_ray.errors import UsageError
from boneage_ray.evaluation.page import PagePicture, Section
from boneage_ray.evaluation.split_job import pixels_of
from boneage_ray.records.schema import Row

if TYPE_CHECKING:
    from boneage_ray.prediction.predictor import Predictor

EACH = 12
SIDE = 256
WORST, TYPICAL = "Grad-CAM: the largest errors", "Grad-CAM: typical cases, youngest first"
_MEANING = (
    "Left the prepared image, right the same with a heat map: the brighter a place, the more it moves the age, up or down. "
    "It shows where the network looks, not whether it looks there for a good reason."
)


def chosen_cases(
    true_months: Sequence[float], errors: Sequence[float], each: int = EACH
) -> tuple[list[int], list[int]]:
    """Numbers of the cases of the largest errors, the largest first, and of typical ones of the others, the youngest first.

    The others are cut, in the order of their ages, into `each` groups of equal size; of each the case with the middle error.

    >>> chosen_cases([10, 20, 30, 40, 50], [9, 1, 2, 3, -8], 2)
    ([0, 4], [2, 3])
    """
    size = np.abs(np.asarray(errors, np.float64))
    worst = np.argsort(-size, kind="stable")[:each].tolist()
    others = np.array([k for k in np.argsort(true_months, kind="stable") if k not in set(worst)], int)
    groups = [group for group in np.array_split(others, each) if len(group)]
    return worst, [int(group[np.argsort(size[group], kind="stable")[len(group) // 2]]) for group in groups]


def heat_sections(predictor: Predictor, rows: Sequence[Row], note: str, command: str) -> list[Section]:
    """Both sheets, from `rows` of `predict_ages` and the model that saw these images; a section that says why there are none."""
    from boneage_ray.tasks.age.findings.grad_cam import grad_cams

    errors = [row["predicted_months"] - row["true_months"] for row in rows]
    worst, typical = chosen_cases([row["true_months"] for row in rows], errors)
    chosen = [rows[k] for k in (*worst, *typical)]
    images = [pixels_of(record_at(row)) for row in chosen]
    try:
        heats = grad_cams(predictor, images, [row["sex"] for row in chosen])
    except UsageError as error:
        return [Section("Grad-CAM", [f"{error}."])]
    pictures = [_picture(*case) for case in zip(chosen, images, heats, strict=True)]
    text = [_MEANING, *([note] if note else [])]
    sheets = ((WORST, pictures[: len(worst)]), (TYPICAL, pictures[len(worst) :]))
    return [Section(title, text, pictures=shown, command=command) for title, shown in sheets if shown]


def record_at(row: Row) -> Row:
    """The prepared record that a row of `predict_ages` is of."""
    place = row["place"]
    record: Row = read_slice(Slice(place["uri"], place["row"], place["row"] + 1)).to_pylist()[0]
    return record


def case_in_words(row: Row) -> str:
    """A row of `predict_ages` for a caption."""
    years, guess = row["true_months"] / 12, row["predicted_months"] / 12
    sex = {"F": "girl", "M": "boy"}.get(row["sex"], "sex unknown")
    error = (guess - years) * 12
    return f"{row['record_id']}: {sex}, true {years:.1f} years, predicted {guess:.1f} years ({error:+.1f} months)"


def _picture(row: Row, pixels: NDArray[np.uint8], heat: NDArray[np.float32]) -> PagePicture:
    said = case_in_words(row)
    return PagePicture(pair(pixels, heat), f"Heat map of {said}", said)


def within(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A gray image (H, W) whose longer side is `side`."""
    factor = side / max(pixels.shape)
    size = (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor))
    return np.asarray(
        cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC), np.uint8
    )


def pair(pixels: NDArray[np.uint8], heat: NDArray[np.float32]) -> bytes:
    """A prepared image (H, W) beside itself with a heat map in [0, 1] over it, as one JPEG."""
    gray = within(pixels, SIDE)
    warm = warmed(gray, np.asarray(cv2.resize(heat, gray.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32))
    return encode_jpeg(np.hstack([cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR), warm]))
