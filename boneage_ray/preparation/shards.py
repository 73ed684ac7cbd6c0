"""The preparation job: archive -> Parquet shards, manifest and rejected rows, by Ray Data.

    archive --cases.py--> DATA/cases/part-*        a case for every input, in committed parts
            --here-----> DATA/splits.csv           the split, when all patients and copies are known
                         DATA/train|val|test/part-*, rejected.parquet, manifest.json; the cases are deleted

After a kill the same command continues and ends with the same dataset; after its end it changes nothing.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from boneage_ray import PIPELINE_VERSION, __version__, storage
from boneage_ray.archives.archive import Archive
from boneage_ray.archives.in_parts import ArchiveParts
from boneage_ray.archives.notes import say_rows, sum_of_notes
from boneage_ray.errors import MismatchError, NoUsableInputError
from boneage_ray.preparation.cases import CASES, run_cases
from boneage_ray.preparation.overview import copies, overview
from boneage_ray.preparation.prepare import ImageConfig
from boneage_ray.preparation.quality import ExpectedRegion
from boneage_ray.preparation.split import (
    SPLITS,
    Assignment,
    Case,
    SplitConfig,
    SplitTable,
    read_splits,
    split_cases,
    split_warnings,
    write_splits,
)
from boneage_ray.records.schema import case_schema, record_schema, rejected_schema
from boneage_ray.runtime import lease, nodes, parts
from boneage_ray.runtime.cluster import run_parts
from boneage_ray.runtime.resources import Resources
from boneage_ray.runtime.runs import say

SHARD_ROWS = 128
MANIFEST, SPLIT_TABLE, REJECTED = "manifest.json", "splits.csv", "rejected.parquet"
_BIG = ("image", "mask", "thumbnail", "vertebral", "facial", "to_original", "message")


@dataclass(frozen=True)
class PrepareOptions:
    """The options of a preparation from the command line; `splits`: the URI of a split table to reuse.

    `region`: what the radiographs should show, for the gate by header.
    """

    out: str
    image: ImageConfig
    split: SplitConfig = field(default_factory=SplitConfig)
    splits: str | None = None
    overwrite: bool = False
    region: ExpectedRegion = "any"


def prepare_archive(
    archive: Archive, source: str, options: PrepareOptions, on_claimed: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Prepare every input of an archive on the connected cluster; returns the manifest.

    `on_claimed` is called when OUT is reserved for this run.
    """
    given = read_splits(storage.read_text(options.splits), options.splits) if options.splits else None
    # The cases do not depend on the split: after an error of the split, a run with another one reuses them.
    mark = parts.fingerprint(source, options.image.model_dump(mode="json"), options.region, PIPELINE_VERSION)
    whole_mark = parts.fingerprint(mark, options.split.model_dump(mode="json"), given and given.splits)
    listing = ArchiveParts(archive, CASES)
    parts.check_not_empty(listing, source)
    parts.claim(options.out, mark, options.overwrite, "prepare")
    finished = _finished(options.out, listing, whole_mark)
    on_claimed()
    if finished is not None:
        say("prepare: done already")
        return finished
    nodes.check_places(lease.holding(options.out), [("SOURCE", source)])
    arguments = {"out": options.out, "image": options.image.expecting(options.region).model_dump(), "key": mark}
    completed = parts.complete(
        parts.PartsJob("prepare", options.out, listing, (CASES,)), partial(run_cases, arguments=arguments)
    )
    cases = _read_cases(options.out, completed.lines)
    _refuse_empty(cases, source)
    manifest = _divide(cases, completed, options, given)
    manifest = {
        "kind": "boneage-ray data",
        "package_version": __version__,
        "source": source,
        "fingerprint": whole_mark,
        "tables": sum_of_notes(completed.lines, archive.accounts),
    } | manifest
    lease.holding(options.out).check()
    say_rows(options.out, manifest["tables"], completed.lines)
    storage.write_json(storage.join(options.out, MANIFEST), manifest)
    storage.delete_tree(storage.join(options.out, CASES))
    return manifest


def _finished(out: str, listing: parts.Listing, mark: str) -> dict[str, Any] | None:
    """The manifest of the same run, if it is complete. Raises `MismatchError` if the archive or the split has changed."""
    place = storage.join(out, MANIFEST)
    if not storage.exists(place):
        return None
    manifest: dict[str, Any] = storage.read_json(place)
    if manifest["fingerprint"] != mark:
        raise MismatchError(f"{out} holds this archive with another split: give another --out, or --overwrite")
    parts.check_unchanged(listing, manifest["listed"])
    storage.delete_tree(storage.join(out, CASES))
    return manifest


def _read_cases(out: str, lines: Sequence[dict[str, Any]]) -> pa.Table:
    """The small columns of all cases, in order, with `part` and `row`, the position of the whole case."""
    small = [name for name in case_schema().names if name not in _BIG]

    def one(number: int) -> pa.Table:
        with storage.open_read(storage.join(out, lines[number]["target"])) as file:
            table = pq.read_table(file, columns=small).replace_schema_metadata(None)
        where = pa.array([number] * len(table), pa.int32()), pa.array(range(len(table)), pa.int32())
        return table.append_column("part", where[0]).append_column("row", where[1])

    return pa.concat_tables(parts.prefetched(one, range(len(lines)), threads=8, ahead=32))


def _refuse_empty(cases: pa.Table, source: str) -> None:
    if cases["reason"].null_count == 0:
        counts = Counter(cases["reason"].to_pylist()).most_common()
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts)
        raise NoUsableInputError(f"{source}: none of {len(cases)} inputs could be prepared ({reasons})")


