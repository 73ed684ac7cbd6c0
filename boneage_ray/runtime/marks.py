"""The marks of inputs (archives/changes.py) in the metadata of a Parquet file, in the order of its rows; for updates."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pyarrow.parquet as pq

from boneage_ray import storage

_MARKS = "boneage_inputs"


def add_marks(writer: pq.ParquetWriter, marks: bytes) -> None:
    """Put the marks into a file that is being written; not into its schema, which it would hold twice."""
    if marks:
        writer.add_key_value_metadata({_MARKS: b64encode(marks).decode()})


def read_marks(uri: str) -> bytes:
    """The marks of a file; empty if it has none."""
    with storage.open_read(uri) as file:
        return b64decode((pq.read_metadata(file).metadata or {}).get(_MARKS.encode(), b""))
