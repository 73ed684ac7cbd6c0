"""Result rows as CSV for spreadsheets, with the landmarks in a second file, and as one Parquet file.

A CSV begins with a byte order mark, by which Excel knows that it is UTF-8; dates are ISO, decimals have a dot.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any, BinaryIO

from boneage_ray import storage
from boneage_ray.anatomy.growth import years_and_months
from boneage_ray.export.words import interval_in_words, signed_years_and_months
from boneage_ray.records.schema import Row, result_schema, to_table

COLUMNS = (
    *("input", "study_instance_uid", "series_instance_uid", "sop_instance_uid", "status", "code", "reason"),
    *("sex_used", "sex_source", "bone_age_months", "bone_age", "low_months", "high_months", "interval"),
    *("interval_level", "spread_months", "chron_age_months", "chron_age", "difference_months", "stage_three"),
    *("stage_four", "cvm_stage", "cvm_probability", "stage_low", "stage_high", "cvm_typical", "cvm_measurements"),
    *("landmarks", "mm_per_px", "spacing_source", "flags", "model", "model_sha", "package_version", "scored_on"),
)
LANDMARK_COLUMNS = ("input", "sop_instance_uid", "landmark", "x_px", "y_px", "sigma_px")
_TAIL = 0.05  # of the probability that may lie below stage_low, and above stage_high
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_cells(row: Row, scored_on: str) -> dict[str, object]:
    """One result row as the cells of its line, by the names of COLUMNS; None is an empty cell."""
    stages = row["stages"] or {}
    low, high = _likely_stages(row["cvm_probabilities"] or {})
    measured = row["cvm_measurements"] or {}
    return {
        "input": row["input_uri"],
        "study_instance_uid": row["study_uid"],
        "series_instance_uid": row["series_uid"],
        "sop_instance_uid": row["sop_uid"],
        "status": row["status"],
        "code": row["reason"],
        "reason": row["message"],
        "sex_used": row["sex"],
        "sex_source": row["sex_source"],
        "bone_age_months": _rounded(row["age_months"]),
        "bone_age": None if row["age_months"] is None else signed_years_and_months(row["age_months"]),
        "low_months": _rounded(row["age_low_months"]),
        "high_months": _rounded(row["age_high_months"]),
        "interval": interval_in_words(row) or None,
        "interval_level": row["interval_coverage"],
        "spread_months": _rounded(row["age_spread_months"]),
        "chron_age_months": _rounded(row["chronological_age_months"]),
        "chron_age": _in_words(row["chronological_age_months"]),
        "difference_months": _rounded(row["age_difference_months"]),
        "stage_three": stages.get("three"),
        "stage_four": stages.get("four"),
        "cvm_stage": row["cvm_stage"],
        "cvm_probability": _rounded((row["cvm_probabilities"] or {}).get(row["cvm_stage"]), 3),
        "stage_low": low,
        "stage_high": high,
        "cvm_typical": None if row["cvm_typical"] is None else ("yes" if row["cvm_typical"] else "no"),
        "cvm_measurements": "; ".join(f"{name}={value:.4g}" for name, value in measured.items()) or None,
        "landmarks": len(row["landmarks"]) if row["landmarks"] else None,
        "mm_per_px": _rounded(row["pixel_spacing_mm"], 6),
        "spacing_source": row["pixel_spacing_source"],
        "flags": " ".join(row["flags"]) or None,
        "model": row["model"],
        "model_sha": row["model_sha256"],
        "package_version": row["package_version"],
        "scored_on": scored_on,
    }


def _rounded(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)


def _in_words(months: float | None) -> str | None:
    return None if months is None else years_and_months(months)


def _likely_stages(probabilities: dict[str, float]) -> tuple[str | None, str | None]:
    """The lowest and highest cervical stage, without tails of 5 % each."""
    names, below = sorted(probabilities), 0.0
    low = high = None
    for name in names:
        below += probabilities[name]
        low = name if low is None and below > _TAIL else low
        high = name if high is None and below >= 1 - _TAIL else high
    return low, high or (names[-1] if names else None)


def _safe(cell: object) -> object:
    """A text that a spreadsheet would take for a formula gets an apostrophe in front."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


class _Table:
    """Lines of CSV into a stream of bytes."""

    def __init__(self, stream: BinaryIO, columns: Iterable[str]) -> None:
        stream.write("\ufeff".encode())
        self._stream, self._text = stream, io.StringIO()
        self._writer = csv.writer(self._text)
        self.write(columns)

    def write(self, cells: Iterable[object]) -> None:
        self._writer.writerow([_safe(cell) for cell in cells])
        self._stream.write(storage.printable(self._text.getvalue()).encode())
        self._text.seek(0)
        self._text.truncate()


def write_csv(tables: Iterator[list[Row]], place: str, landmarks_place: str, ended: datetime) -> int:
    """Write one line an input, and one line a landmark into a second file if there are any; returns the number of inputs."""
    scored_on, count = ended.date().isoformat(), 0
    with ExitStack() as files, storage.open_write(place) as stream:
        table, landmarks = _Table(stream, COLUMNS), None
        for rows in tables:
            for row in rows:
                cells = csv_cells(row, scored_on)
                table.write(cells[name] for name in COLUMNS)
                if row["landmarks"]:
                    landmarks = landmarks or _Table(
                        files.enter_context(storage.open_write(landmarks_place)), LANDMARK_COLUMNS
                    )
                    for point in row["landmarks"]:
                        landmarks.write(_landmark_cells(row, point))
                count += 1
    return count


def csv_bytes(rows: list[Row], ended: datetime) -> bytes:
    """The lines of `write_csv` for a few rows, without its second file: of landmarks only their number."""
    stream, scored_on = io.BytesIO(), ended.date().isoformat()
    table = _Table(stream, COLUMNS)
    for row in rows:
        cells = csv_cells(row, scored_on)
        table.write(cells[name] for name in COLUMNS)
    return stream.getvalue()


def _landmark_cells(row: Row, point: dict[str, Any]) -> list[object]:
    return [
        row["input_uri"],
        row["sop_uid"],
        point["name"],
        *(_rounded(point[name], 3) for name in ("x", "y", "sigma")),
    ]


def write_parquet(tables: Iterator[list[Row]], place: str) -> int:
    """Write all rows with the columns of today as one file; returns the number of rows."""
    count = 0
    with _parquet_writer(place) as writer:
        for rows in tables:
            writer.write_table(to_table(rows, result_schema()))
            count += len(rows)
    return count


@contextmanager
def _parquet_writer(place: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with storage.open_write(place) as stream, pq.ParquetWriter(stream, result_schema(), compression="zstd") as writer:
        yield writer
