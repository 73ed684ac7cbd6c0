"""Which inputs of an archive are new, changed or gone since their rows were written.

Every input has a mark of 16 bytes: a hash of its URI, or of its id where a label has no file, and a hash of all else that the
listing says of it: size, ETag or time of modification, what a table or option gives. A committed part holds the marks of its
rows, so an update compares marks and opens no file. A URI is compared byte by byte: names that differ only in case or Unicode
form are several inputs.

An input that is closed, because it or what is in it cannot be examined now, proves nothing: it and everything below its URI keep
the rows that they have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneage_ray.archives.archive import Input

MARK_BYTES = 16
_BATCH = 512
_MARK = np.dtype([("key", ">u8"), ("state", ">u8")])
# The id of a patient must not be guessed from a hash of it, and decides no row.
_LEFT_OUT = ("uri", "patient", "position", "closed")
_SHOWN = 1000  # closed inputs that are named
_AGAIN = 1  # the last bit of a state


def mark_of(item: Input, again: bool = False) -> bytes:
    """The mark of an input. `again`: its file could not be read, so that the next update tries it once more."""
    told: dict[str, Any] = {k: v for k, v in vars(item).items() if v is not None and k not in _LEFT_OUT}
    if item.position and item.position.startswith(
        "zip "
    ):  # size, method and checksum, but not the place in the zip file
        told["position"] = item.position.split()[2:]
    elif item.position:
        told["position"] = item.position
    state = json.dumps(told, sort_keys=True).encode()
    end = bytearray(_hash(state))
    end[-1] = end[-1] & ~_AGAIN | again
    name = item.uri or f"\0{item.record_id}"  # a label without a file
    return _hash(name.encode(errors="surrogateescape")) + end


def marks_in(marks: bytes) -> list[bytes]:
    """The single marks of a part."""
    return [marks[k : k + MARK_BYTES] for k in range(0, len(marks), MARK_BYTES)]


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=MARK_BYTES // 2).digest()


@dataclass(frozen=True)
class Redo:
    """A part whose rows are no longer those of the archive: its place in `Held`, and the numbers of the rows concerned.

    `changed`: (row, input as it is now), by row; `vanished`: rows whose input is gone. `again`: how many of `changed` are as they
    were, but could not be read.
    """

    part: int
    rows: int
    changed: tuple[tuple[int, Input], ...]
    vanished: tuple[int, ...]
    again: int = 0


@dataclass
class Closed:
    """The inputs of a listing that could not be examined; how many rows are kept, and because of which of them.

    `unlisted`: how many of these rows have no input in the listing.
    """

    uris: set[str] = field(default_factory=set)
    kept: int = 0
    unlisted: int = 0
    keeping: set[str] = field(default_factory=set)

    def keeps(self, uri: str) -> bool:
        """Whether a row without an input is kept: its URI is below one of them, also as an entry of a zip or tar file."""
        folders = (uri[:end].removesuffix("!") for end in range(len(uri)) if uri[end] == "/")
        above = next((place for place in (*folders, uri) if place in self.uris), None)
        if above is not None:
            self.unlisted += 1
            self.keep(above)
        return above is not None

    def keep(self, place: str) -> None:
        """Count one row that is kept because of a place."""
        self.kept += 1
        if len(self.keeping) < _SHOWN:
            self.keeping.add(place)

    def line(self) -> dict[str, Any]:
        """The count of rows and the first places, as JSON values; nothing where no row is kept."""
        return {"kept": self.kept, "closed_inputs": sorted(self.keeping)} if self.kept else {}


class Held:
    """The inputs whose rows are committed, by the marks of each part; 29 bytes an input."""

    def __init__(self, marks: Sequence[bytes]) -> None:
        self.sizes = [len(part) // MARK_BYTES for part in marks]
        table = np.frombuffer(b"".join(marks), _MARK)
        order = np.argsort(table["key"], kind="stable")
        self.keys: NDArray[np.uint64] = table["key"][order].astype(np.uint64)
        self.states: NDArray[np.uint64] = table["state"][order].astype(np.uint64)
        self.parts = np.repeat(np.arange(len(marks), dtype=np.int32), self.sizes)[order]
        self.rows = np.concatenate([np.arange(0, dtype=np.int32), *(np.arange(n, dtype=np.int32) for n in self.sizes)])
        self.rows = self.rows[order]
        self.met = np.zeros(len(order), bool)
        self.listed, self._digest = 0, sha256()

    @property
    def digest(self) -> str:
        """A hash of all marks that were asked for, in their order."""
        return self._digest.hexdigest()[:16]

    def meet(self, marks: Sequence[bytes]) -> Iterator[tuple[int, bool, bool] | None]:
        """For each mark its place among the held inputs, whether its state is the same, and whether it could not be read.

        None of one that is not held. Where an archive lists a URI twice, its rows are met in their order.
        """
        asked = np.frombuffer(b"".join(marks), _MARK)
        self.listed += len(marks)
        self._digest.update(asked.tobytes())
        keys, states = asked["key"].astype(np.uint64), asked["state"].astype(np.uint64)
        first, end = (np.searchsorted(self.keys, keys, side).tolist() for side in ("left", "right"))
        for place, last, state in zip(first, end, states.tolist(), strict=True):
            free = next((k for k in range(place, last) if not self.met[k]), None)
            if free is None:
                yield None
                continue
            self.met[free] = True
            was = int(self.states[free])
            yield free, was & ~_AGAIN == state, bool(was & _AGAIN)

    def unmet(self) -> dict[int, list[int]]:
        """Part -> its rows whose inputs were not met, in order."""
        found: dict[int, list[int]] = {}
        for where in np.flatnonzero(~self.met).tolist():
            found.setdefault(int(self.parts[where]), []).append(int(self.rows[where]))
        return {part: sorted(found[part]) for part in sorted(found)}


@dataclass
class Comparison:
    """A listing compared with the rows that are held. `uris_of`: the URIs of a part's rows; asked only where some are unmet.

    `again`: inputs that could not be read are to be tried once more.
    """

    held: Held
    uris_of: Callable[[int], Sequence[str]]
    again: bool = True
    closed: Closed = field(default_factory=Closed)

    def changes(self, inputs: Iterable[Input]) -> Iterator[Input | Redo]:
        """New inputs as they are listed, and parts to renew: each when all its inputs were met, at the end if it lost some."""
        left = list(self.held.sizes)
        changed: dict[int, list[tuple[int, Input, bool]]] = {}
        listed = iter(inputs)
        while batch := list(islice(listed, _BATCH)):
            self.closed.uris.update(item.uri for item in batch if item.closed)
            for item, place in zip(batch, self.held.meet([mark_of(item) for item in batch]), strict=True):
                if place is None:
                    yield item
                    continue
                where, same, unread = place
                part = int(self.held.parts[where])
                left[part] -= 1
                if item.closed:
                    if not same:
                        self.closed.keep(item.uri)
                elif not same or (unread and self.again):
                    changed.setdefault(part, []).append((int(self.held.rows[where]), item, same))
                if not left[part] and part in changed:
                    yield self._redo(part, changed.pop(part), [])
        for part, rows in self.held.unmet().items():
            lost = self._lost(part, rows)
            if lost or part in changed:
                yield self._redo(part, changed.pop(part, []), lost)

    def _lost(self, part: int, rows: list[int]) -> list[int]:
        """The rows whose inputs are gone, without those below something that cannot be examined."""
        if not self.closed.uris:
            return rows
        uris = self.uris_of(part)
        return [row for row in rows if not self.closed.keeps(uris[row])]

    def _redo(self, part: int, changed: list[tuple[int, Input, bool]], lost: list[int]) -> Redo:
        ordered = sorted(changed, key=lambda found: found[0])
        again = sum(same for _, _, same in changed)
        return Redo(part, self.held.sizes[part], tuple((row, item) for row, item, _ in ordered), tuple(lost), again)
