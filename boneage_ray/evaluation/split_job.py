"""What every evaluation does with a split: predict it in parts on the cluster, account for each record, write a table."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from boneage_ray import storage
from boneage_ray.errors import BoneageError
from boneage_ray.records.schema import Row, to_table
from boneage_ray.runtime import lease
from boneage_ray.runtime.cluster import run_parts
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.runtime.resources import choose_resources
from boneage_ray.runtime.runs import ProgressLine, say

Worker = Callable[..., Callable[[Row], Row]]


@dataclass(frozen=True)
class SplitJob:
    """Models (places, and the hash that they must have together) over `records` records, on one device in one precision."""

    models: Sequence[str]
    sha256: str
    records: int
    compute: RunDevice


def predict_parts(job: SplitJob, work: Sequence[Row], worker: Worker, **more: object) -> list[Row]:
    """The rows of all parts, in the order of `work`; `worker` answers a part with {"rows": [...]}."""
    resources = choose_resources(len(work), job.compute.device == "cuda")
    say(f"evaluating {job.records} records in {len(work)} parts: {resources.describe()}")
    arguments = {
        "models": list(job.models),
        "sha256": job.sha256,
        "threads": resources.threads,
        "compute": job.compute,
        **more,
    }
    found: dict[int, list[Row]] = {}
    numbered = [{"number": number, **row} for number, row in enumerate(work)]
    with ProgressLine("evaluate", job.records) as bar:
        for line in run_parts(partial(iter, numbered), worker, arguments, resources):
            found[line["number"]] = line["rows"]
            bar.update(sum(map(len, found.values())))
    if lost := len(work) - len(found):
        raise BoneageError(f"{lost} of {len(work)} parts were lost with their workers; give the command again")
    return [row for number in range(len(work)) for row in found[number]]


def left_out(records: int, rows: Sequence[Row], what: str) -> int:
    """How many records of a split have no `what` to compare with; reported if there are any."""
    missing = records - len(rows)
    if missing:
        say(f"{missing} of {records} records have no {what} and are left out of the figures")
    return missing


def pixels_of(record: Row, column: str = "image") -> NDArray[np.uint8]:
    """The (height, width) uint8 image or mask of a prepared record."""
    return np.frombuffer(record[column], np.uint8).reshape(record["height"], record["width"])


def write_table(uri: str, table: pa.Table) -> None:
    """A Parquet file in one step."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    storage.write_bytes(uri, buffer.getvalue())


def write_predictions(out: str, rows: Sequence[Row], schema: pa.Schema) -> None:
    """`OUT/predictions.parquet`, one row a record, with the columns of the schema; not into an OUT that was taken over."""
    lease.holding(out).check()
    kept = [{name: row[name] for name in schema.names} for row in rows]
    write_table(storage.join(out, "predictions.parquet"), to_table(kept, schema))
