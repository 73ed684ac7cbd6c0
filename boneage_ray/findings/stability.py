"""How far results move when a radiograph is turned, exposed or stored otherwise: a fixed number of cases of a split.

The changes (evaluation/changes.py) are made on the original file, where it can still be read and is the one that was prepared,
and it is then prepared and scored as any file; else on the prepared image, which has lost its resolution and gray depth.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from boneage_ray import storage
from boneage_ray.archives.archive import Input
from boneage_ray.archives.entry import split_entry
from boneage_ray.datasets.plan import Slice, rows_between
from boneage_ray.datasets.read import read_slice
from boneage_ray.decoding.decode import decode
from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.errors import BoneageError, InputProblem
from boneage_ray.evaluation.changes import STILL, Change, Gray, Matrix, suite
from boneage_ray.evaluation.split_job import SplitJob, pixels_of, predict_parts
from boneage_ray.preparation import enhance
from boneage_ray.preparation.prepare import ImageConfig, PreparedImage, prepare_radiograph
from boneage_ray.records.schema import Row
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.runtime.runs import say

if TYPE_CHECKING:
    from boneage_ray.findings.task_findings import EvaluationOrder
    from boneage_ray.prediction.rows import Loaded

CASES = 40
PERCENTILE = 95
UNCHANGED = "unchanged"


def measure_stability(order: EvaluationOrder) -> dict[str, Any]:
    """The suite over `CASES` cases of the order's split, evenly spaced in the order of its records; as `summarise` says."""
    shards = [prepared.shards(order.split) for prepared in order.datasets]
    at = chosen_rows(sum(shard.rows for shard in shards[0]))
    work: list[Row] = [
        {"slices": [[asdict(piece) for piece in rows_between(each, k, k + 1)] for each in shards]} for k in at
    ]
    models = order.models
    job = SplitJob([member.uri for member in models.members], models.sha256, len(at) * len(suite()), order.compute)
    say(f"stability: {len(at)} cases, each changed in {len(suite())} ways")
    return summarise(predict_parts(job, work, StabilityWorker))


def chosen_rows(count: int, cases: int = CASES) -> list[int]:
    """Numbers of the rows that the suite takes.

    >>> chosen_rows(9, 3), chosen_rows(2, 3)
    ([0, 4, 8], [0, 1])
    """
    return sorted({round(float(k)) for k in np.linspace(0, count - 1, min(count, cases))})


class StabilityWorker:
    """Scores one case as it is, and after each change."""

    def __init__(self, models: list[str], sha256: str, threads: int, compute: RunDevice) -> None:
        import torch

        from boneage_ray.findings.task_findings import findings_of
        from boneage_ray.prediction import ensemble, members

        torch.set_num_threads(threads)
        found = members.resolve(models, sha256)
        self.predictor = ensemble.load_predictor(found, compute.device, auto=compute.auto)
        self.images = found.scored_images()
        self.findings = findings_of(found.recipe)

    def __call__(self, row: Row) -> Row:
        """A row for each change: {record_id, group, change, original, reason, moved}."""
        from boneage_ray.prediction.rows import score_rows

        tables = [read_slice(Slice(**part)) for parts in row["slices"] for part in parts]
        records = [record for table in tables for record in table.to_pylist()]
        changes = suite()
        radiograph = original_of(records[0], self.images)
        loaded = list(_cases(records, radiograph, self.images, changes))
        before, *after = score_rows((case for case, _ in loaded), self.predictor, self.findings.adder())
        rows = []
        for change, (_, matrix), scored in zip(changes, loaded[1:], after, strict=True):
            told = {"record_id": records[0]["record_id"], "group": change.group, "change": change.name}
            told |= {"original": radiograph is not None, "reason": before["reason"] and UNCHANGED, "moved": None}
            if before["status"] == "scored":
                told["reason"] = scored["reason"]
                if scored["status"] == "scored":
                    back = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
                    told["moved"] = self.findings.moved(before, scored, back)
            rows.append(told)
        return {"number": row["number"], "rows": rows}


def original_of(record: Row, images: Sequence[ImageConfig]) -> Radiograph | None:
    """The decoded file of a prepared record; None where it is gone, another one, in an archive, or needs a mask's file."""
    uri = record["input_uri"]
    if not uri or split_entry(uri) or any(image.mask == "file" for image in images):
        return None
    try:
        data = storage.read_bytes(uri)
        if hashlib.sha256(data).hexdigest() != record["input_sha256"]:
            return None
        return decode(data, images[0].max_megapixels, images[0].voi)
    except (BoneageError, InputProblem):
        return None


