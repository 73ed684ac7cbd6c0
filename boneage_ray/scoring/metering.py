"""What one scoring actor counts for Prometheus: once a part, and the time to read each file."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from boneage_ray.preparation.isolated import DecoderCounts
from boneage_ray.records.schema import Row
from boneage_ray.runtime import metrics

A = TypeVar("A")
B = TypeVar("B")


class ScoreMeter:
    """The clock of an actor's parts, one after the other; `decoders` are the counts of its decoder pools."""

    def __init__(self, decoders: Sequence[DecoderCounts]) -> None:
        self._decoders, self._decoded = decoders, 0.0
        self._clock = metrics.StepClock()
        metrics.SCORE_ACTORS.set(1)

    def read(self, work: Callable[[A], B], item: A) -> B:
        """`work(item)`, timed as the reading of one file; thread-safe."""
        started = time.perf_counter()
        data = work(item)
        seconds = time.perf_counter() - started
        self._clock.add("read", seconds)
        metrics.SCORE_READ_SECONDS.observe(seconds)
        return data

    def waiting(self, loaded: Iterable[A]) -> Iterator[A]:
        """The inputs as they come, with the time for which prediction waits for them."""
        return self._clock.waiting("wait", loaded)

    def predicting(self) -> AbstractContextManager[None]:
        """The time of a block, waiting included: `record` takes that off."""
        return self._clock.step("predict")

    def writing(self) -> AbstractContextManager[None]:
        """The time of a block that commits rows."""
        return self._clock.step("write")

    def record(self, rows: Sequence[Row]) -> None:
        """Count the rows of a committed part, and the seconds that it took."""
        for (status, reason), files in Counter((row["status"], row["reason"] or "none") for row in rows).items():
            metrics.SCORE_FILES.add(files, status=status, reason=reason)
        metrics.SCORE_BYTES.add(sum(row["input_bytes"] or 0 for row in rows))
        for step, seconds in self._seconds().items():
            metrics.SCORE_SECONDS.add(seconds, step=step)

    def _seconds(self) -> dict[str, float]:
        seconds = self._clock.take()
        seconds["predict"] = seconds.get("predict", 0.0) - seconds.get("wait", 0.0)
        decoded = sum(counts.seconds for counts in self._decoders)
        seconds["decode"], self._decoded = decoded - self._decoded, decoded
        return seconds
