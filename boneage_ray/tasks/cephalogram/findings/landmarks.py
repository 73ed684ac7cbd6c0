"""Landmarks in the geometry of the files that they were predicted for, and the cervical stage that follows from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boneage_ray.anatomy import cvm
from boneage_ray.anatomy.cephalometry import BODIES, LANDMARKS, VERTEBRAL
from boneage_ray.errors import InputProblem
from boneage_ray.prediction.rows import Add, Loaded, add_problem
from boneage_ray.preparation.geometry import Floats, ToOriginal, to_original_pixels
from boneage_ray.preparation.prepare import PreparedImage
from boneage_ray.records.schema import Row
from boneage_ray.tasks.cephalogram.config import CephalogramTaskConfig

NOT_MEASURABLE, LEVELS_MOVED = "cvm_not_measurable", "cvm_levels_moved"
PIXEL_DIGITS = 3  # of the pixels that are stored: whoever measures a row's points finds the row's stage


def landmark_adder(config: CephalogramTaskConfig) -> Add:
    """What a cephalogram's row says: landmarks, and stage, measurements and probabilities where the 13 points are there.

    An image whose points are less sure than `config.min_confidence` is rejected (out_of_distribution).
    """

    def add(row: Row, values: Row, case: Loaded) -> None:
        assert isinstance(case.outcome, PreparedImage)
        points_K4 = points_in_original(values["points"], case.outcome.to_original)
        sure = confidence(points_K4)
        if sure < config.min_confidence:
            add_problem(
                row,
                InputProblem(
                    "predict",
                    "out_of_distribution",
                    f"the landmarks are not recognised (confidence {sure:.3f}, {config.min_confidence:g} is needed): "
                    "is this a lateral cephalogram that shows the neck?",
                    "rejected",
                ),
            )
            return
        row |= {"status": "scored", "landmarks": named(points_K4)}
        if values["levels_moved"]:
            row["flags"] = [*row["flags"], LEVELS_MOVED]
        found = staged(points_K4, row["pixel_spacing_mm"], config)
        if found is None:
            return
        row |= found.columns()
        row["flags"] = [*row["flags"], *found.flags]
        if found.problem:
            row["flags"] = [*row["flags"], NOT_MEASURABLE]
            row["message"] = found.problem

    return add


def points_in_original(points_K4: NDArray[np.floating], to_original: ToOriginal) -> Floats:
    """(32, 4) x, y, sigma, confidence from pixels of the prepared image to pixels of the original."""
    moved = np.array(points_K4, np.float64)
    moved[:, :2] = to_original_pixels(moved[:, :2], to_original)
    moved[:, 2] *= to_original[0]
    moved[:, :3] = moved[:, :3].round(PIXEL_DIGITS)
    return moved


def confidence(points_K4: Floats) -> float:
    """Mean confidence of the points of the least sure vertebra, or of the facial points where there are no others."""
    bodies = [points_K4[body, 3] for body in BODIES.values()]
    known = [body for body in bodies if np.isfinite(body).all()] or [points_K4[len(VERTEBRAL) :, 3]]
    means = [float(values[np.isfinite(values)].mean()) for values in known if np.isfinite(values).any()]
    return min(means, default=0.0)


def named(points_K4: Floats) -> list[Row]:
    """The column `landmarks`: those that the model has found."""
    return [
        {"name": name, "x": float(x), "y": float(y), "sigma": float(sigma)}
        for name, (x, y, sigma, _) in zip(LANDMARKS, points_K4, strict=True)
        if np.isfinite([x, y, sigma]).all()
    ]


def staged(points_K4: Floats, spacing_mm: float | None, config: CephalogramTaskConfig) -> cvm.CvmResult | None:
    """Stage and measurements of one head; None where the model does not predict vertebral points."""
    vertebral = points_K4[: len(VERTEBRAL)]
    if np.isnan(vertebral[:, 3]).all():
        return None
    return cvm.assess_all(vertebral[None, :, :2], vertebral[None, :, 2], [spacing_mm], config.cvm)[0]


def landmarks_moved(before: Row, after: Row, back: Floats) -> dict[str, float]:
    """How far the points of two scored rows lie apart on average, of those that both have, and whether the stage is another.

    `back`: the (2, 3) matrix from pixels of the second row's image to those of the first. In mm where the first has a spacing;
    without a point in common there is no distance, without a stage before there is no other one.
    """
    first, second = ({each["name"]: (each["x"], each["y"]) for each in row["landmarks"]} for row in (before, after))
    found: dict[str, float] = {}
    if names := [name for name in first if name in second]:
        there = np.array([second[name] for name in names]) @ back[:, :2].T + back[:, 2]
        apart = float(np.linalg.norm(there - np.array([first[name] for name in names]), axis=1).mean())
        found["points_px"] = apart
        if before["pixel_spacing_mm"] is not None:
            found["points_mm"] = apart * before["pixel_spacing_mm"]
    if before["cvm_stage"] is not None:
        found["cvm_stage"] = float(after["cvm_stage"] != before["cvm_stage"])
    return found
