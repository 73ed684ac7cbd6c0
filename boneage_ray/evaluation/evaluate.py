"""The evaluation job: bundle + prepared shards -> predictions, metrics, figures and a page."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from boneage_ray import bundle, storage
from boneage_ray.cluster import choose_resources, run_parts
from boneage_ray.datasets.load import Prepared
from boneage_ray.datasets.plan import Slice, ordered_slices
from boneage_ray.datasets.read import read_slice
from boneage_ray.evaluation.analysis import Predictions
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.records.schema import to_table
from boneage_ray.records.split import Split
from boneage_ray.runs import Progress, say

PREDICTIONS = pa.schema(
    [
        ("record_id", pa.string()),
        ("input_uri", pa.string()),
        ("sex", pa.string()),
        ("true_months", pa.float64()),
        ("predicted_months", pa.float64()),
        ("stages", pa.map_(pa.string(), pa.string())),
    ]
)


def predict_split(model: str, prepared: Prepared, split: Split, gpu: bool = False) -> list[dict[str, Any]]:
    """Predictions for every labelled record of a split, in the order of its shards."""
    slices = ordered_slices(prepared.shards(split), 0, 1)
    resources = choose_resources(len(slices), gpu)
    say(f"evaluating {prepared.rows(split)} records in {len(slices)} parts: {resources.describe()}")
    arguments = {"model": model, "threads": resources.threads, "gpu": resources.gpus_per_actor > 0}
    found: dict[str, list[dict[str, Any]]] = {}
    with Progress("evaluate", prepared.rows(split)) as bar:
        rows = partial(iter, [asdict(part) for part in slices])
        for line in run_parts(rows, EvaluateWorker, arguments, resources):
            found[line["uri"]] = line["predictions"]
            bar.update(sum(map(len, found.values())))
    return [row for part in slices for row in found[part.uri]]


class EvaluateWorker:
    """Predicts the records of one shard."""

    def __init__(self, model: str, threads: int, gpu: bool) -> None:
        import torch

        torch.set_num_threads(threads)
        self.predictor = Predictor(bundle.load(model), "cuda" if gpu else "cpu")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The predictions of the shard's labelled records."""
        part = Slice(**row)
        rows = [row for row in read_slice(part).to_pylist() if row["age_months"] is not None]
        images = [np.frombuffer(r["image"], np.uint8).reshape(r["height"], r["width"]) for r in rows]
        columns = self.predictor({"image": images, "sex": [row["sex"] for row in rows]}) if rows else {}
        predictions = [
            {
                "record_id": row["record_id"],
                "input_uri": row["input_uri"],
                "sex": row["sex"],
                "true_months": row["age_months"],
                "predicted_months": columns["age_months"][k],
                "stages": columns["stages"][k],
            }
            for k, row in enumerate(rows)
        ]
        return {"uri": part.uri, "predictions": predictions}


def write_predictions(out: str, rows: list[dict[str, Any]]) -> None:
    """`OUT/predictions.parquet`, one row a record."""
    buffer = io.BytesIO()
    pq.write_table(to_table(rows, PREDICTIONS), buffer)
    storage.write_bytes(storage.join(out, "predictions.parquet"), buffer.getvalue())


def as_predictions(rows: list[dict[str, Any]], direct: Iterable[str]) -> Predictions:
    """Rows as the columns that evaluation/analysis.py reads."""
    return Predictions(
        record_id=[row["record_id"] for row in rows],
        input_uri=[row["input_uri"] for row in rows],
        sex=[row["sex"] for row in rows],
        true_months=[row["true_months"] for row in rows],
        predicted_months=[row["predicted_months"] for row in rows],
        stages=[row["stages"] for row in rows],
        direct=tuple(direct),
    )


def median_age(prepared: Prepared) -> float | None:
    """The median label of the training split, in months: what always guessing would answer."""
    ages: list[float] = []
    for shard in prepared.shards("train"):
        with storage.open_read(shard.uri) as file:
            ages += [
                age for age in pq.read_table(file, columns=["age_months"])["age_months"].to_pylist() if age is not None
            ]
    return float(np.median(ages)) if ages else None
