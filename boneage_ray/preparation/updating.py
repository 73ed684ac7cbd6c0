"""An update of prepared data: what is new or changed is prepared, unchanged records stay in their shards and in their split.

    DATA/cases/before.parquet    a copy of rejected.parquet, as it was when the update began
               update.json       of which manifest, and which work
               part-*            the cases of new and changed inputs

The dataset is what `manifest.json` names, so all that an update writes counts for nothing until the manifest is replaced. To keep
the images of a patient in one split, the patients of the records that stay are read from the table or the headers once more: no
hash of them outlives a run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from boneage_ray import storage
from boneage_ray.archives.archive import Input
from boneage_ray.archives.changes import Comparison, Redo
from boneage_ray.archives.in_parts import LARGE_SIZE, Notes, inputs_of, inputs_within, part_name, plain
from boneage_ray.archives.read import read_input
from boneage_ray.archives.updates import compared_with, update_in_words
from boneage_ray.decoding.dicom.read import patient_in
from boneage_ray.errors import InputProblem, MismatchError, StorageError
from boneage_ray.preparation.cases import CASES, keyed, patient_key, run_cases
from boneage_ray.preparation.collected import REJECTED, CollectedCases, FixedParts, read_small, shards_in, tidy
from boneage_ray.preparation.prepare import ImageConfig
from boneage_ray.preparation.split import SPLITS
from boneage_ray.runtime import parts
from boneage_ray.runtime.runs import say

_BEFORE, _STATE = f"{CASES}/before.parquet", f"{CASES}/update.json"
_PART_SIZE = LARGE_SIZE // 4
_HEAD_BYTES = 2**18  # of a DICOM file; the whole file is read if its header is longer


def restart_if_changed(out: str, listing: parts.Listing) -> None:
    """Begin a first preparation again, which was stopped, if the archive has changed since."""
    done = {target: line["mark"] for target, line in parts.committed(out, CASES).items()}
    try:
        for _ in parts.Todo(listing, done)() if done else ():
            pass
    except MismatchError:
        say("prepare: the archive has changed since this preparation was stopped; it begins again")
        for folder in (CASES, *SPLITS):
            storage.delete_tree(storage.join(out, folder))


def updated(listing: parts.Listing, manifest: dict[str, Any], arguments: Mapping[str, Any]) -> CollectedCases:
    """The cases of an archive as it is now: those of before that stay, and new ones.

    `arguments`: of `cases.CaseWorker`, without the key.
    """
    out = arguments["out"]
    state, shards = _begin(out, manifest), shards_in(manifest)
    key = patient_key(out)  # of a stopped update, or drawn now
    targets, listed = [*shards, _BEFORE], _Listed(listing)
    compared = compared_with(out, targets)
    _check_marks(out, compared, shards, manifest)
    new, redone = _changes(compared, listed)
    work = [*new, *(item for redo in redone.values() for _, item in redo.changed)]
    pieces = _pieces(work, inputs_within(ImageConfig(**arguments["image"]).record_bytes, _PART_SIZE))
    _forget_other_work(out, manifest, state, parts.fingerprint(pieces))
    job = parts.PartsJob("prepare", out, FixedParts(pieces), (CASES,))
    completed = parts.complete(job, partial(run_cases, arguments={**arguments, "key": key}))
    before = _Before.read(out, targets, redone)
    counts = {
        "new": len(new),
        "changed": sum(len(redo.changed) - redo.again for redo in redone.values()),
        "retried": sum(redo.again for redo in redone.values()),
        "vanished": len(before.gone),
        "vanished_inputs": before.gone,
        **compared.closed.line(),
    }
    for text in update_in_words(counts):
        say(storage.printable(text))
    made = [line["target"] for line in completed.lines]
    fresh = read_small(out, made, first=len(targets))
    fresh = _with(fresh, "kept", [before.changed.get(uri) for uri in fresh["input_uri"].to_pylist()])
    table = pa.concat_tables([_with_patients(before.stay, listed, key), fresh])
    return CollectedCases(table, [*targets, *made], listed.marks, [listed.notes.line()], shards, counts)


def _pieces(work: list[Input], most: int) -> tuple[tuple[str, str, int], ...]:
    """Inputs as parts of cases: (target, body, size)."""
    chunks = [work[start : start + most] for start in range(0, len(work), most)]
    return tuple(
        (part_name(CASES, k), json.dumps([plain(item) for item in found]), len(found)) for k, found in enumerate(chunks)
    )


def _begin(out: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of an update of this manifest that was stopped; begins one if there is none."""
    place, mark = storage.join(out, _STATE), parts.fingerprint(manifest)
    state: dict[str, Any] = storage.read_json(place) if storage.exists(place) else {}
    if state.get("manifest") == mark:
        return state
    tidy(out, manifest)
    storage.write_bytes(storage.join(out, _BEFORE), storage.read_bytes(storage.join(out, REJECTED)))
    storage.write_json(place, {"manifest": mark})
    return {"manifest": mark}


