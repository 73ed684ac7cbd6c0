"""Columns of records and result rows, and their way through Arrow."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boneage_ray.records.schema import (
    case_schema,
    empty_result,
    from_table,
    record_schema,
    rejected_schema,
    result_schema,
    to_table,
)

# People script against these names (INTERFACE): adding is fine, renaming is not.
RESULT_COLUMNS = [
    *("input_uri", "input_sha256", "input_bytes", "status", "step", "reason", "message"),
    *("study_uid", "series_uid", "sop_uid", "sex", "sex_source", "pixel_spacing_mm", "pixel_spacing_source"),
    *(
        "age_months",
        "age_spread_months",
        "age_low_months",
        "age_high_months",
        "interval_coverage",
        "chronological_age_months",
        "age_difference_months",
        "stages",
        "landmarks",
    ),
    *("cvm_stage", "cvm_typical", "cvm_probabilities", "cvm_measurements"),
    *("flags", "model", "model_sha256", "package_version"),
]


def test_the_columns_of_a_result_row_keep_their_names_and_types():
    schema = result_schema()
    assert schema.names == RESULT_COLUMNS
    assert schema.field("input_bytes").type == pa.int64()
    assert schema.field("age_months").type == pa.float64()
    assert schema.field("stages").type == pa.map_(pa.string(), pa.string())
    assert [f.name for f in schema.field("landmarks").type.value_type] == ["name", "x", "y", "sigma"]


def test_the_columns_of_records_and_rejected_rows():
    assert record_schema().names == [
        *("record_id", "input_uri", "input_sha256", "pixel_sha256", "study_uid", "series_uid", "sop_uid"),
        *("age_months", "sex", "sex_source", "pixel_spacing_mm", "pixel_spacing_source", "source"),
        *(
            "image",
            "mask",
            "height",
            "width",
            "original_height",
            "original_width",
            "to_original",
            "vertebral",
            "facial",
            "flags",
        ),
    ]
    assert rejected_schema().names == ["input_uri", "record_id", "step", "reason", "message", "thumbnail"]


def test_a_case_holds_what_a_record_and_a_rejected_row_hold():
    names = case_schema().names
    assert len(names) == len(set(names))
    assert set(names) == {*record_schema().names, *rejected_schema().names, "patient", "split"}


def test_nothing_that_names_a_person_is_a_column():
    for name in {*record_schema().names, *rejected_schema().names, *result_schema().names}:
        assert not {"patient", "name", "birth"} & set(name.split("_")), name


def test_an_empty_result_has_every_column_and_shares_nothing():
    first, second = empty_result(), empty_result()
    assert list(first) == RESULT_COLUMNS
    first["flags"].append("sex_unknown")
    assert second["flags"] == []
    assert {value for name, value in second.items() if name != "flags"} == {None}


def test_rows_come_back_from_parquet_as_they_were():
    row = empty_result() | {
        "input_uri": "s3://site/hands/1377.png",
        "status": "scored",
        "age_months": 172.4,
        "stages": {"three": "adolescent", "four": "pre-adolescent"},
        "landmarks": [{"name": "sella", "x": 1.5, "y": 2.25, "sigma": 0.5}],
        "cvm_probabilities": {"CS1": 0.25},
        "flags": ["sex_unknown"],
    }
    buffer = io.BytesIO()
    pq.write_table(to_table([row, empty_result()], result_schema()), buffer)
    back = pq.read_table(buffer)
    assert back.schema == result_schema()
    assert from_table(back) == [row, empty_result()]


def test_missing_keys_are_null_and_unknown_ones_an_error():
    assert to_table([{"record_id": "1"}], rejected_schema()).to_pylist()[0]["reason"] is None
    with pytest.raises(KeyError, match=r"columns \['ages'\] are not in the schema"):
        to_table([{"ages": 1}], record_schema())


def test_no_rows_still_have_the_columns():
    assert to_table([], result_schema()).schema == result_schema()
    assert from_table(to_table([], result_schema())) == []
