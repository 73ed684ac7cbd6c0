"""How well the gate by pixels tells the cases of a split from pictures of other things: its ROC, for models that have a gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.errors import InputProblem
from boneage_ray.evaluation.figures import roc_curve
from boneage_ray.evaluation.page import PagePicture, PageTable, Section, percent, shown
from boneage_ray.evaluation.roc import area_under_roc, roc_points
from boneage_ray.phantoms.no_hand import pictures_without_hand
from boneage_ray.preparation.prepare import ImageConfig, PreparedImage, prepare_radiograph
from boneage_ray.records.schema import Row
from boneage_ray.tasks.age.findings.coverage import wilson_interval

if TYPE_CHECKING:
    from boneage_ray.prediction.predictor import Predictor

TITLE = "The gate by pixels"
EACH, FEWEST = 6, 20
# Far from any seed that a gate was fitted with.
_SEED = 70_000


def gate_figures(predictor: Predictor, rows: Sequence[Row]) -> dict[str, Any] | None:
    """Of `rows` of `predict_ages` and of pictures drawn anew: how many are rejected, and the ROC; None without a gate.

    `kinds`: name, pictures drawn, those that the checks before the gate reject, those that reach it, and those that it rejects.
    With fewer than `FEWEST` cases there is no ROC and no kind.
    """
    likeness_N = np.array([row["likeness"] for row in rows if row["likeness"] is not None], np.float64)
    if predictor.gate is None or not len(likeness_N):
        return None
    found: dict[str, Any] = {"n": len(likeness_N), "rejected": int((likeness_N < 0).sum()), "kinds": [], "roc": []}
    if len(likeness_N) < FEWEST:
        return found
    others = []
    for name, pictures in drawn(predictor.recipe.image).items():
        images = [picture.pixels for picture in pictures if picture is not None]
        values = predictor({"image": images, "sex": [None] * len(images)})["likeness"] if images else []
        others += values
        kind = {"name": name, "drawn": len(pictures), "before": len(pictures) - len(images), "n": len(images)}
        found["kinds"].append(kind | {"rejected": sum(value < 0 for value in values)})
    other_M = np.array(others, np.float64)
    found |= {"others": len(other_M), "others_rejected": int((other_M < 0).sum())}
    if len(other_M):
        points = [[round(lost, 5), round(caught, 5)] for lost, caught in roc_points(likeness_N, other_M)]
        found |= {"roc": points, "auc": round(area_under_roc(likeness_N, other_M), 5)}
    return found


def drawn(image: ImageConfig) -> dict[str, list[PreparedImage | None]]:
    """Kind -> pictures that show no hand, prepared for the model; None for one that the checks before the gate reject."""
    found = pictures_without_hand(range(_SEED, _SEED + EACH))
    return {name: [_prepared(Radiograph(pixels), image) for pixels in pictures] for name, pictures in found.items()}


def _prepared(radiograph: Radiograph, image: ImageConfig) -> PreparedImage | None:
    try:
        return prepare_radiograph(radiograph, image.model_copy(update={"mask": "none"}))
    except InputProblem:
        return None


def gate_section(found: Mapping[str, Any], command: str) -> Section:
    """The part of the page: `found` of `gate_figures`."""
    low, high = wilson_interval(found["rejected"], found["n"])
    text = [
        f"The gate by pixels of the first model would reject {found['rejected']} of the {found['n']} cases of this split as "
        f"unlike those that it learnt from ({percent(found['rejected'], found['n'])}, 95 % interval {percent(low)} to "
        f"{percent(high)})."
    ]
    if not found["roc"]:
        short = (
            f"Not enough cases for its ROC ({found['n']} of {FEWEST})."
            if found["n"] < FEWEST
            else "No other picture reached it."
        )
        return Section(TITLE, [*text, short], command=command)
    text.append(
        "The other pictures are drawn for this page: none is a radiograph, so they say how the gate treats what is plainly no "
        "hand, not how it treats other body parts."
    )
    rows = [
        [kind["name"], str(kind["drawn"]), str(kind["before"]), f"{kind['rejected']} of {kind['n']}"]
        for kind in found["kinds"]
    ]
    at = (found["rejected"] / found["n"], found["others_rejected"] / found["others"])
    picture = PagePicture(
        roc_curve([(x, y) for x, y in found["roc"]], at, ("cases of this split rejected", "other pictures rejected")),
        f"ROC of the gate by pixels, area {found['auc']:.4f}",
        f"Area under the curve {shown(found['auc'], 4)}: how often a case looks more like a hand than another picture.",
    )
    header = ["pictures without a hand", "drawn", "rejected by earlier checks", "rejected by the gate"]
    return Section(TITLE, text, [PageTable(header, rows)], [picture], command)
