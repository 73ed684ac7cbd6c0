"""Sheets of cephalograms with their points: the best quarter, the middle half and the worst quarter of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from boneage_ray.anatomy.cephalometry import SETS
from boneage_ray.datasets.load import Prepared
from boneage_ray.datasets.plan import Slice
from boneage_ray.datasets.read import read_slice
from boneage_ray.evaluation.landmark_report import Sheets
from boneage_ray.evaluation.split_job import Row, picture
from boneage_ray.prediction.landmark_overlay import Marked, landmark_png
from boneage_ray.records.geometry import to_prepared_pixels
from boneage_ray.records.split import Split

EACH = 4


def sheets_of(analysis: Mapping[str, Any], prepared: Prepared, split: Split, rows: Sequence[Row]) -> Sheets:
    """For each set of points, some images of each sheet, drawn on as they were prepared."""
    return {
        f"{title}, {name} points": [_drawn(prepared, split, by_id[r["record_id"]], name, r) for r in group]
        for name, found in analysis["sets"].items()
        if "images" in found
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


def _drawn(prepared: Prepared, split: Split, row: Row, name: str, judged: Mapping[str, Any]) -> tuple[bytes, str]:
    shard = prepared.shards(split)[row["part"]]
    (record,) = read_slice(Slice(shard.uri, row["row"], row["row"] + 1)).to_pylist()
    points = np.array([[p[key] for key in ("x", "y", "sigma", "true_x", "true_y")] for p in row["landmarks"]], float)
    for xy in (slice(0, 2), slice(3, 5)):
        points[:, xy] = to_prepared_pixels(points[:, xy], record["to_original"])
    points[:, 2] /= record["to_original"][0]
    hidden = np.ones(len(points), bool)
    hidden[SETS[name]] = False
    points[hidden] = np.nan
    stage = [f"{row['cvm_stage']}, from the given points {row['true_cvm_stage']}"] if row["cvm_stage"] else []
    marked = Marked(points[:, :3], points[:, 3:], lines=name == "vertebral")
    data = landmark_png(picture(record), marked, side=420, neck=name == "vertebral")
    said = f"{row['record_id']}: {judged['mre_mm']:.2f} mm, worst point {judged['worst_mm']:.2f} mm"
    return data, "; ".join([said, *stage])
