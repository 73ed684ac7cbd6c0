"""Writes a part of an update anew: rows that stay are copied, changed inputs have new rows, vanished ones have none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from boneage_ray import storage
from boneage_ray.archives.changes import marks_in
from boneage_ray.archives.updates import PartWork, marks_of
from boneage_ray.errors import MismatchError
from boneage_ray.records.schema import Row, from_table, result_schema, to_table
from boneage_ray.runtime import parts
from boneage_ray.runtime.marks import read_marks
from boneage_ray.runtime.pages import read_pages
from boneage_ray.scoring.summary import part_counts

_COUNTED = ["status", "input_bytes", "reason", "flags", "age_months", "sex", "cvm_stage"]
_OF_PART = ("target", "mark", "size")


@dataclass(frozen=True)
class Scored:
    """What is committed of a part: its rows, the line of counts and the marks of its inputs."""

    table: pa.Table
    line: dict[str, Any]
    marks: bytes


def first_time(work: PartWork, rows: list[Row]) -> Scored:
    """The content of a new part."""
    added = {"update": work.update, "new": len(rows)} if work.update else {}
    return Scored(to_table(rows, result_schema()), part_counts(rows) | added, marks_of(work.inputs, rows))


@dataclass(frozen=True)
class Earlier:
    """A part as it was committed before."""

    table: pa.Table
    line: dict[str, Any]
    marks: bytes

    @classmethod
    def read(cls, out: str, part: parts.Part, work: PartWork) -> Earlier:
        """Read it whole. Raises `MismatchError` if it is neither what the update replaces nor what replaces that."""
        uri = storage.join(out, part.target)
        line, marks = parts.read_line(uri), read_marks(uri)
        if line["mark"] not in (work.was, part.mark):
            raise MismatchError(f"{uri} was changed by another run: give the command again")
        return cls(read_pages(uri).replace_schema_metadata(None), line, marks)

    def renewed(self, work: PartWork, rows: list[Row]) -> Scored:
        """The content that replaces it; `rows` are those of the changed inputs. The order of the rows stays."""
        new = dict(zip(work.changed, range(len(rows)), strict=True))
        kept = [row for row in range(len(self.table)) if row not in set(work.vanished)]
        # Rows of the old table, or behind them of the new one.
        chosen = [len(self.table) + new[row] if row in new else row for row in kept]
        table = pa.concat_tables([self.table, to_table(rows, result_schema()).replace_schema_metadata(None)])
        marks = marks_in(self.marks + marks_of(work.inputs, rows))
        table = table.take(pa.array(chosen, pa.int64()))
        line = self._line(work, len(rows)) | part_counts(from_table(table.select(_COUNTED)))
        return Scored(table, line, b"".join(marks[k] for k in chosen))

    def gone(self, work: PartWork) -> set[str]:
        """The inputs whose rows do not stay."""
        rows = pa.array([*work.changed, *work.vanished], pa.int64())
        return set(self.table["input_uri"].take(rows).to_pylist())

    def _line(self, work: PartWork, rescored: int) -> dict[str, Any]:
        """The earlier line, with what this update, also before an interruption, did to the part."""
        same = self.line.get("update") == work.update
        gone = self.table["input_uri"].take(pa.array(work.vanished, pa.int64())).to_pylist()
        kept = {k: v for k, v in self.line.items() if k not in (*_OF_PART, *(() if same else ("new",)))}
        done = self.line if same else {}
        return kept | {
            "update": work.update,
            "changed": done.get("changed", 0) + rescored - work.again,
            "retried": done.get("retried", 0) + work.again,
            "vanished": done.get("vanished", []) + gone,
        }


def update_counts(
    lines: list[dict[str, Any]], update: str, closed: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """What an update did, of the lines of all parts; `closed`: what it could not examine, as `changes.Closed` says it."""
    of_it = [line for line in lines if line.get("update") == update]
    vanished = sorted(uri for line in of_it for uri in line.get("vanished", []))
    counts = {name: sum(line.get(name, 0) for line in of_it) for name in ("new", "changed", "retried")}
    return counts | {"vanished": len(vanished), "vanished_inputs": vanished, **closed}
