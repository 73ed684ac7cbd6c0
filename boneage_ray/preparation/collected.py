"""The cases of a preparation, collected before they are divided: small columns, and where the whole rows are.

Cases of this run are in `DATA/cases/`; in an update those of before are in the shards, and in a copy of `rejected.parquet`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from boneage_ray import storage
from boneage_ray.archives.changes import marks_in
from boneage_ray.preparation.cases import CASES
from boneage_ray.preparation.split import SPLITS
from boneage_ray.records.schema import case_schema
from boneage_ray.runtime import parts
from boneage_ray.runtime.marks import read_marks
from boneage_ray.runtime.pages import read_pages

MANIFEST, REJECTED = "manifest.json", "rejected.parquet"
_BIG = ("image", "mask", "thumbnail", "vertebral", "facial", "to_original", "message")


@dataclass(frozen=True)
class CollectedCases:
    """All cases: `table` has their small columns, the place of the whole row (`part`, an index of `targets`, and `row`), and
    `kept`, the split of a record that is in the dataset already, or was with other content.

    `marks`: the hash of the listing. `notes`: the lines that say what became of tables. `shards`: target -> rows of the shards of
    before. `update`: what an update did.
    """

    table: pa.Table
    targets: Sequence[str]
    marks: str
    notes: Sequence[dict[str, Any]]
    shards: Mapping[str, int] = field(default_factory=dict)
    update: dict[str, Any] = field(default_factory=dict)

    @property
    def nothing_new(self) -> bool:
        """Whether this is an update that had nothing to do."""
        return bool(self.update) and not any(self.update[name] for name in ("new", "changed", "retried", "vanished"))


@dataclass(frozen=True)
class FixedParts:
    """A listing of parts that are known: (target, body, size)."""

    pieces: tuple[tuple[str, str, int], ...]

    def __call__(self) -> Iterator[parts.Part]:
        """Every part."""
        return (parts.Part(*piece) for piece in self.pieces)


def read_small(out: str, targets: Sequence[str], first: int = 0) -> pa.Table:
    """The small columns of all cases of some files, in order, with `part`, counted from `first`, and `row`; `kept` is null."""
    small = [field for field in case_schema() if field.name not in _BIG]
    places = [("part", pa.int32()), ("row", pa.int32()), ("kept", pa.string())]
    schema = pa.schema([*small, *places])

    def one(number: int) -> pa.Table:
        uri = storage.join(out, targets[number])
        with storage.open_read(uri) as file:
            names = pq.read_schema(file).names
        table = read_pages(uri, [field.name for field in small if field.name in names])
        rows = pa.array(range(len(table)), pa.int32())
        columns = {name: table[name] for name in table.column_names}
        columns |= {"part": pa.array([first + number] * len(table), pa.int32()), "row": rows}
        whole = [columns.get(field.name, pa.nulls(len(table), field.type)) for field in schema]
        return pa.Table.from_arrays(whole, schema=schema)

    return pa.concat_tables([schema.empty_table(), *parts.prefetched(one, range(len(targets)), threads=8, ahead=32)])


def rows_of(out: str, target: str, chosen: Sequence[int], names: Sequence[str]) -> pa.Table:
    """Some rows of a file, whole."""
    table = read_pages(storage.join(out, target), names).replace_schema_metadata(None)
    return table.take(pa.array(chosen, pa.int64()))


def marks_of_rows(out: str, target: str, chosen: Sequence[int]) -> bytes:
    """The marks of these rows."""
    marks = marks_in(read_marks(storage.join(out, target)))
    return b"".join(marks[row] for row in chosen)


def manifest_of(out: str) -> dict[str, Any] | None:
    """The manifest of a preparation that came to its end."""
    place = storage.join(out, MANIFEST)
    return dict(storage.read_json(place)) if storage.exists(place) else None


def shards_in(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Target -> rows of the shards that a manifest names."""
    return {part["file"]: part["rows"] for split in SPLITS for part in manifest["parts"][split]}


def tidy(out: str, manifest: Mapping[str, Any]) -> None:
    """Delete what no manifest names: the cases, with the hashes of patients, and shards that were replaced or came to nothing."""
    storage.delete_tree(storage.join(out, CASES))
    named = shards_in(manifest)
    for split in SPLITS:
        for info in storage.list_folder(storage.join(out, split)):
            if f"{split}/{info.uri.rpartition('/')[2]}" not in named:
                storage.delete_tree(info.uri)
