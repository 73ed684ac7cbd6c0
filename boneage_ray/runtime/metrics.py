"""What runs count for Prometheus: every name, label and value of a label in one place.

`SCORE_FILES.add(3, status="scored", reason="none")` becomes, on the metrics port of the node::

    ray_boneage_score_files_total{status="scored",reason="none",SessionName="...",NodeAddress="..."} 3

Ray's agent on each node exports what the processes of the node have recorded, ten seconds later at most. Without Ray a metric
does nothing, and this module imports Ray only when a process that has it records something: 3 microseconds a record, measured.

A label takes only the values that stand here, and any other becomes `other`. So no file name, id or text of a file can become a
label, and their number is bounded. Ray 2.60 computes the sum of a histogram from its buckets, which may be off by half a bucket:
histograms are for quantiles, and seconds are added up by counters.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args

from boneage_ray.errors import Reason, Status

PREFIX = "ray_"  # Ray's, before every name
OTHER = "other"
T = TypeVar("T")

STATUSES = get_args(Status)
REASONS = ("none", *get_args(Reason))  # none: it was scored
SCORE_STEPS = ("read", "decode", "wait", "predict", "write")
ROUTES = (
    *("/v1/predict", "/v1/explain", "/v1/models", "/healthz", "/readyz"),
    *("/", "/v1/about", "/v1/sample", "/v1/report", "/docs", "/openapi.json"),
)
HTTP_STATUSES = (
    "200",
    "400",
    "401",
    "403",
    "404",
    "405",
    "406",
    "408",
    "413",
    "415",
    "422",
    "429",
    "499",
    "500",
    "503",
)
CLIENT_LEFT = "499"  # as nginx counts a client that did not wait for its answer
TRAIN_PHASES = ("data", "step", "validation")
SPLITS = ("train", "val")

_made: dict[str, Any] = {}


@dataclass(frozen=True)
class Metric:
    """One metric; `labels`: the values that each label can take, None where the configuration bounds them (model names)."""

    name: str
    help: str
    labels: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)

    @property
    def series(self) -> tuple[str, ...]:
        """The names that Prometheus finds."""
        return (PREFIX + self.name,)

    def tags(self, labels: Mapping[str, str]) -> dict[str, str]:
        """What is exported of some labels; a value that is not listed becomes `other`. Raises `KeyError` for a missing label."""
        return {
            name: labels[name] if known is None or labels[name] in known else OTHER
            for name, known in self.labels.items()
        }

    def _instrument(self) -> Any:  # noqa: ANN401  a metric of Ray
        """Ray's own metric behind this one, made at its first use; None where no Ray is connected."""
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return None
        if self.name not in _made:
            _made[self.name] = self._make()
        return _made[self.name]

    def _make(self) -> Any:  # noqa: ANN401
        raise NotImplementedError


class Counter(Metric):
    """A sum that only grows."""

    @property
    def series(self) -> tuple[str, ...]:
        """See `Metric`."""
        return (f"{PREFIX}{self.name}_total",)

    def add(self, amount: float = 1, **labels: str) -> None:
        """Add what is more than 0."""
        if amount > 0 and (instrument := self._instrument()) is not None:
            instrument.inc(amount, self.tags(labels))

    def _make(self) -> Any:  # noqa: ANN401
        from ray.util import metrics

        return metrics.Counter(self.name, self.help, tuple(self.labels))


class Gauge(Metric):
    """A value of one process as it is now; it goes when the process ends."""

    def set(self, value: float, **labels: str) -> None:
        """Set it, unless the value is not finite."""
        if math.isfinite(value) and (instrument := self._instrument()) is not None:
            instrument.set(value, self.tags(labels))

    def _make(self) -> Any:  # noqa: ANN401
        from ray.util import metrics

        return metrics.Gauge(self.name, self.help, tuple(self.labels))


@dataclass(frozen=True)
class Histogram(Metric):
    """How often a value fell into each bucket; `buckets` are the upper ends."""

    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """See `Metric`."""
        return tuple(f"{PREFIX}{self.name}_{end}" for end in ("bucket", "sum", "count"))

    def observe(self, value: float, **labels: str) -> None:
        """Count one value."""
        if (instrument := self._instrument()) is not None:
            instrument.observe(value, self.tags(labels))

    def _make(self) -> Any:  # noqa: ANN401
        from ray.util import metrics

        return metrics.Histogram(self.name, self.help, list(self.buckets), tuple(self.labels))


_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

SCORE_FILES = Counter(
    "boneage_score_files", "Files with a committed result row", {"status": STATUSES, "reason": REASONS}
)
SCORE_BYTES = Counter("boneage_score_bytes", "Bytes of these files")
SCORE_SECONDS = Counter("boneage_score_seconds", "Seconds of scoring by step, over all threads", {"step": SCORE_STEPS})
SCORE_READ_SECONDS = Histogram("boneage_score_read_seconds", "Seconds to read one file from storage", buckets=_SECONDS)
SCORE_ACTORS = Gauge("boneage_score_actors", "Actors that score at the moment")

SERVE_REQUESTS = Counter("boneage_serve_requests", "Answered requests", {"route": ROUTES, "status": HTTP_STATUSES})
SERVE_REQUEST_SECONDS = Histogram(
    "boneage_serve_request_seconds",
    "Seconds from a request to its answer",
    {"route": ROUTES},
    buckets=_SECONDS,
)
SERVE_OPEN_REQUESTS = Gauge("boneage_serve_open_requests", "Requests for a model that wait or are worked on")
SERVE_IMAGES = Counter(
    "boneage_serve_images",
    "Files that a model has answered for",
    {"model": None, "status": STATUSES, "reason": REASONS},
)
SERVE_BATCH_IMAGES = Histogram(
    "boneage_serve_batch_images", "Images that were predicted at once", buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)

TRAIN_IMAGES = Counter("boneage_train_images", "Images that were trained on, repeated ones too")
TRAIN_SECONDS = Counter(
    "boneage_train_seconds", "Seconds of training by phase, over all workers", {"phase": TRAIN_PHASES}
)
TRAIN_LOSS = Gauge("boneage_train_loss", "Last loss", {"split": SPLITS})
TRAIN_WORKERS = Gauge("boneage_train_workers", "Workers that train at the moment")
TRAIN_EPOCH = Gauge("boneage_train_epoch", "Epochs that are committed")

METRICS: tuple[Metric, ...] = (
    *(SCORE_FILES, SCORE_BYTES, SCORE_SECONDS, SCORE_READ_SECONDS, SCORE_ACTORS),
    *(SERVE_REQUESTS, SERVE_REQUEST_SECONDS, SERVE_OPEN_REQUESTS, SERVE_IMAGES, SERVE_BATCH_IMAGES),
    *(TRAIN_IMAGES, TRAIN_SECONDS, TRAIN_LOSS, TRAIN_WORKERS, TRAIN_EPOCH),
)


class StepClock:
    """Seconds by step, added up over threads until they are taken."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, step: str, seconds: float) -> None:
        """Add seconds to a step."""
        with self._lock:
            self._seconds[step] += seconds

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time of a block, however it ends."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def waiting(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The items, with the time until each one is there."""
        source = iter(items)
        while True:
            with self.step(name):
                item = next(source, _END)
            if isinstance(item, _End):
                return
            yield item

    def take(self) -> dict[str, float]:
        """The seconds since the last call."""
        with self._lock:
            taken, self._seconds = dict(self._seconds), defaultdict(float)
        return taken


class _End:
    """What no iterator yields."""


_END = _End()
