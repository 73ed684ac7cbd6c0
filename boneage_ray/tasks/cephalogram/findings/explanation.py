"""A cephalogram with its landmarks, its measured lines, and how its stage came about."""

from __future__ import annotations

import numpy as np

from boneage_ray.anatomy import cvm
from boneage_ray.anatomy.cephalometry import LANDMARKS, VERTEBRAL
from boneage_ray.findings.explanation import SIDE, Explanation, original, with_place
from boneage_ray.preparation.prepare import ImageConfig
from boneage_ray.records.schema import Row
from boneage_ray.tasks.cephalogram.config import CephalogramTaskConfig
from boneage_ray.tasks.cephalogram.findings.overlay import Marked, landmark_png


def explain_landmarks(row: Row, data: bytes, image: ImageConfig, task: CephalogramTaskConfig) -> Explanation:
    """A scored row, and the file that it is of, to a picture and the trace of the stage."""
    places = {point["name"]: (point["x"], point["y"], point["sigma"]) for point in row["landmarks"]}
    points_K3 = np.array([places.get(name, (np.nan,) * 3) for name in LANDMARKS])
    vertebral_K2 = points_K3[: len(VERTEBRAL), :2]
    steps: tuple[cvm.TraceStep, ...] = ()
    if row["cvm_stage"] is not None:
        steps = cvm.stage(vertebral_K2, row["pixel_spacing_mm"], task.cvm).trace
    marked = Marked(points_K3, names=True, text=stage_words(row))
    pixels = original(data, image)
    lines = ["\t".join((step.name, step.value, step.threshold, step.decision)) for step in steps]
    png = with_place(landmark_png(pixels, marked, SIDE), pixels.shape, (1.0, 0.0, 0.0), pixels.shape, lines)
    return Explanation(row, png, tuple(map(str, steps)))


def stage_words(row: Row) -> list[str]:
    """The stage, how sure it is, and whether it is typical, in words for a picture."""
    if row["cvm_stage"] is None:
        return []
    chances: dict[str, float] = row["cvm_probabilities"] or {}
    sure = f" ({chances[row['cvm_stage']]:.0%})" if row["cvm_stage"] in chances else ""
    others = [f"{name} {share:.0%}" for name, share in chances.items() if name != row["cvm_stage"] and share >= 0.05]
    return [f"{row['cvm_stage']}{sure}{'' if row['cvm_typical'] else ', atypical'}", *others]
