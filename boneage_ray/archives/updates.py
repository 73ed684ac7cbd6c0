"""The work of an update: parts for what is new, and parts that are replaced because inputs of theirs changed or are gone.

A new input comes into a new part. A part with changed or vanished inputs is written anew under its own name: the rows that stay
are copied, changed inputs are scored, the rows of vanished ones are left out. Every step is one atomic write of one file, so the
folder holds at most one row for each input at all times, and what an interrupted update did need not be known: the marks in the
parts say what is left to do.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from boneage_ray import storage
from boneage_ray.archives.archive import Archive, Input
from boneage_ray.archives.changes import Comparison, Held, Redo, mark_of
from boneage_ray.archives.in_parts import Notes, input_of, part_lengths, part_name, plain
from boneage_ray.errors import MismatchError
from boneage_ray.runtime import parts
from boneage_ray.runtime.marks import read_marks
from boneage_ray.runtime.pages import read_pages
from boneage_ray.runtime.parts import Part

_LEAD_SIZE, _LEAD_PARTS = 32, 4  # an update has few inputs, and each part is a file that stays


@dataclass(frozen=True)
class PartWork:
    """The work of one part: the inputs to score; in an update also its id, and what becomes of the rows that are there.

    `was`: the mark of the part that is replaced, empty for a new one. `changed`: the rows that `inputs` replace; `vanished`:
    those to leave out; `again`: how many of the changed ones are only tried once more.
    """

    inputs: list[Input]
    update: str = ""
    was: str = ""
    changed: list[int] = field(default_factory=list)
    vanished: list[int] = field(default_factory=list)
    again: int = 0


_OF_STORAGE = ("not_found", "permission_denied", "unreadable")


def marks_of(inputs: Iterable[Input], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """The marks of the inputs of a part; a file that the storage did not hand out is tried again by the next update."""
    told = zip(inputs, rows, strict=True)
    return b"".join(mark_of(item, row["step"] == "read" and row["reason"] in _OF_STORAGE) for item, row in told)


def work_of(part: Part) -> PartWork:
    """The work that a part's body describes; of a first run it is a list of inputs."""
    body = json.loads(part.body)
    if isinstance(body, list):
        return PartWork([input_of(item) for item in body])
    return PartWork(**{**body, "inputs": [input_of(item) for item in body["inputs"]]})


@dataclass(frozen=True)
class UpdateTodo:
    """The rows of work of an update, as `parts.Todo` has those of a run. `done`: target -> mark of the committed parts.

    `again`: inputs that could not be read are tried once more.
    """

    archive: Archive
    out: str
    folder: str
    update: str
    done: Mapping[str, str]
    owner: str = ""
    again: bool = True

    def __call__(self) -> Iterator[dict[str, Any]]:
        """Rows of work, then one row with the line {"listed": parts, "inputs": inputs, "work": rows, ...}."""
        notes, targets = Notes(), list(self.done)
        compared = compared_with(self.out, targets, self.again)
        number = max((int(target.rpartition("-")[2].partition(".")[0]) for target in targets), default=-1) + 1
        lengths = part_lengths(_LEAD_SIZE, _LEAD_PARTS)
        new: list[Input] = []
        length, made, renewed = next(lengths), 0, 0
        for change in compared.changes(notes.files(self.archive.inputs())):
            if isinstance(change, Redo):
                renewed += 1
                yield asdict(self._again(targets[change.part], change))
                continue
            new.append(change)
            if len(new) == length:
                yield asdict(self._new(number + made, new))
                new, length, made = [], next(lengths), made + 1
        if new:
            yield asdict(self._new(number + made, new))
            made += 1
        inputs = compared.held.listed + compared.closed.unlisted
        counts = {"listed": len(targets) + made, "inputs": inputs, "work": made + renewed}
        yield {
            "line": counts | {"marks": compared.held.digest, "said": notes.line() | {"closed": compared.closed.line()}}
        }

    def _new(self, number: int, inputs: list[Input]) -> Part:
        body = {"inputs": [plain(item) for item in inputs], "update": self.update}
        return Part(part_name(self.folder, number), json.dumps(body), len(inputs), self.owner)

    def _again(self, target: str, redo: Redo) -> Part:
        body = {
            "inputs": [plain(item) for _, item in redo.changed],
            "update": self.update,
            "was": self.done[target],
            "changed": [row for row, _ in redo.changed],
            "vanished": list(redo.vanished),
            "again": redo.again,
        }
        return Part(target, json.dumps(body), redo.rows - len(redo.vanished), self.owner)


def compared_with(out: str, targets: Iterable[str], again: bool = True) -> Comparison:
    """A comparison with the inputs whose rows the committed parts hold."""
    files = [storage.join(out, target) for target in targets]
    held = Held(list(parts.prefetched(read_marks, files, threads=8, ahead=64)))
    return Comparison(held, lambda part: _uris_of(files[part]), again)


@dataclass(frozen=True)
class Unchanged:
    """As `UpdateTodo` for a command that is no update: there is no work, or else `differs` is raised; nothing is tried again."""

    archive: Archive
    out: str
    folder: str
    done: Mapping[str, str]
    owner: str = ""

    def __call__(self) -> Iterator[dict[str, Any]]:
        """The row of the line at the end. Raises `MismatchError` if any input is new, changed or gone."""
        *work, end = islice(UpdateTodo(self.archive, self.out, self.folder, "", self.done, again=False)(), 2)
        if work or "line" not in end:
            raise differs(self.archive, self.out, self.folder)
        yield end


def differs(archive: Archive, out: str, folder: str) -> MismatchError:
    """The error for a folder of rows whose archive is another now: says how many inputs are, names the first, and the fix."""
    targets = [f"{folder}/{info.uri.rpartition('/')[2]}" for info in storage.list_folder(storage.join(out, folder))]
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for change in compared_with(out, targets, again=False).changes(Notes().files(archive.inputs())):
        if isinstance(change, Input):
            counts["new"] += 1
            first.setdefault("new", change.uri)
            continue
        counts["changed"] += len(change.changed)
        counts["gone"] += len(change.vanished)
        if change.changed:
            first.setdefault("changed", change.changed[0][1].uri)
        if change.vanished:
            first.setdefault("gone", _uris_of(storage.join(out, targets[change.part]))[change.vanished[0]])
    words = {"new": "without a row", "changed": "changed", "gone": "gone"}
    told = [f"{counts[kind]:,} {word}, {first[kind]}" for kind, word in words.items() if counts[kind]]
    what = storage.printable("; ".join(told)) or "its order or its notes"
    return parts.changed(f"inputs: {what}", "give --update to do only these, ")


def _uris_of(part: str) -> list[str]:
    return [uri or "" for uri in read_pages(part, ["input_uri"]).column(0).to_pylist()]


def update_in_words(counts: Mapping[str, Any]) -> list[str]:
    """What an update did, for a person."""
    told = [f"{counts[name]:,} {name}" for name in ("new", "changed", "vanished")]
    if counts.get("retried"):
        told.append(f"{counts['retried']:,} tried again, which could not be read before")
    lines = [f"update: {', '.join(told)}"]
    if counts.get("kept"):
        first, *others = counts["closed_inputs"]
        more = f" and {len(others):,} more" if others else ""
        lines.append(f"update: {counts['kept']:,} rows are kept whose files cannot be examined now: {first}{more}")
    return lines
