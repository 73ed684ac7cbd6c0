"""Prepared data without Ray or preparation: shards of chosen cases and their manifest."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from boneage_ray.datasets.load import PreparedData, open_prepared
from boneage_ray.records.schema import record_schema, to_table
from boneage_ray.storage import write_json


def record(name, image, sex, age_months):
    """A row as `prepare` would have written it, as far as training reads it."""
    empty = dict.fromkeys(record_schema().names)
    height, width = image.shape
    known = {"record_id": name, "image": image.tobytes(), "height": height, "width": width}
    return empty | known | {"sex": sex, "age_months": age_months, "flags": []}


def write_prepared(folder, splits, rows_per_shard=5) -> PreparedData:
    """`splits`: split -> records. Shards of `rows_per_shard`, so that the last one is short."""
    parts = {"train": [], "val": [], "test": []}
    for split, rows in splits.items():
        (folder / split).mkdir(parents=True)
        for number, start in enumerate(range(0, len(rows), rows_per_shard)):
            file = f"{split}/part-{number:05d}.parquet"
            some = rows[start : start + rows_per_shard]
            table: pa.Table = to_table(some, record_schema())
            pq.write_table(table, folder / file)
            parts[split].append({"file": file, "rows": len(some)})
    write_json(str(folder / "manifest.json"), {"image": {}, "fingerprint": "abc", "parts": parts})
    return open_prepared(str(folder))
