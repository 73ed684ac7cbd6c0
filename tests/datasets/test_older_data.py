"""Data of versions without masks."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boneage_ray.datasets.load import PreparedData
from boneage_ray.datasets.read import TRAINING_COLUMNS, read_rows
from boneage_ray.errors import MismatchError
from boneage_ray.preparation.prepare import ImageConfig
from boneage_ray.records.schema import record_schema, to_table

RECORD = {"record_id": "1", "image": b"1234", "height": 2, "width": 2, "age_months": 12.0}


def older(config):
    """The image settings in a manifest of a version without masks."""
    return {name: value for name, value in config.model_dump(mode="json").items() if not name.startswith("mask")}


def test_missing_settings_have_their_defaults():
    prepared = PreparedData("data", {"image": older(ImageConfig(size=128))})
    prepared.check_image(ImageConfig(size=128))
    with pytest.raises(MismatchError, match="mask none instead of hand"):
        prepared.check_image(ImageConfig(size=128, mask="hand"))


def test_their_shards_are_read_without_a_mask(tmp_path):
    old, new = str(tmp_path / "old.parquet"), str(tmp_path / "new.parquet")
    table = to_table([RECORD], record_schema())
    pq.write_table(table.drop_columns(["mask"]), old)
    pq.write_table(to_table([RECORD | {"mask": b"\1\0\0\1"}], record_schema()), new)
    plan = pa.table({"uri": [old, new], "start": [0, 0], "stop": [1, 1], "chosen": pa.nulls(2, pa.list_(pa.int64()))})
    rows = read_rows(plan)
    assert rows.column_names == TRAINING_COLUMNS
    assert rows["mask"].to_pylist() == [None, b"\1\0\0\1"]
