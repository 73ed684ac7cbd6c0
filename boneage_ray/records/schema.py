"""The prepared record and the result row: columns, types, units.

A prepared record in `DATA/train/part-00000.parquet` (256 x 256 gray pixels, row-major)::

    record_id        "1377"                      file stem
    input_uri        "s3://site/hands/1377.png"  source of the bytes; "s3://site/a.zip!/1377.png" inside a zip
    input_sha256     "9f0c..."                   of those bytes
    pixel_sha256     "77aa..."                   of the decoded pixels: equal for copies in another file format
    study_uid, series_uid, sop_uid               from DICOM, else null; no patient name, id or birth date ever
    age_months       180.0                       label, or null
    sex, sex_source  "F" | "M" | null            null is unknown, never a silent "F"; metadata, dicom or unknown
    pixel_spacing_mm 0.143 | null                mm per pixel of the original image
    pixel_spacing_source  "metadata", "dicom:PixelSpacing", "dicom:ImagerPixelSpacing", ...
    source           "site-a" | null             data set it belongs to, from the metadata
    image            65536 bytes                 uint8, height x width below
    mask             65536 bytes | null          uint8, 1 on the hand, of the same geometry as `image`
    height, width    256, 256
    original_height, original_width  2044, 1514  of the decoded image
    to_original      [s, tx, ty]                 x_original = s * x + tx, y_original = s * y + ty
    vertebral, facial  [[x, y], ...] | null      landmarks, pixels of the original image, order of anatomy/cephalometry.py
    flags            ["sex_unknown"]

A result row in `OUT/results/part-00000.parquet`, one for every input file::

    {"input_uri": "s3://site/hands/1377.png", "status": "scored", "age_months": 172.4, "sex": "F",
     "sex_source": "metadata", "stages": {"three": "adolescent"}, "flags": [], "model": "resnet18-multitask", ...}
    {"input_uri": "s3://site/hands/broken.png", "status": "failed", "step": "decode", "reason": "truncated",
     "message": "PNG ends before its last chunk", "age_months": None, ...}
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pyarrow as pa

from boneage_ray import storage

Row = dict[str, Any]


@cache
def record_schema() -> pa.Schema:
    """Columns of a prepared record."""
    points = pa.list_(pa.list_(pa.float64(), 2))
    return pa.schema(
        [
            ("record_id", pa.string()),
            ("input_uri", pa.string()),
            ("input_sha256", pa.string()),
            ("pixel_sha256", pa.string()),
            ("study_uid", pa.string()),
            ("series_uid", pa.string()),
            ("sop_uid", pa.string()),
            ("age_months", pa.float64()),
            ("sex", pa.string()),
            ("sex_source", pa.string()),
            ("pixel_spacing_mm", pa.float64()),
            ("pixel_spacing_source", pa.string()),
            ("source", pa.string()),
            ("image", pa.binary()),
            ("mask", pa.binary()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("original_height", pa.int32()),
            ("original_width", pa.int32()),
            ("to_original", pa.list_(pa.float64(), 3)),
            ("vertebral", points),
            ("facial", points),
            ("flags", pa.list_(pa.string())),
        ]
    )


@cache
def rejected_schema() -> pa.Schema:
    """One row for every input or label without a record; `thumbnail`: a small PNG of a rejected image."""
    columns = ("input_uri", "record_id", "step", "reason", "message")
    return pa.schema([*((name, pa.string()) for name in columns), ("thumbnail", pa.binary())])


@cache
def case_schema() -> pa.Schema:
    """One row for every input during a preparation: a record, or (`reason` is not null) why there is none.

    `patient`: a keyed hash, equal for images of one patient; `split`: the published split of the record.
    """
    outcome = [field for field in rejected_schema() if field.name not in record_schema().names]
    return pa.schema([*record_schema(), *outcome, ("patient", pa.string()), ("split", pa.string())])


@cache
def result_schema() -> pa.Schema:
    """One row for every scored input file.

    `age_spread_months`: the sample standard deviation of the members of an ensemble, null for one model.
    `age_difference_months`: bone age minus chronological age.
    """
    landmark = pa.struct([("name", pa.string()), ("x", pa.float64()), ("y", pa.float64()), ("sigma", pa.float64())])
    return pa.schema(
        [
            ("input_uri", pa.string()),
            ("input_sha256", pa.string()),
            ("input_bytes", pa.int64()),
            ("status", pa.string()),
            ("step", pa.string()),
            ("reason", pa.string()),
            ("message", pa.string()),
            ("study_uid", pa.string()),
            ("series_uid", pa.string()),
            ("sop_uid", pa.string()),
            ("sex", pa.string()),
            ("sex_source", pa.string()),
            ("pixel_spacing_mm", pa.float64()),
            ("pixel_spacing_source", pa.string()),
            ("age_months", pa.float64()),
            ("age_spread_months", pa.float64()),
            ("age_low_months", pa.float64()),
            ("age_high_months", pa.float64()),
            ("interval_coverage", pa.float64()),
            ("chronological_age_months", pa.float64()),
            ("age_difference_months", pa.float64()),
            ("stages", pa.map_(pa.string(), pa.string())),
            ("landmarks", pa.list_(landmark)),
            ("cvm_stage", pa.string()),
            ("cvm_typical", pa.bool_()),
            ("cvm_probabilities", pa.map_(pa.string(), pa.float64())),
            ("cvm_measurements", pa.map_(pa.string(), pa.float64())),
            ("flags", pa.list_(pa.string())),
            ("model", pa.string()),
            ("model_sha256", pa.string()),
            ("package_version", pa.string()),
        ]
    )


def empty_result() -> Row:
    """A result row with every column null and no flags."""
    row: Row = dict.fromkeys(result_schema().names)
    row["flags"] = []
    return row


def to_table(rows: list[Row], schema: pa.Schema) -> pa.Table:
    """Rows as an Arrow table of exactly this schema; maps may be dicts. Raises KeyError for unknown columns."""
    unknown = {key for row in rows for key in row} - set(schema.names)
    if unknown:
        raise KeyError(f"columns {sorted(unknown)} are not in the schema {schema.names}")
    arrays = [pa.array([_cell(row.get(f.name), f.type) for row in rows], type=f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def from_table(table: pa.Table) -> list[Row]:
    """The inverse of `to_table`: maps come back as dicts."""
    rows: list[Row] = table.to_pylist()
    maps = [f.name for f in table.schema if pa.types.is_map(f.type)]
    for row in rows:
        for name in maps:
            row[name] = None if row[name] is None else dict(row[name])
    return rows


def _cell(value: object, kind: pa.DataType) -> object:
    if isinstance(value, str):
        return storage.printable(value)
    return list(value.items()) if pa.types.is_map(kind) and isinstance(value, dict) else value