def _divide(
    cases: pa.Table, completed: parts.Completed, options: PrepareOptions, given: SplitTable | None
) -> dict[str, Any]:
    """Write split, shards and rejected rows; returns their part of the manifest."""
    records = cases.filter(pc.is_null(cases["reason"]))
    known = [_case(row) for row in records.select(_DECIDING).to_pylist()]
    assignment = split_cases(known, options.split, given)
    storage.write_text(storage.join(options.out, SPLIT_TABLE), write_splits(known, assignment))
    for warning in split_warnings(assignment, given is None and options.split.shares == "test"):
        say(f"prepare: {warning}")
    if assignment.leaks:
        say(f"prepare: {assignment.leaks} patients or exact copies are in several splits of the given split table")
    idle = given.idle(known) if given else []
    if idle:
        named = f"{', '.join(idle[:3])}{', ...' if idle[3:] else ''}"
        say(f"prepare: {len(idle)} rows of {options.splits} match no record and were not used", f" ({named})")
    targets = [line["target"] for line in completed.lines]
    shards = _write_shards(records, assignment, targets, options.out)
    _write_rejected(options.out, completed.lines)
    return {
        "image": options.image.model_dump(mode="json"),
        "split": options.split.model_dump(mode="json") | {"table": options.splits},
        "split_seed": options.split.seed,
        "listed": completed.marks,
        "leaks": assignment.leaks,
        "idle_split_rows": len(idle),
        **_counts(cases, records, assignment),
        "parts": {
            split: [{"file": line["target"], "rows": line["size"]} for line in shards.lines if line["split"] == split]
            for split in SPLITS
        },
    }


_DECIDING = ["record_id", "input_uri", "age_months", "sex", "source", "patient", "pixel_sha256", "split"]


def _case(row: dict[str, Any]) -> Case:
    patient = (f"patient {row['patient']}",) if row["patient"] else ()
    same = (*patient, f"pixels {row['pixel_sha256']}")
    named = {name: row[name] for name in ("record_id", "age_months", "sex", "source", "input_uri")}
    return Case(**named, same=same, published=row["split"])


def _counts(cases: pa.Table, records: pa.Table, assignment: Assignment) -> dict[str, Any]:
    """Counts and overview of the manifest."""
    refused = cases.filter(pc.is_valid(cases["reason"]))
    at = cases.schema.get_field_index("split")
    sided = [
        records.set_column(at, "split", pa.array(assignment.splits, pa.string())),
        refused.set_column(at, "split", pa.nulls(len(refused), pa.string())),
    ]
    divided = pa.concat_tables(sided)
    seen = overview(divided)
    rows = {split: assignment.splits.count(split) for split in SPLITS}
    return {
        "counts": rows | {"rejected": len(cases) - len(records)},
        "rejected_by_reason": seen["rejected_by_reason"],
        "ages": seen["ages"],
        "overview": seen,
        "duplicates": copies(divided),
    }


@dataclass(frozen=True)
class ShardParts:
    """The listing of the shards; the body of each holds the rows of case parts, [[case part, [row, ...]], ...]."""

    pieces: tuple[tuple[str, str, int], ...]  # target, body, size

    def __call__(self) -> Iterator[parts.Part]:
        """Every shard."""
        return (parts.Part(*piece) for piece in self.pieces)


def _write_shards(records: pa.Table, assignment: Assignment, targets: Sequence[str], out: str) -> parts.Completed:
    where = list(zip(records["part"].to_pylist(), records["row"].to_pylist(), strict=True))
    pieces = []
    for split in SPLITS:
        chosen = [place for place, side in zip(where, assignment.splits, strict=True) if side == split]
        for number, start in enumerate(range(0, len(chosen), SHARD_ROWS)):
            rows: dict[int, list[int]] = defaultdict(list)
            for part, row in chosen[start : start + SHARD_ROWS]:
                rows[part].append(row)
            body = json.dumps([[targets[part], found] for part, found in rows.items()])
            pieces.append((f"{split}/part-{number:05d}.parquet", body, sum(map(len, rows.values()))))
    return parts.complete(
        parts.PartsJob("shards", out, ShardParts(tuple(pieces)), SPLITS), partial(_run_shards, out=out)
    )


def _run_shards(rows: parts.Rows, resources: Resources, out: str) -> Iterator[dict[str, Any]]:
    return run_parts(rows, ShardWorker, {"out": out}, resources)


class ShardWorker:
    """Collects the records of one shard from the cases and commits them."""

    def __init__(self, out: str) -> None:
        self.out = out

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Commit the shard and return its line."""
        part = parts.Part(**row)
        tables = [self._rows(target, chosen) for target, chosen in json.loads(part.body)]
        return parts.commit(self.out, part, pa.concat_tables(tables), {"split": part.target.partition("/")[0]})

    def _rows(self, target: str, chosen: list[int]) -> pa.Table:
        with storage.open_read(storage.join(self.out, target)) as file:
            table = pq.read_table(file, columns=record_schema().names).replace_schema_metadata(None)
        return table.take(pa.array(chosen))


def _write_rejected(out: str, lines: Sequence[dict[str, Any]]) -> None:
    """Write `rejected.parquet`, part by part."""
    with storage.open_write(storage.join(out, REJECTED)) as file, pq.ParquetWriter(file, rejected_schema()) as writer:
        for line in lines:
            if line["rejected"]:
                with storage.open_read(storage.join(out, line["target"])) as part:
                    table = pq.read_table(part, columns=rejected_schema().names).replace_schema_metadata(None)
                writer.write_table(table.filter(pc.is_valid(table["reason"])))


def rejected_batches(out: str) -> Iterator[pa.RecordBatch]:
    """The rows of `rejected.parquet` in batches, because rows with thumbnails are large."""
    with storage.open_read(storage.join(out, REJECTED)) as file:
        yield from pq.ParquetFile(file).iter_batches(batch_size=1024)