def _forget_other_work(out: str, manifest: Mapping[str, Any], state: dict[str, Any], work: str) -> None:
    """Delete what a stopped update did for an archive that was another."""
    if state.get("work") == work:
        return
    named = shards_in(manifest)
    for folder in (CASES, *SPLITS):
        for target in parts.committed(out, folder):
            if target not in named:
                storage.delete_tree(storage.join(out, target))
    storage.write_json(storage.join(out, _STATE), state | {"work": work})


def _check_marks(out: str, compared: Comparison, shards: Mapping[str, int], manifest: Mapping[str, Any]) -> None:
    if compared.held.sizes != [*shards.values(), manifest["counts"]["rejected"]]:
        raise MismatchError(
            f"{out} was prepared by an earlier version of boneage, which did not note what an update compares: "
            "give another --out, with --split and the old splits.csv"
        )


@dataclass
class _Listed:
    """One way through the listing: its cases, and what else it says."""

    listing: parts.Listing
    marks: str = ""
    notes: Notes = field(default_factory=Notes)
    patients: dict[str, str] = field(default_factory=dict)  # URI -> patient that a table names
    packed: dict[str, Input] = field(default_factory=dict)  # URI -> entry of a zip or tar file

    def inputs(self) -> Iterator[Input]:
        """All inputs that become cases."""
        for row in parts.Todo(self.listing, {})():
            if "line" in row:
                self.marks = row["line"]["marks"]
                continue
            for item in inputs_of(parts.Part(**row)):
                self._keep(item)
                if not item.is_remark:
                    yield item

    def _keep(self, item: Input) -> None:
        self.notes.keep(item)
        if item.patient:
            self.patients[item.uri] = item.patient
        if item.position:
            self.packed[item.uri] = item


def _changes(compared: Comparison, listed: _Listed) -> tuple[list[Input], dict[int, Redo]]:
    """The new inputs, and what becomes of the rows of before, by part."""
    new: list[Input] = []
    redone: dict[int, Redo] = {}
    for change in compared.changes(listed.inputs()):
        if isinstance(change, Redo):
            redone[change.part] = change
        else:
            new.append(change)
    return new, redone


@dataclass(frozen=True)
class _Before:
    """The cases of before: those that `stay`, with the split of those that are records; and only by URI what went.

    `gone`: inputs that have vanished. `changed`: the split of each changed input, which its new record keeps; None if it was
    rejected.
    """

    stay: pa.Table
    gone: list[str]
    changed: dict[str, str | None]

    @classmethod
    def read(cls, out: str, targets: list[str], redone: Mapping[int, Redo]) -> _Before:
        table = read_small(out, targets)
        places = list(zip(table["part"].to_pylist(), table["row"].to_pylist(), strict=True))
        gone = {(part, row) for part, redo in redone.items() for row in redo.vanished}
        changed = {(part, row) for part, redo in redone.items() for row, _ in redo.changed}
        sides = [None if target == _BEFORE else target.partition("/")[0] for target in targets]
        whole = _with(table, "kept", [sides[part] for part, _ in places])

        def chosen(wanted: Callable[[tuple[int, int]], bool]) -> pa.Table:
            return whole.filter(pa.array([wanted(place) for place in places], pa.bool_()))

        again = chosen(lambda place: place in changed).select(["input_uri", "kept"]).to_pylist()
        return cls(
            chosen(lambda place: place not in gone and place not in changed),
            sorted(uri or "" for uri in chosen(lambda place: place in gone)["input_uri"].to_pylist()),
            {row["input_uri"]: row["kept"] for row in again if row["input_uri"]},
        )


def _with(table: pa.Table, name: str, values: list[str | None]) -> pa.Table:
    """A table with other values in one column of texts."""
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.string()))


def _with_patients(old: pa.Table, listed: _Listed, key: str) -> pa.Table:
    """Cases of before with the keyed hash of their patient, from the table or from the header of the file."""
    unread: list[str] = []

    def of(case: tuple[str | None, bool]) -> str | None:
        uri, from_dicom = case
        if uri in listed.patients or not from_dicom:
            return keyed(listed.patients.get(uri or ""), key)
        try:
            return keyed(_patient(listed.packed.get(uri or "") or Input(uri or "", "")), key)
        except (InputProblem, StorageError):
            unread.append(uri or "")
            return None

    known = [pc.is_valid(old[name]) for name in ("study_uid", "series_uid", "sop_uid")]
    from_dicom = pc.or_(pc.or_(known[0], known[1]), known[2]).to_pylist()
    cases = zip(old["input_uri"].to_pylist(), from_dicom, strict=True)
    patients = list(parts.prefetched(of, cases, threads=16, ahead=256))
    if unread:
        say(
            f"prepare: the patients of {len(unread):,} records are not known now, since their files cannot be read "
            f"({storage.printable(unread[0])}); new images of theirs may come into another split"
        )
    return _with(old, "patient", patients)


def _patient(item: Input) -> str | None:
    """The patient hash in the header of a DICOM file."""
    if item.position is None:
        try:
            return patient_in(storage.read_range(item.uri, 0, _HEAD_BYTES))
        except InputProblem:
            pass  # the header is longer, or deflated
    data = read_input(item)
    if isinstance(data, InputProblem):
        raise data
    return patient_in(data)
