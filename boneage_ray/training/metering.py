"""What one training worker counts for Prometheus: once a second, not at every step."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from boneage_ray.runtime import metrics

RECORD_SECONDS = 1.0
T = TypeVar("T")


class TrainingMeter:
    """Images, seconds and losses of one worker; losses are those of rank 0, which knows the epoch's of all."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._clock = metrics.StepClock()
        self._cases, self._since = 0, time.perf_counter()
        metrics.TRAIN_WORKERS.set(1)

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches of an epoch, with the time for which the loop waits for them."""
        self._since = time.perf_counter()
        yield from self._clock.waiting("data", batches)
        self._record()

    def step(self, cases: int, loss: float) -> None:
        """After a step; `loss` is the newest that is known, NaN at the beginning."""
        self._cases += cases
        if time.perf_counter() - self._since >= RECORD_SECONDS:
            self._record()
            if self._rank == 0:
                metrics.TRAIN_LOSS.set(loss, split="train")

    def epoch(self, line: dict[str, Any]) -> None:
        """After a committed epoch, with its line of the history."""
        metrics.TRAIN_SECONDS.add(line["val_seconds"], phase="validation")
        if self._rank == 0:
            metrics.TRAIN_EPOCH.set(line["epoch"])
            for split, key in (("train", "train_loss"), ("val", "val_loss")):
                if line[key] is not None:
                    metrics.TRAIN_LOSS.set(line[key], split=split)

    def _record(self) -> None:
        now = time.perf_counter()
        waited = self._clock.take().get("data", 0.0)
        metrics.TRAIN_IMAGES.add(self._cases)
        metrics.TRAIN_SECONDS.add(waited, phase="data")
        metrics.TRAIN_SECONDS.add(now - self._since - waited, phase="step")
        self._cases, self._since = 0, now
