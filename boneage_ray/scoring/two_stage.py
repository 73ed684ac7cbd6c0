"""Scoring in one stage or in two: every worker predicts itself, or workers on all CPUs ask a few predictors on GPUs.

Of the work on a part nothing changes: the worker that has it reads, decodes, prepares and commits. Only `Predictor` is elsewhere,
and gets the very batches that the worker would have computed itself. So rows are equal to the last bit in both shapes, whoever
else asks the same GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boneage_ray.prediction import routing
from boneage_ray.prediction.members import Models
from boneage_ray.prediction.runtimes import Compute
from boneage_ray.runtime.cluster import PartWorker, RowSource, run_parts
from boneage_ray.runtime.gpu_stage import gpu_stage
from boneage_ray.runtime.resources import Resources

if TYPE_CHECKING:
    from boneage_ray.prediction.ensemble import Scorer
    from boneage_ray.tasks.task import Columns


def run_scoring(
    rows: RowSource, worker: Callable[..., PartWorker], arguments: dict[str, Any], resources: Resources
) -> Iterator[dict[str, Any]]:
    """`run_parts` with a `ScoreWorker`, in the shape that the resources say."""
    if not resources.predictors:
        yield from run_parts(rows, worker, arguments, resources)
        return
    same = {name: arguments[name] for name in ("models", "sha256", "compute")} | {"route": arguments["places"].route}
    with gpu_stage(Networks, same, resources.predictors) as ask:
        yield from run_parts(rows, worker, {**arguments, "ask": ask}, resources)


def models_of(models: Sequence[str], route: bool, sha256: str) -> list[Models]:
    """The models of a worker, in an order that all workers agree on."""
    return sorted(routing.resolve_all(models, route, sha256), key=lambda found: found.sha256)


class Networks:
    """All models of a run on one device, asked by number; called from several threads."""

    def __init__(self, models: Sequence[str], sha256: str, route: bool, compute: Compute) -> None:
        import torch

        torch.set_num_threads(compute.threads)
        self.scorers = loaded(models_of(models, route, sha256), compute)
        self._cuda, self._own = torch.cuda if compute.device == "cuda" else None, threading.local()
        if self._cuda:
            self._cuda.synchronize()  # the streams below do not wait for the one that the weights came by

    def __call__(self, number: int, columns: Mapping[str, Sequence[Any]]) -> Columns:
        """What model `number` predicts."""
        with self._stream():
            return self.scorers[number](columns)

    def _stream(self) -> AbstractContextManager[Any]:
        """On a GPU each thread has a stream: what one copies, and waits for, does not hold up what the other one computes."""
        if not self._cuda:
            return nullcontext()
        if not hasattr(self._own, "stream"):
            self._own.stream = self._cuda.Stream()
        within: AbstractContextManager[Any] = self._cuda.stream(self._own.stream)
        return within


def loaded(models: Sequence[Models], compute: Compute) -> list[Scorer]:
    """The predictors of some models on the device of the run."""
    from boneage_ray.prediction.ensemble import load_predictor

    return [load_predictor(each, compute.device, compute.runtime, compute.auto, compute.coverage) for each in models]


@dataclass
class Elsewhere:
    """A scorer whose networks are in other processes: model `number` of `Networks`."""

    ask: Callable[..., Columns]
    number: int
    name: str
    sha256: str
    batch_size: int

    @classmethod
    def of(cls, ask: Callable[..., Columns], models: Sequence[Models], device: str) -> list[Scorer]:
        """One for each of some models, without loading any."""
        from boneage_ray.prediction.predictor import batch_size_of

        return [
            cls(ask, number, each.name, each.sha256, min(batch_size_of(device, image.size) for image in each.images))
            for number, each in enumerate(models)
        ]

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> Columns:
        """Columns in, columns out; images travel as one array each."""
        import numpy as np

        packed = {name: values if name == "sex" else np.stack(values) for name, values in columns.items()}
        return self.ask(self.number, packed)
