"""What one scoring actor counts for Prometheus and for the line of each part: once a part, and the time to read each file."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from boneage_ray.preparation.isolated import DecoderCounts
from boneage_ray.records.schema import Row
from boneage_ray.runtime import metrics
from boneage_ray.storage.repeats import repeats

A = TypeVar("A")
B = TypeVar("B")


class ScoreMeter:
    """The clock of an actor's parts, one after the other; `decoders` are the counts of its decoder pools."""

    def __init__(self, decoders: Sequence[DecoderCounts]) -> None:
        self._decoders, self._decoded, self._deaths = decoders, 0.0, 0
        self._repeats = repeats()
        self._clock = metrics.StepClock()
        metrics.SCORE_ACTORS.set(1)

    def read(self, work: Callable[[A], B], item: A) -> tuple[B, float]:
        """`work(item)`, and its seconds as those of reading one file; thread-safe."""
        started = time.perf_counter()
        data = work(item)
        seconds = time.perf_counter() - started
        self._clock.add("read", seconds)
        metrics.SCORE_READ_SECONDS.observe(seconds)
        return data, seconds

    def waiting(self, loaded: Iterable[A]) -> Iterator[A]:
        """The inputs as they come, with the time for which prediction waits for them."""
        return self._clock.waiting("wait", loaded)

    def predicting(self) -> AbstractContextManager[None]:
        """The time of a block, waiting included: `taken` takes that off."""
        return self._clock.step("predict")

    def writing(self) -> AbstractContextManager[None]:
        """The time of a block that commits rows; it is in what the next part takes."""
        return self._clock.step("write")

    def taken(self) -> dict[str, Any]:
        """What a part cost, for its line: seconds by step since the last call, how often a decoder process died, and what the
        storage was asked again; of commits that counts with the next part."""
        seconds = self._clock.take()
        seconds["predict"] = seconds.get("predict", 0.0) - seconds.get("wait", 0.0)
        decoded, deaths = (sum(getattr(counts, name) for counts in self._decoders) for name in ("seconds", "deaths"))
        seconds["decode"], died = decoded - self._decoded, deaths - self._deaths
        self._decoded, self._deaths = decoded, deaths
        before, self._repeats = self._repeats, repeats()
        again = {what: count - before.get(what, 0) for what, count in self._repeats.items()}
        return {"seconds": seconds, "decoder_deaths": died, "repeats": again}

    def record(self, rows: Sequence[Row], taken: dict[str, Any]) -> None:
        """Count the rows of a committed part, and what it cost."""
        for (status, reason), files in Counter((row["status"], row["reason"] or "none") for row in rows).items():
            metrics.SCORE_FILES.add(files, status=status, reason=reason)
        metrics.SCORE_BYTES.add(sum(row["input_bytes"] or 0 for row in rows))
        for step, seconds in taken["seconds"].items():
            metrics.SCORE_SECONDS.add(seconds, step=step)
