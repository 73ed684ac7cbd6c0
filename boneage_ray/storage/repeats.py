"""How often this process made something again after a pause, because the storage did not take it at first."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Literal

Repeated = Literal["requests", "commits"]

_counts: Counter[str] = Counter()
_lock = threading.Lock()


def note_repeat(what: Repeated) -> None:
    """Count one more; thread-safe."""
    with _lock:
        _counts[what] += 1


def repeats() -> dict[str, int]:
    """The counts since the process began."""
    with _lock:
        return dict(_counts)
