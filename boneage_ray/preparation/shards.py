"""The preparation job: archive -> Parquet shards, manifest and rejected rows, by Ray Data.

    archive --cases.py--> DATA/cases/part-*        a case for every input, in committed parts
            --here-----> DATA/splits.csv           the split, when all patients and copies are known
                         DATA/train|val|test/part-*, rejected.parquet, manifest.json; the cases are deleted

After a kill the same command continues and ends with the same dataset; after its end it changes nothing. With `update` it does
what became new, changed or vanished since (updating.py).
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from boneage_ray import PIPELINE_VERSION, __version__, storage
from boneage_ray.archives.archive import Archive
from boneage_ray.archives.in_parts import ArchiveParts, inputs_within
from boneage_ray.archives.notes import say_rows, sum_of_notes
from boneage_ray.errors import MismatchError, NoUsableInputError
from boneage_ray.preparation.cases import CASES, patient_key, run_cases
from boneage_ray.preparation.collected import (
    MANIFEST,
    REJECTED,
    CollectedCases,
    FixedParts,
    manifest_of,
    marks_of_rows,
    read_small,
    rows_of,
    tidy,
)
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
from boneage_ray.preparation.updating import restart_if_changed, updated
from boneage_ray.records.schema import record_schema, rejected_schema
from boneage_ray.runtime import lease, nodes, parts
from boneage_ray.runtime.cluster import run_parts
from boneage_ray.runtime.marks import add_marks
from boneage_ray.runtime.resources import Resources
from boneage_ray.runtime.runs import say

SHARD_ROWS = 128
SPLIT_TABLE = "splits.csv"


@dataclass(frozen=True)
class PrepareOptions:
    """The options of a preparation from the command line; `splits`: the URI of a split table to reuse.

    `region`: what the radiographs should show, for the gate by header. `update`: do what changed since OUT was written.
    """

    out: str
    image: ImageConfig
    split: SplitConfig = field(default_factory=SplitConfig)
    splits: str | None = None
    overwrite: bool = False
    region: ExpectedRegion = "any"
    update: bool = False


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
    listing = ArchiveParts(archive, CASES, most=inputs_within(options.image.record_bytes))
    parts.check_not_empty(listing, source)
    parts.claim(options.out, mark, options.overwrite, "prepare", _settings(source, options))
    before = manifest_of(options.out)
    finished = _finished(options, before, listing, whole_mark)
    on_claimed()
    if finished is not None:
        say("prepare: done already")
        return finished
    nodes.check_places(lease.holding(options.out), [("SOURCE", source)])
    arguments = {"out": options.out, "image": options.image.expecting(options.region).model_dump()}
    collected = _all_cases(listing, options, arguments) if before is None else updated(listing, before, arguments)
    tables = sum_of_notes(collected.notes, archive.accounts)
    if before and collected.nothing_new:
        manifest = before | {"listed": collected.marks, "tables": tables, "update": collected.update}
    else:
        _refuse_empty(collected.table, source)
        manifest = {
            "kind": "boneage-ray data",
            "package_version": __version__,
            "source": source,
            "fingerprint": parts.fingerprint(whole_mark, collected.marks) if before else whole_mark,
            "settings": whole_mark,
            "tables": tables,
            **_divide(collected, options, given),
        }
    lease.holding(options.out).check()
    say_rows(options.out, tables, collected.notes)
    storage.write_json(storage.join(options.out, MANIFEST), manifest)
    tidy(options.out, manifest)
    return manifest


def _settings(source: str, options: PrepareOptions) -> dict[str, str]:
    """What decides the cases, in words."""
    image = parts.fingerprint(options.image.model_dump(mode="json"))
    return {
        "pipeline version": str(PIPELINE_VERSION),
        "SOURCE": source,
        "image settings": image,
        "region": options.region,
    }


def _finished(
    options: PrepareOptions, manifest: dict[str, Any] | None, listing: parts.Listing, mark: str
) -> dict[str, Any] | None:
    """The manifest of the same run, if it is complete and not to be updated.

    Raises `MismatchError` if the archive or the split has changed.
    """
    if manifest is None:
        return None
    split = options.split.model_dump(mode="json")
    same = manifest.get("settings", manifest["fingerprint"]) == mark
    if options.update:  # a table of splits may have grown
        same = manifest["split"] == split | {"table": manifest["split"]["table"] and options.splits}
    if not same:
        raise MismatchError(f"{options.out} holds this archive with another split: give another --out, or --overwrite")
    if options.update:
        return None
    parts.check_unchanged(listing, manifest["listed"])
    tidy(options.out, manifest)
    return manifest


def _all_cases(listing: parts.Listing, options: PrepareOptions, arguments: dict[str, Any]) -> CollectedCases:
    """The cases of a first run."""
    if options.update:
        restart_if_changed(options.out, listing)
    work = partial(run_cases, arguments={**arguments, "key": patient_key(options.out)})
    completed = parts.complete(parts.PartsJob("prepare", options.out, listing, (CASES,)), work)
    targets = [line["target"] for line in completed.lines]
    return CollectedCases(read_small(options.out, targets), targets, completed.marks, completed.lines)


def _refuse_empty(cases: pa.Table, source: str) -> None:
    if cases["reason"].null_count == 0:
        counts = Counter(cases["reason"].to_pylist()).most_common()
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts)
        raise NoUsableInputError(f"{source}: none of {len(cases)} inputs could be prepared ({reasons})")


def _divide(cases: CollectedCases, options: PrepareOptions, given: SplitTable | None) -> dict[str, Any]:
    """Write split, shards and rejected rows; returns their part of the manifest."""
    records = cases.table.filter(pc.is_null(cases.table["reason"]))
    known = [_case(row) for row in records.select(_DECIDING).to_pylist()]
    assignment = split_cases(known, options.split, given, records["kept"].to_pylist())
    storage.write_text(storage.join(options.out, SPLIT_TABLE), write_splits(known, assignment))
    for warning in split_warnings(assignment, given is None and options.split.shares == "test"):
        say(f"prepare: {warning}")
    if assignment.leaks:
        why = "of the given split table" if given else "because their first images came before the one that links them"
        say(f"prepare: {assignment.leaks} patients or exact copies are in several splits {why}")
    idle = given.idle(known) if given else []
    if idle:
        named = f"{', '.join(idle[:3])}{', ...' if idle[3:] else ''}"
        say(f"prepare: {len(idle)} rows of {options.splits} match no record and were not used", f" ({named})")
    shards = _write_shards(records, assignment, cases, options)
    _write_rejected(options.out, cases)
    return {
        "image": options.image.model_dump(mode="json"),
        "split": options.split.model_dump(mode="json") | {"table": options.splits},
        "split_seed": options.split.seed,
        "listed": cases.marks,
        "leaks": assignment.leaks,
        "idle_split_rows": len(idle),
        **_counts(cases.table, records, assignment),
        "parts": shards,
        **({"update": cases.update} if cases.update else {}),
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


def _write_shards(
    records: pa.Table, assignment: Assignment, cases: CollectedCases, options: PrepareOptions
) -> dict[str, list[dict[str, Any]]]:
    """Write the shards that are not there yet; the files and rows of all, by split.

    A shard of before that keeps all its rows stays; what is left of the others comes, with the new records, into new ones.
    """
    where = list(zip(records["part"].to_pylist(), records["row"].to_pylist(), strict=True))
    left = Counter(cases.targets[part] for part, _ in where)
    stays = {target: rows for target, rows in cases.shards.items() if left[target] == rows}
    pieces, most = [], inputs_within(options.image.record_bytes, SHARD_ROWS)
    for split in SPLITS:
        chosen = [
            (part, row)
            for (part, row), side in zip(where, assignment.splits, strict=True)
            if side == split and cases.targets[part] not in stays
        ]
        first = max((_number(target) + 1 for target in cases.shards if target.startswith(f"{split}/")), default=0)
        for number, start in enumerate(range(0, len(chosen), most), first):
            rows: dict[int, list[int]] = defaultdict(list)
            for part, row in chosen[start : start + most]:
                rows[part].append(row)
            body = json.dumps([[cases.targets[part], found] for part, found in rows.items()])
            pieces.append((f"{split}/part-{number:05d}.parquet", body, sum(map(len, rows.values()))))
    job = parts.PartsJob("shards", options.out, FixedParts(tuple(pieces)), SPLITS, others=frozenset(cases.shards))
    made = parts.complete(job, partial(_run_shards, out=options.out))
    found = stays | {line["target"]: line["size"] for line in made.lines}
    return {
        split: [{"file": target, "rows": found[target]} for target in sorted(found) if target.startswith(f"{split}/")]
        for split in SPLITS
    }


def _number(target: str) -> int:
    return int(target.rpartition("-")[2].partition(".")[0])


def _run_shards(rows: parts.Rows, resources: Resources, out: str) -> Iterator[dict[str, Any]]:
    return run_parts(rows, ShardWorker, {"out": out}, resources)


class ShardWorker:
    """Collects the records of one shard from cases, or from shards of before, and commits them."""

    def __init__(self, out: str) -> None:
        self.out = out

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Commit the shard and return its line."""
        part = parts.Part(**row)
        pieces = json.loads(part.body)
        tables = [rows_of(self.out, target, chosen, record_schema().names) for target, chosen in pieces]
        marks = b"".join(marks_of_rows(self.out, target, chosen) for target, chosen in pieces)
        line = {"split": part.target.partition("/")[0]}
        return parts.commit(self.out, part, pa.concat_tables(tables), line, marks=marks)


def _write_rejected(out: str, cases: CollectedCases) -> None:
    """Write `rejected.parquet`, part by part."""
    rejected = cases.table.filter(pc.is_valid(cases.table["reason"])).select(["part", "row"])
    rows: dict[int, list[int]] = defaultdict(list)
    for part, row in zip(rejected["part"].to_pylist(), rejected["row"].to_pylist(), strict=True):
        rows[part].append(row)
    with storage.open_write(storage.join(out, REJECTED)) as file, pq.ParquetWriter(file, rejected_schema()) as writer:
        for part, chosen in rows.items():
            writer.write_table(rows_of(out, cases.targets[part], chosen, rejected_schema().names))
        add_marks(writer, b"".join(marks_of_rows(out, cases.targets[part], chosen) for part, chosen in rows.items()))


def rejected_batches(out: str) -> Iterator[pa.RecordBatch]:
    """The rows of `rejected.parquet` in batches, because rows with thumbnails are large."""
    with storage.open_read(storage.join(out, REJECTED)) as file:
        yield from pq.ParquetFile(file).iter_batches(batch_size=1024)
