"""Which inputs of an archive are new, changed or gone since their rows were written.

Every input has a mark of 16 bytes: a hash of its URI, and a hash of all else that the listing says of it: size, ETag or time of
modification, what a table or option gives. A committed part holds the marks of its rows, so an update compares marks and opens
no file. A URI is compared byte by byte: names that differ only in case or Unicode form are several inputs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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
_LEFT_OUT = ("uri", "patient", "position")


def mark_of(item: Input) -> bytes:
    """The mark of an input."""
    told: dict[str, Any] = {k: v for k, v in vars(item).items() if v is not None and k not in _LEFT_OUT}
    if item.position and item.position.startswith(
        "zip "
    ):  # size, method and checksum, but not the place in the zip file
        told["position"] = item.position.split()[2:]
    elif item.position:
        told["position"] = item.position
    state = json.dumps(told, sort_keys=True).encode()
    return _hash(item.uri.encode(errors="surrogateescape")) + _hash(state)


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=MARK_BYTES // 2).digest()


@dataclass(frozen=True)
class Redo:
    """A part whose rows are no longer those of the archive: its place in `Held`, and the numbers of the rows concerned.

    `changed`: (row, input as it is now), by row; `vanished`: rows whose input is gone.
    """

    part: int
    rows: int
    changed: tuple[tuple[int, Input], ...]
    vanished: tuple[int, ...]


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

    def meet(self, marks: Sequence[bytes]) -> Iterator[tuple[int, bool] | None]:
        """For each mark its place among the held inputs and whether its state is the same; None of one that is not held.

        Where an archive lists a URI twice, its rows are met in their order.
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
            yield free, int(self.states[free]) == state


def changes(held: Held, inputs: Iterable[Input]) -> Iterator[Input | Redo]:
    """New inputs as they are listed, and parts to renew: each when all its inputs were met, at the end those that lost some."""
    left = list(held.sizes)
    changed: dict[int, list[tuple[int, Input]]] = {}
    listed = iter(inputs)
    while batch := list(islice(listed, _BATCH)):
        for item, place in zip(batch, held.meet([mark_of(item) for item in batch]), strict=True):
            if place is None:
                yield item
                continue
            where, same = place
            part = int(held.parts[where])
            left[part] -= 1
            if not same:
                changed.setdefault(part, []).append((int(held.rows[where]), item))
            if not left[part] and part in changed:
                yield _redo(held, part, changed.pop(part), [])
    lost: dict[int, list[int]] = {}
    for where in np.flatnonzero(~held.met).tolist():
        lost.setdefault(int(held.parts[where]), []).append(int(held.rows[where]))
    for part in sorted(lost):
        yield _redo(held, part, changed.pop(part, []), lost[part])


def _redo(held: Held, part: int, changed: list[tuple[int, Input]], lost: list[int]) -> Redo:
    ordered = sorted(changed, key=lambda found: found[0])
    return Redo(part, held.sizes[part], tuple(ordered), tuple(sorted(lost)))
