"""The evaluation job: bundles + prepared shards -> predictions, metrics, figures and a page.

Members of an ensemble may want different images of the same radiographs; then the same split is read from several prepared
data side by side, row by row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from boneage_ray.datasets.load import PreparedData
from boneage_ray.datasets.plan import Slice, ordered_slices, rows_between
from boneage_ray.datasets.read import read_slice
from boneage_ray.evaluation.costs import metered, sum_of_costs
from boneage_ray.evaluation.match import labels_of
from boneage_ray.evaluation.split_job import SplitJob, pixels_of, predict_parts
from boneage_ray.prediction import ensemble, members
from boneage_ray.prediction.members import Models
from boneage_ray.preparation.split import Split
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.tasks.age.findings.analysis import Predictions

# Cases of a split, evenly spaced, whose features are kept for the map of the page.
MAPPED = 2000

AGE_PREDICTIONS = pa.schema(
    [
        ("record_id", pa.string()),
        ("input_uri", pa.string()),
        ("sex", pa.string()),
        ("true_months", pa.float64()),
        ("predicted_months", pa.float64()),
        ("stages", pa.map_(pa.string(), pa.string())),
        ("spread_months", pa.float64()),
        ("parts", pa.map_(pa.string(), pa.float64())),
        ("low_months", pa.float64()),
        ("high_months", pa.float64()),
        ("interval_coverage", pa.float64()),
        ("source", pa.string()),
    ]
)


def predict_ages(
    models: Models, datasets: Sequence[PreparedData], split: Split, compute: RunDevice, coverage: float | None = None
) -> list[dict[str, Any]]:
    """Predictions for every labelled record of a split, in the order of its shards; `datasets` as `match_data` gives them.

    `coverage`: of the intervals, if another than that of the bundle's calibration.
    """
    job = SplitJob([member.uri for member in models.members], models.sha256, datasets[0].rows(split), compute)
    return predict_parts(job, _work(datasets, split), AgeWorker, coverage=coverage)


def _work(datasets: Sequence[PreparedData], split: Split) -> list[dict[str, Any]]:
    """A row for every shard of the first data: its slice, and the slices with the same records in the others.

    `at`: how many records lie in the shards before it; `every`: of so many records one keeps its features.
    """
    shards = [prepared.shards(split) for prepared in datasets]
    every = -(-datasets[0].rows(split) // MAPPED)
    work: list[dict[str, Any]] = []
    at = 0
    for part in ordered_slices(shards[0], 0, 1):
        rows = part.stop - part.start
        slices = [[asdict(piece) for piece in rows_between(each, at, at + rows)] for each in shards]
        work.append({"slices": slices, "at": at, "every": every})
        at += rows
    return work


class AgeWorker:
    """Predicts the records of one shard."""

    def __init__(
        self, models: list[str], sha256: str, threads: int, compute: RunDevice, coverage: float | None = None
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        found = members.resolve(models, sha256)
        scorer = ensemble.load_predictor(found, compute.device, auto=compute.auto, coverage=coverage)
        ensemble.tell_features(scorer)
        self.predictor, self.meters = metered(scorer)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The predictions of the shard's labelled records, each with its place, and with `features` if it is for the map."""
        tables = [pa.concat_tables([read_slice(Slice(**part)) for part in parts]) for parts in row["slices"]]
        sides = [_labelled(table) for table in tables]
        given = {ensemble.image_column(number): [pixels_of(r) for r in side] for number, side in enumerate(sides)}
        rows, piece = sides[0], row["slices"][0][0]
        places = [{"uri": piece["uri"], "row": piece["start"] + record["number"]} for record in rows]
        chosen = [(row["at"] + record["number"]) % row["every"] == 0 for record in rows]
        columns = self.predictor(given | {"sex": [row["sex"] for row in rows]}) if rows else {}
        nothing = [None] * len(rows)
        asked = ("age_spread_months", "age_parts", "age_low_months", "age_high_months", "interval_coverage", "likeness")
        spreads, parts, lows, highs, levels, likeness = (columns.get(name, nothing) for name in asked)
        features = columns.get("features", nothing)
        predictions = [
            {
                "record_id": row["record_id"],
                "input_uri": row["input_uri"],
                "sex": row["sex"],
                "true_months": row["age_months"],
                "predicted_months": columns["age_months"][k],
                "stages": columns["stages"][k],
                "spread_months": spreads[k],
                "parts": parts[k],
                "low_months": lows[k],
                "high_months": highs[k],
                "interval_coverage": levels[k],
                "source": row["source"],
                "likeness": likeness[k],
                "place": place,
                "features": [round(float(x), 5) for x in features[k]] if mapped and features[k] is not None else None,
            }
            for k, (row, place, mapped) in enumerate(zip(rows, places, chosen, strict=True))
        ]
        if predictions:  # what the models cost on this shard travels with its first case
            predictions[0]["costs"] = [meter.last for meter in self.meters]
        return {"number": row["number"], "rows": predictions}


def _labelled(table: pa.Table) -> list[dict[str, Any]]:
    """The records of a table whose age is known, each with its number in the table."""
    records = [record | {"number": number} for number, record in enumerate(table.to_pylist())]
    return [record for record in records if record["age_months"] is not None]


def as_age_predictions(rows: list[dict[str, Any]], direct: Iterable[str]) -> Predictions:
    """Rows as the columns that analysis.py reads."""
    levels = [row["interval_coverage"] for row in rows if row["interval_coverage"] is not None]
    return Predictions(
        record_id=[row["record_id"] for row in rows],
        input_uri=[row["input_uri"] for row in rows],
        sex=[row["sex"] for row in rows],
        true_months=[row["true_months"] for row in rows],
        predicted_months=[row["predicted_months"] for row in rows],
        stages=[row["stages"] for row in rows],
        direct=tuple(direct),
        parts=_parts(rows),
        spread_months=None if any(row["spread_months"] is None for row in rows) else [r["spread_months"] for r in rows],
        bounds=[bounds_of(row) for row in rows] if levels else None,
        level=next(iter(levels), None),
        source=[row["source"] for row in rows],
    )


def costs_of(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each model cost over all shards (evaluation/costs.py)."""
    return sum_of_costs(cost for row in rows for cost in row.get("costs", ()))


def bounds_of(row: dict[str, Any]) -> tuple[float, float] | None:
    """The interval of a case in months, if it has one."""
    return None if row["low_months"] is None else (row["low_months"], row["high_months"])


def _parts(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Part name -> its ages, for the parts that every case has."""
    names = list(rows[0]["parts"] or ()) if rows else []
    return {name: [row["parts"][name] for row in rows] for name in names}


def median_age(prepared: PreparedData) -> float | None:
    """The median label of the training split, in months: what always guessing would answer; None for data without one."""
    ages = [age for _, age in labels_of(prepared, "train") if age is not None]
    return float(np.median(ages)) if ages else None
