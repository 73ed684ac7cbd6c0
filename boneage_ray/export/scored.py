"""What a scoring run left in OUT, read a slice at a time: nobody ever holds the rows of a whole archive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow.parquet as pq

from boneage_ray import storage
from boneage_ray.errors import NoUsableInputError, StorageError, UsageError
from boneage_ray.records.schema import Row, empty_result, from_table
from boneage_ray.runtime.pages import read_pages
from boneage_ray.scoring.score import RESULTS

MOST_ROWS_A_SLICE = 64


@dataclass(frozen=True)
class ResultSlice:
    """Rows `start` to `stop` of one part of the results."""

    uri: str
    start: int
    stop: int

    def rows(self) -> list[Row]:
        """The rows with all columns of today: what an older version did not write is null."""
        table = read_pages(self.uri)
        empty = empty_result()
        return [complete_row(row, empty) for row in from_table(table.slice(self.start, self.stop - self.start))]


@dataclass(frozen=True)
class ScoredRun:
    """A scoring run: the URIs of its parts with their numbers of rows, when it ended, and whether it did.

    What is exported again carries the same time, in UTC.
    """

    out: str
    parts: Sequence[tuple[str, int]]
    ended: datetime
    is_complete: bool

    @property
    def row_count(self) -> int:
        """The number of result rows."""
        return sum(count for _, count in self.parts)

    def slices(self, workers: int) -> Iterator[ResultSlice]:
        """All rows in order, in slices so small that every worker gets some."""
        size = max(1, min(MOST_ROWS_A_SLICE, self.row_count // (4 * workers)))
        for uri, count in self.parts:
            for start in range(0, count, size):
                yield ResultSlice(uri, start, min(start + size, count))

    def tables(self) -> Iterator[list[Row]]:
        """All rows in order, a part at a time."""
        for uri, count in self.parts:
            yield ResultSlice(uri, 0, count).rows()


def complete_row(row: Mapping[str, Any], empty: Row) -> Row:
    """A row with every column of today; columns that today has not are left out."""
    whole = {name: row.get(name) for name in empty}
    return whole | {"flags": row.get("flags") or []}


def open_run(out: str) -> ScoredRun:
    """The scoring run of OUT. Raises `UsageError` if there is none, `NoUsableInputError` if it has no row yet."""
    uris = [info.uri for info in storage.list_folder(storage.join(out, RESULTS))]
    if not uris:
        if not storage.exists(out):
            raise UsageError(f"{out} does not exist: give the --out of a `boneage score`")
        raise NoUsableInputError(
            f"{out} holds no results/: give the --out of a `boneage score` that has scored something"
        )
    parts = [(uri, row_count(uri)) for uri in uris]
    if not sum(count for _, count in parts):
        raise NoUsableInputError(f"{out}/results holds no row")
    return ScoredRun(out, parts, _ended(out), storage.exists(storage.join(out, "summary.json")))


def row_count(uri: str) -> int:
    """The number of rows of a part."""
    with storage.open_read(uri) as file:
        count: int = pq.read_metadata(file).num_rows
    return count


def _ended(out: str) -> datetime:
    """By run.json; now, where a run was not closed."""
    try:
        record = storage.read_json(storage.join(out, "run.json"))
        started = datetime.fromisoformat(record["started"])
        return (started + timedelta(seconds=round(record["seconds"]))).astimezone(UTC)
    except (StorageError, KeyError, TypeError, ValueError):
        return datetime.now(UTC).replace(microsecond=0)
