"""Pictures for the page: cephalograms with their points (the best, the middle and the worst of a split), and heatmaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneage_ray import bundle
from boneage_ray.anatomy.cephalometry import SETS
from boneage_ray.datasets.load import PreparedData
from boneage_ray.datasets.plan import Slice
from boneage_ray.datasets.read import read_slice
from boneage_ray.evaluation.split_job import pixels_of
from boneage_ray.prediction.members import Models
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.preparation.geometry import to_prepared_pixels
from boneage_ray.preparation.split import Split
from boneage_ray.records.schema import Row
from boneage_ray.tasks.cephalogram.findings.heatmaps import heatmap_gallery
from boneage_ray.tasks.cephalogram.findings.overlay import Marked, landmark_png
from boneage_ray.tasks.cephalogram.findings.page import Sheets

EACH = 4


def sheets_of(analysis: Mapping[str, Any], prepared: PreparedData, split: Split, rows: Sequence[Row]) -> Sheets:
    """For each set of points, some images of each sheet, drawn on as they were prepared."""
    return {
        f"{title}, {name} points": [_drawn(prepared, split, by_id[r["record_id"]], name, r) for r in group]
        for name, found in analysis["sets"].items()
        for by_id in ({row["record_id"]: row for row in rows},)
        for title, group in chosen(found["images"]).items()
    }


def chosen(images: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """`EACH` of the best quarter, the middle half and the worst quarter; `images` from the largest error to the least."""
    quarter = max(1, len(images) // 4)
    middle = images[quarter : len(images) - quarter]
    start = max(0, (len(middle) - EACH) // 2)
    return {
        "Worst quarter": list(images[:quarter][:EACH]),
        "Middle half": list(middle[start : start + EACH]),
        "Best quarter": list(images[len(images) - quarter :][-EACH:]) if len(images) > quarter else [],
    }


def heatmaps_of(
    analysis: Mapping[str, Any], models: Models, prepared: PreparedData, split: Split, rows: Sequence[Row]
) -> list[tuple[bytes, str]]:
    """The heatmaps of the image with the middle error of the split, and of the one with the largest; by the first model."""
    found = next(iter(analysis["sets"].values()), None)
    if found is None:
        return []
    images = found["images"]
    by_id = {row["record_id"]: row for row in rows}
    predictor = Predictor(bundle.load(models.members[0].uri), "cpu")
    pictures = []
    for name in dict.fromkeys((images[len(images) // 2]["record_id"], images[0]["record_id"])):
        record = _record(prepared, split, by_id[name])
        points = _prepared_points(by_id[name], record)
        pictures.append((heatmap_gallery(predictor, pixels_of(record), points[:, 3:]), name))
    return pictures


def _record(prepared: PreparedData, split: Split, row: Row) -> Row:
    shard = prepared.shards(split)[row["part"]]
    (record,) = read_slice(Slice(shard.uri, row["row"], row["row"] + 1)).to_pylist()
    return dict(record)


def _prepared_points(row: Row, record: Row) -> NDArray[np.float64]:
    """(K, 5): x, y, sigma, true x, true y in pixels of the prepared image."""
    points = np.array([[p[key] for key in ("x", "y", "sigma", "true_x", "true_y")] for p in row["landmarks"]], float)
    for xy in (slice(0, 2), slice(3, 5)):
        points[:, xy] = to_prepared_pixels(points[:, xy], record["to_original"])
    points[:, 2] /= record["to_original"][0]
    return points


def _drawn(prepared: PreparedData, split: Split, row: Row, name: str, errors: Mapping[str, Any]) -> tuple[bytes, str]:
    record = _record(prepared, split, row)
    points = _prepared_points(row, record)
    hidden = np.ones(len(points), bool)
    hidden[SETS[name]] = False
    points[hidden] = np.nan
    stage = [f"{row['cvm_stage']}, from the given points {row['true_cvm_stage']}"] if row["cvm_stage"] else []
    marked = Marked(points[:, :3], points[:, 3:], lines=name == "vertebral")
    data = landmark_png(pixels_of(record), marked, side=420, neck=name == "vertebral")
    unit = "mm" if "mre_mm" in errors else "px"
    said = f"{row['record_id']}: {errors[f'mre_{unit}']:.2f} {unit}, worst point {errors[f'worst_{unit}']:.2f} {unit}"
    return data, "; ".join([said, *stage])
