"""The preparation job: archive -> Parquet shards, manifest and rejected rows, by Ray Data."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from boneage_ray import __version__, parts, storage
from boneage_ray.anatomy.growth import AGE_BINS, age_bin
from boneage_ray.archives.archive import Archive, Input, Unmatched
from boneage_ray.cluster import choose_resources, run_parts
from boneage_ray.errors import InputProblem, NoUsableInputError, StorageError
from boneage_ray.records.prepare import ImageConfig, prepare
from boneage_ray.records.schema import Row, record_schema, rejected_schema, to_table
from boneage_ray.records.split import SPLITS, Split, split_records

PART_ROWS = 128
READERS = 4


@dataclass(frozen=True)
class PrepareOptions:
    """What the command line says about a preparation."""

    out: str
    image: ImageConfig
    split_seed: int = 0
    overwrite: bool = False


def prepare_archive(
    archive: Archive, source: str, options: PrepareOptions, on_claimed: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Prepare every input of an archive on the connected cluster; returns the manifest.

    `on_claimed` is called once OUT is this run's own.
    """
    inputs = list(archive.inputs())
    unmatched = archive.unmatched()
    if not inputs:
        raise NoUsableInputError(f"{source}: no image has a usable label ({len(unmatched)} did not match)")
    plan = _plan(inputs, options.split_seed)
    mark = parts.fingerprint(plan, options.image.model_dump(mode="json"), options.split_seed, __version__)
    parts.claim(options.out, mark, options.overwrite, "prepare")
    on_claimed()
    lines = parts.complete(plan, options.out, "prepare", lambda todo: _run(todo, options))
    rejected = [_unmatched_row(item) for item in unmatched] + [row for line in lines for row in line["rejected"]]
    _write_rejected(options.out, rejected)
    manifest = _manifest(lines, rejected, source, mark, options)
    storage.write_json(storage.join(options.out, "manifest.json"), manifest)
    if not any(line["rows"] for line in lines):
        reasons = ", ".join(f"{reason} {count}" for reason, count in manifest["rejected_by_reason"].items())
        raise NoUsableInputError(f"{source}: none of {len(inputs)} images could be prepared ({reasons})")
    return manifest


def _plan(inputs: list[Input], seed: int) -> list[parts.Part]:
    splits = split_records([(item.record_id, item.age_months, item.sex) for item in inputs], seed)
    plan: list[parts.Part] = []
    for name in SPLITS:
        chosen = [item for item, split in zip(inputs, splits, strict=True) if split == name]
        # Ordered by a hash, so that neighbours in a shard are not neighbours in age or origin.
        chosen.sort(
            key=lambda item: hashlib.sha256(f"{seed}/{item.record_id}".encode(errors="surrogateescape")).digest()
        )
        plan += parts.cut(chosen, name, PART_ROWS)
    return plan


def _run(todo: list[parts.Part], options: PrepareOptions) -> Iterator[dict[str, Any]]:
    arguments = {"out": options.out, "image": options.image.model_dump()}
    return run_parts([part.row() for part in todo], PrepareWorker, arguments, choose_resources(len(todo)))


class PrepareWorker:
    """Fetches, prepares and writes one part; a file that cannot be used is a rejected row."""

    def __init__(self, out: str, image: dict[str, Any]) -> None:
        self.out, self.image = out, ImageConfig.model_validate(image)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Commit the part and return its counts."""
        part = parts.read_part(row)
        records: list[Row] = []
        rejected: list[Row] = []
        fetched = parts.prefetched(read_input, part.inputs, READERS, ahead=2 * READERS)
        for item, data in zip(part.inputs, fetched, strict=True):
            try:
                records.append(self._record(item, data))
            except InputProblem as problem:
                rejected.append(_problem_row(item, problem))
        line = {"target": part.target, "rows": len(records), "rejected": rejected, "ages": _ages(records)}
        parts.commit(self.out, part.target, to_table(records, record_schema()), line)
        return line

    def _record(self, item: Input, data: bytes | InputProblem) -> Row:
        if isinstance(data, InputProblem):
            raise data
        prepared = prepare(data, self.image)
        sex = item.sex or prepared.source.sex
        return {
            "record_id": item.record_id,
            "input_uri": item.uri,
            "input_sha256": hashlib.sha256(data).hexdigest(),
            "age_months": item.age_months,
            "sex": sex,
            "pixel_spacing_mm": item.pixel_spacing_mm or prepared.source.pixel_spacing_mm,
            "image": prepared.pixels.tobytes(),
            "height": prepared.pixels.shape[0],
            "width": prepared.pixels.shape[1],
            "to_original": prepared.to_original,
            "flags": [] if sex else ["sex_unknown"],
        }


def read_input(item: Input) -> bytes | InputProblem:
    """The bytes of an input, or the problem of step read; transient errors were retried by storage."""
    try:
        return storage.read_bytes(item.uri)
    except StorageError as error:
        return InputProblem("read", error.reason, str(error))


def _ages(records: list[Row]) -> list[list[Any]]:
    return [[row["age_months"], row["sex"]] for row in records]


def _problem_row(item: Input, problem: InputProblem) -> Row:
    row = {"step": problem.step, "reason": problem.reason, "message": problem.message}
    return {"input_uri": item.uri, "record_id": item.record_id, **row}


def _unmatched_row(item: Unmatched) -> Row:
    row = {"step": "list", "reason": item.reason, "message": item.message}
    return {"input_uri": item.uri or None, "record_id": item.record_id, **row}


def _write_rejected(out: str, rows: list[Row]) -> None:
    buffer = io.BytesIO()
    pq.write_table(to_table(rows, rejected_schema()), buffer)
    storage.write_bytes(storage.join(out, "rejected.parquet"), buffer.getvalue())


def _manifest(
    lines: list[dict[str, Any]], rejected: list[Row], source: str, mark: str, options: PrepareOptions
) -> dict[str, Any]:
    def of(split: Split) -> list[dict[str, Any]]:
        return [line for line in lines if line["target"].startswith(f"{split}/")]

    return {
        "kind": "boneage-ray data",
        "package_version": __version__,
        "source": source,
        "fingerprint": mark,
        "image": options.image.model_dump(mode="json"),
        "split_seed": options.split_seed,
        "counts": {split: sum(line["rows"] for line in of(split)) for split in SPLITS} | {"rejected": len(rejected)},
        "rejected_by_reason": dict(Counter(row["reason"] for row in rejected).most_common()),
        "ages": {split: _age_table([pair for line in of(split) for pair in line["ages"]]) for split in SPLITS},
        "parts": {split: [{"file": line["target"], "rows": line["rows"]} for line in of(split)] for split in SPLITS},
    }


def _age_table(pairs: list[list[Any]]) -> dict[str, dict[str, int]]:
    """Two-year age bin -> sex -> count, youngest first."""
    table: dict[str, Counter[str]] = {name: Counter() for name in AGE_BINS}
    for age, sex in pairs:
        table[age_bin(age)][sex or "unknown"] += 1
    return {name: dict(counts) for name, counts in table.items() if counts}
