"""Evaluation of a cephalogram bundle: landmarks against the given ones, stages against those of the given points.

The stage of a given annotation is worked out by the same rules from the human's points: it is the best truth there is
without a table of stages, and says what the network's errors do to the stage, not whether the rules are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from boneage_ray.anatomy.cephalometry import LANDMARKS, VERTEBRAL
from boneage_ray.datasets.load import PreparedData
from boneage_ray.datasets.plan import Slice, ordered_slices
from boneage_ray.datasets.read import read_slice
from boneage_ray.errors import NoUsableInputError
from boneage_ray.evaluation.split_job import SplitJob, pixels_of, predict_parts
from boneage_ray.prediction import ensemble, members
from boneage_ray.prediction.members import Models
from boneage_ray.preparation.geometry import Floats, given_points
from boneage_ray.preparation.split import Split
from boneage_ray.records.schema import Row
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.tasks.cephalogram.config import CephalogramTaskConfig
from boneage_ray.tasks.cephalogram.findings.analysis import LandmarkPredictions
from boneage_ray.tasks.cephalogram.findings.landmarks import confidence, points_in_original, staged

_POINT = pa.struct(
    [(name, pa.string() if name == "name" else pa.float64()) for name in ("name", "x", "y", "sigma", "confidence")]
    + [("true_x", pa.float64()), ("true_y", pa.float64())]
)
LANDMARK_PREDICTIONS = pa.schema(
    [
        ("record_id", pa.string()),
        ("input_uri", pa.string()),
        ("pixel_spacing_mm", pa.float64()),
        ("confidence", pa.float64()),
        ("landmarks", pa.list_(_POINT)),
        ("cvm_stage", pa.string()),
        ("cvm_typical", pa.bool_()),
        ("cvm_probabilities", pa.map_(pa.string(), pa.float64())),
        ("true_cvm_stage", pa.string()),
        ("part", pa.int32()),
        ("row", pa.int32()),
    ]
)


def predict_landmarks(models: Models, prepared: PreparedData, split: Split, compute: RunDevice) -> list[Row]:
    """A row (LANDMARK_PREDICTIONS) for every record of a split that has landmarks, in order. Points in pixels of the original."""
    job = SplitJob([m.uri for m in models.members], models.sha256, prepared.rows(split), compute)
    work = [{"slice": asdict(part)} for part in ordered_slices(prepared.shards(split), 0, 1)]
    rows = predict_parts(job, work, LandmarkWorker)
    if not rows:
        raise NoUsableInputError(
            f"no record of the {split} split of {prepared.uri} has landmarks; prepare it with vertebral/ or facial/"
        )
    return rows


class LandmarkWorker:
    """Predicts the landmarks of one shard."""

    def __init__(self, models: list[str], sha256: str, threads: int, compute: RunDevice) -> None:
        import torch

        torch.set_num_threads(threads)
        found = members.resolve(models, sha256)
        assert isinstance(found.recipe.task, CephalogramTaskConfig)
        self.config = found.recipe.task
        self.predictor = ensemble.load_predictor(found, compute.device, auto=compute.auto)

    def __call__(self, row: Row) -> Row:
        """The rows of the shard's records that have landmarks."""
        records = read_slice(Slice(**row["slice"])).to_pylist()
        chosen = [(k, r) for k, r in enumerate(records) if r["vertebral"] is not None or r["facial"] is not None]
        size, found = self.predictor.batch_size, []
        for at in range(0, len(chosen), size):
            batch = [record for _, record in chosen[at : at + size]]
            answer = self.predictor({"image": [pixels_of(r) for r in batch], "sex": [r["sex"] for r in batch]})
            for (k, record), points in zip(chosen[at : at + size], answer["points"], strict=True):
                found.append(_compared(record, points, self.config) | {"part": row["number"], "row": k})
        return {"number": row["number"], "rows": found}


def _compared(record: Row, points: np.ndarray[Any, Any], config: CephalogramTaskConfig) -> Row:
    points_K4 = points_in_original(points, record["to_original"])
    true_K2 = given_points(record["vertebral"], record["facial"])
    spacing = record["pixel_spacing_mm"]
    found_stage = staged(points_K4, spacing, config)
    known = np.column_stack([true_K2, np.zeros((len(LANDMARKS), 2))])
    true = staged(known, spacing, config) if np.isfinite(true_K2[: len(VERTEBRAL)]).all() else None
    return {
        "record_id": record["record_id"],
        "input_uri": record["input_uri"],
        "pixel_spacing_mm": spacing,
        "confidence": confidence(points_K4),
        "landmarks": [_point(*case) for case in zip(LANDMARKS, points_K4, true_K2, strict=True)],
        "cvm_stage": found_stage and found_stage.cvm_stage,
        "cvm_typical": found_stage and found_stage.cvm_typical,
        "cvm_probabilities": found_stage and found_stage.cvm_probabilities,
        "true_cvm_stage": true and true.cvm_stage,
    }


def _point(name: str, found_4: Floats, true_2: Floats) -> Row:
    values = zip(("x", "y", "sigma", "confidence", "true_x", "true_y"), (*found_4, *true_2), strict=True)
    return {"name": name, **{key: float(value) if np.isfinite(value) else None for key, value in values}}


def as_landmark_predictions(rows: Sequence[Row]) -> LandmarkPredictions:
    """Rows of `predict_landmarks` as arrays, for the figures."""

    def columns(*names: str) -> Floats:
        return np.array([[[point[name] for name in names] for point in row["landmarks"]] for row in rows], np.float64)

    return LandmarkPredictions(
        [row["record_id"] for row in rows],
        columns("x", "y", "sigma", "confidence"),
        columns("true_x", "true_y"),
        np.array([row["pixel_spacing_mm"] for row in rows], np.float64),
        [row["cvm_stage"] for row in rows],
        [row["true_cvm_stage"] for row in rows],
        [row["cvm_probabilities"] for row in rows],
    )
