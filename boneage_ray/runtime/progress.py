"""What is said while parts are worked on: files and bytes a second, the time that is left, what failed, and who works.

How many files there are is known once the listing has come to its end. It runs in a task far ahead of the work, so it leaves the
number in `OUT/listed.json`, where the driver looks for it; the file goes with the end of the run.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol

from boneage_ray import storage
from boneage_ray.errors import StorageError
from boneage_ray.runtime import lease
from boneage_ray.runtime.runs import ProgressLine

LISTED = "listed.json"
LOOK_SECONDS = 5.0
_REASONS = 4  # that a line has room for


class RowsOfWork(Protocol):
    """Yields rows of work, and at the end the line of what was listed."""

    def __call__(self) -> Iterator[dict[str, Any]]:
        """All rows, from the first."""


def announced(rows: RowsOfWork, out: str) -> Iterator[dict[str, Any]]:
    """The rows; the count of inputs goes to OUT, if there is one, as soon as the last one is listed."""
    for row in rows():
        if out and "listed" in row.get("line", {}):
            storage.write_json(storage.join(out, LISTED), {"inputs": row["line"]["inputs"]})
        yield row


class PartsProgress:
    """The progress of a run whose parts come as lines of counts; `done`: inputs of parts that were committed before.

    Without an OUT nobody says how many inputs there are before the last one is done.
    """

    def __init__(self, title: str, out: str, done: int) -> None:
        self.out, self.uri = out, storage.join(out, LISTED) if out else ""
        self.done, self.total = done, 0
        self.bar = ProgressLine(title, None)
        self.failed: Counter[str] = Counter()
        self.workers: set[str] = set()
        self._first: tuple[float, int] | None = None
        self._new = self._bytes = 0
        self._looked = time.monotonic()

    def __enter__(self) -> PartsProgress:
        self.bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.__exit__()
        with suppress(StorageError):  # what ended the run is what counts
            if self.uri and lease.holding(self.out).problem() is None:
                storage.delete_tree(self.uri)

    def listed(self, inputs: int) -> None:
        """All that there is was listed."""
        self.total = inputs

    def came(self, line: Mapping[str, Any], added: int, worker: str) -> None:
        """A part was committed: `added` inputs more than before, by a worker named "node/process"."""
        if self._first is None:
            self._first = time.monotonic(), line["size"]
        self.done, self._new = self.done + added, self._new + line["size"]
        self._bytes += line.get("bytes", 0)
        self.failed.update(line.get("reasons", {}))
        self.workers.add(worker)
        if not self.total and time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            with suppress(StorageError):  # a look must not end a run
                if self.uri and storage.exists(self.uri):
                    self.total = storage.read_json(self.uri)["inputs"]
        self.bar.total = self.total or None
        self.bar.update(self.done, self.text())

    def text(self) -> str:
        """Rates since the first part came, when all were at work."""
        seconds, new = self._since_first()
        parts = []
        if seconds > 0:
            rate = new / seconds
            parts.append(f"{rate:.1f} files/s")
            if self._bytes:
                parts.append(f"{self._bytes / self._new * rate / 1e6:.1f} MB/s")
            if self.total:
                parts.append(f"about {time_in_words(max(self.total - self.done, 0) / rate)} left")
        rates = [", ".join(parts)] if parts else []
        return "; ".join([*rates, *self._not_scored(), self._who()])

    def _since_first(self) -> tuple[float, int]:
        if self._first is None:
            return 0.0, 0
        when, size = self._first
        return (time.monotonic() - when if self._new > size else 0.0), self._new - size

    def _not_scored(self) -> list[str]:
        named = ", ".join(f"{reason} {count:,}" for reason, count in self.failed.most_common(_REASONS))
        return [f"{self.failed.total():,} refused or failed ({named})"] if named else []

    def _who(self) -> str:
        nodes = {worker.partition("/")[0] for worker in self.workers}
        one = len(self.workers) == 1
        on = f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
        return f"{len(self.workers)} worker{'' if one else 's'}{on}"


def time_in_words(seconds: float) -> str:
    """A time for people.

    >>> time_in_words(41), time_in_words(400), time_in_words(9000), time_in_words(200000)
    ('41 s', '7 min', '2.5 h', '2.3 days')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36 * 3600 else f"{seconds / 86400:.1f} days"