def _cases(
    records: Sequence[Row], radiograph: Radiograph | None, images: Sequence[ImageConfig], changes: Sequence[Change]
) -> Iterator[tuple[Loaded, Matrix]]:
    """The case as it is, then after each change, ready to be scored; each with the matrix of the change."""
    from boneage_ray.prediction.rows import Loaded

    for change in (None, *changes):
        if radiograph is None:
            made = [_changed_prepared(pixels_of(record), change) for record in records]
            outcome: PreparedImage | InputProblem = made[0][0]
            others, matrix = tuple(prepared for prepared, _ in made[1:]), made[0][1]
            pixel = (records[0]["to_original"] or (1.0,))[0]
        else:
            outcome, others, matrix, pixel = *_changed_original(radiograph, images, change), 1.0
        yield Loaded(_item(records[0], pixel / _scale(matrix)), None, None, outcome, others), matrix


def _item(record: Row, pixel: float) -> Input:
    """The case of a record, its image's pixels `pixel` times as large as those of its file."""
    spacing = record["pixel_spacing_mm"]
    return Input(
        record["input_uri"] or "",
        record["record_id"],
        sex=record["sex"],
        sex_source=record["sex_source"] or "unknown",
        pixel_spacing_mm=spacing and spacing * pixel,
        pixel_spacing_source=record["pixel_spacing_source"],
    )


def _scale(matrix: Matrix) -> float:
    """How many pixels of the changed image lie along one of the unchanged one."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def _changed_original(
    radiograph: Radiograph, images: Sequence[ImageConfig], change: Change | None
) -> tuple[PreparedImage | InputProblem, tuple[PreparedImage, ...], Matrix]:
    """A decoded file after a change, prepared for each of the images or refused."""
    shown: Any = enhance.to_uint8(radiograph.pixels)
    matrix = STILL
    if change is not None:
        shown, matrix = change.make(shown)
    try:
        first, *others = [prepare_radiograph(replace(radiograph, pixels=shown), image) for image in images]
    except InputProblem as problem:
        return problem, (), matrix
    return first, tuple(others), matrix


def _changed_prepared(pixels: Gray, change: Change | None) -> tuple[PreparedImage, Matrix]:
    """A prepared image after a change, again a square of its size; points are in pixels of the changed image."""
    shown: Any = pixels
    matrix = STILL
    if change is not None:
        shown, matrix = change.make(pixels)
    shown = enhance.to_uint8(shown)
    to_original = (1.0, 0.0, 0.0)
    if shown.shape != pixels.shape:
        shown, to_original = enhance.square(shown, pixels.shape[0])
    height, width = pixels.shape
    return PreparedImage(shown, to_original, (height, width), "", (), Radiograph(shown)), matrix


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows of the worker to figures: counts, and for each change how far each measure moved.

    A change holds `n` (scored before and after), `refused` (reason -> cases scored before and no longer), and `moved`: measure ->
    mean, mean_abs, p95_abs, largest_abs. `not_scored`: cases that were not scored even unchanged, and count nowhere else.
    """
    cases = {row["record_id"]: row for row in rows}
    found: dict[str, Any] = {
        "cases": len(cases),
        "from_original": sum(row["original"] for row in cases.values()),
        "not_scored": sum(row["reason"] == UNCHANGED for row in cases.values()),
        "changes": [],
    }
    for group, name in dict.fromkeys((row["group"], row["change"]) for row in rows):
        these = [row for row in rows if row["change"] == name]
        moved = [row["moved"] for row in these if row["moved"] is not None]
        refused = Counter(row["reason"] for row in these if row["reason"] and row["reason"] != UNCHANGED)
        figures = {
            measure: _figures(moved, measure) for measure in dict.fromkeys(key for each in moved for key in each)
        }
        found["changes"].append(
            {"group": group, "change": name, "n": len(moved), "refused": dict(refused), "moved": figures}
        )
    return found


def _figures(moved: Sequence[Mapping[str, float]], measure: str) -> dict[str, float]:
    values = np.array([each[measure] for each in moved if measure in each], np.float64)
    size = np.abs(values)
    figures = {
        "mean": values.mean(),
        "mean_abs": size.mean(),
        "p95_abs": np.percentile(size, PERCENTILE),
        "largest_abs": size.max(),
    }
    return {name: round(float(value), 4) for name, value in figures.items()}
