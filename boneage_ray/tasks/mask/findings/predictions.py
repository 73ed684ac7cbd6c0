"""Evaluation of a hand-mask bundle: Dice and IoU of every image that has a mask, and overlays for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from boneage_ray import storage
from boneage_ray.datasets.load import PreparedData
from boneage_ray.datasets.plan import Slice, ordered_slices
from boneage_ray.datasets.read import read_slice
from boneage_ray.errors import NoUsableInputError
from boneage_ray.evaluation.bootstrap import bootstrap_interval
from boneage_ray.evaluation.split_job import SplitJob, pixels_of, predict_parts, write_table
from boneage_ray.prediction import ensemble, members
from boneage_ray.preparation.split import Split
from boneage_ray.records.schema import Row
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.tasks.mask.findings.overlay import overlay_png
from boneage_ray.tasks.mask.task import overlap

MASK_PREDICTIONS = pa.schema(
    [
        ("record_id", pa.string()),
        ("input_uri", pa.string()),
        ("dice", pa.float64()),
        ("iou", pa.float64()),
        ("true_part", pa.float64()),
        ("predicted_part", pa.float64()),
    ]
)
PERCENTILES = (1, 5, 25, 50, 75)
SHOWN = 6


@dataclass(frozen=True)
class MaskModel:
    """Which bundle predicts, where overlays go, and on what device."""

    uri: str
    sha256: str
    out: str
    compute: RunDevice


def predict_masks(model: MaskModel, prepared: PreparedData, split: Split) -> list[Row]:
    """A row for every record of a split that has a mask, in order: the columns of MASK_PREDICTIONS, and where its overlay is."""
    job = SplitJob([model.uri], model.sha256, prepared.rows(split), model.compute)
    work = [{"slice": asdict(part)} for part in ordered_slices(prepared.shards(split), 0, 1)]
    rows = predict_parts(job, work, MaskWorker, out=model.out)
    if not rows:
        raise NoUsableInputError(
            f"no record of the {split} split of {prepared.uri} has a mask; prepare it with masks, or --set image.mask=hand"
        )
    return rows


class MaskWorker:
    """Predicts the masks of one shard, and writes an overlay of each to a file of its own part."""

    def __init__(self, models: list[str], sha256: str, out: str, threads: int, compute: RunDevice) -> None:
        import torch

        torch.set_num_threads(threads)
        self.predictor = ensemble.load_predictor(members.resolve(models, sha256), compute.device, auto=compute.auto)
        self.out = out

    def __call__(self, row: Row) -> Row:
        """The rows of the shard's records that have a mask."""
        records = [r for r in read_slice(Slice(**row["slice"])).to_pylist() if r.get("mask") is not None]
        size = self.predictor.batch_size
        found = [
            compared
            for at in range(0, len(records), size)
            for compared in self._batch(records[at : at + size], row["number"])
        ]
        overlays = pa.table(
            {"record_id": [r["record_id"] for r in found], "overlay": [r.pop("overlay") for r in found]}
        )
        write_table(storage.join(self.out, _overlay_file(row["number"])), overlays)
        return {"number": row["number"], "rows": found}

    def _batch(self, records: Sequence[Row], number: int) -> list[Row]:
        images = [pixels_of(r, "image") for r in records]
        predicted = self.predictor({"image": images, "sex": [r["sex"] for r in records]})["mask"]
        return [_compared(*case) | {"part": number} for case in zip(records, images, predicted, strict=True)]


def overlays_of(out: str, rows: Sequence[Row]) -> dict[str, bytes]:
    """Record id -> PNG, of the rows given."""
    wanted = {row["record_id"] for row in rows}
    found: dict[str, bytes] = {}
    for number in sorted({row["part"] for row in rows}):
        with storage.open_read(storage.join(out, _overlay_file(number))) as file:
            table = pq.read_table(file)
        pairs = zip(table["record_id"].to_pylist(), table["overlay"].to_pylist(), strict=True)
        found |= {name: data for name, data in pairs if name in wanted}
    return found


def _overlay_file(number: int) -> str:
    return f"overlays/part-{number:05d}.parquet"


def _compared(record: Row, image: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> Row:
    true = pixels_of(record, "mask")
    dice, iou = overlap(predicted, true)
    return {
        "record_id": record["record_id"],
        "input_uri": record["input_uri"],
        "dice": dice,
        "iou": iou,
        "true_part": cv2.countNonZero(true) / true.size,
        "predicted_part": cv2.countNonZero(predicted) / predicted.size,
        "overlay": overlay_png(image, predicted, true),
    }


def analyse_masks(rows: Sequence[Row], seed: int = 0) -> dict[str, Any]:
    """Figures over a split, each of an image: mean with 95 % bootstrap interval, least, percentiles; and the worst cases."""
    found: dict[str, Any] = {"n": len(rows)}
    for name in ("dice", "iou"):
        values = np.array([row[name] for row in rows])
        found[f"{name}_mean"] = float(values.mean())
        found[f"{name}_mean_interval"] = bootstrap_interval(values, np.random.default_rng(seed))
        found[f"{name}_min"] = float(values.min())
        found[f"{name}_percentiles"] = {str(p): float(np.percentile(values, p)) for p in PERCENTILES}
    shown = ("record_id", "input_uri", "dice", "iou", "true_part", "predicted_part")
    found["worst"] = [{name: row[name] for name in shown} for row in in_order(rows)[: 2 * SHOWN]]
    return found


def in_order(rows: Sequence[Row]) -> list[Row]:
    """The rows from the worst to the best Dice."""
    return sorted(rows, key=lambda row: (row["dice"], row["record_id"]))


def shown_groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows whose overlays the page shows: worst, middle and best."""
    ordered = in_order(rows)
    middle = max(0, (len(ordered) - SHOWN) // 2)
    return {"Worst": ordered[:SHOWN], "Middle": ordered[middle : middle + SHOWN], "Best": ordered[::-1][:SHOWN]}
