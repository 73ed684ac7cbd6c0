"""What a model costs while it predicts: parameters, seconds and memory, measured where the evaluation predicts anyway."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from boneage_ray.prediction.ensemble import Ensemble, Scorer
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.records.schema import Row
from boneage_ray.tasks.task import Columns

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Metered:
    """A predictor that notes its costs. One case goes ahead of the clock: what is built once is no cost of a case."""

    def __init__(self, predictor: Predictor, name: str) -> None:
        self.predictor, self.name, self.sha256, self.batch_size = (
            predictor,
            name,
            predictor.sha256,
            predictor.batch_size,
        )
        self.parameters = predictor.parameters
        self.warm = False
        self.last: Row = {}

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> Columns:
        """As the predictor; `last` then holds the costs of this call."""
        if not self.warm and columns["sex"]:
            self.predictor({name: values[:1] for name, values in columns.items()})
            self.warm = True
        cuda = self.predictor.device.type == "cuda"
        _reset_peak(cuda)
        started = time.perf_counter()
        found = self.predictor(columns)
        seconds = time.perf_counter() - started
        self.last = {"name": self.name, "parameters": self.parameters, "cases": len(columns["sex"])}
        self.last |= {"seconds": seconds, "peak_bytes": _peak(cuda)}
        return found


def metered(scorer: Scorer) -> tuple[Scorer, list[Metered]]:
    """The same scorer with every single model in it metered, and these."""
    if isinstance(scorer, Ensemble):
        pairs = zip(scorer.predictors, scorer.names, strict=True)
        meters = [Metered(each, name) for each, name in pairs if isinstance(each, Predictor)]
        scorer.predictors = list(meters)
        return scorer, meters
    if isinstance(scorer, Predictor):
        meter = Metered(scorer, scorer.name)
        return meter, [meter]
    return scorer, []


def sum_of_costs(costs: Iterable[Row]) -> list[Row]:
    """Costs of many calls by model, in the order of their first: seconds a case, cases a second, and the highest peak in MB."""
    found: dict[str, Row] = {}
    for cost in costs:
        whole = found.setdefault(cost["name"], cost | {"cases": 0, "seconds": 0.0, "peak_bytes": None})
        whole["cases"] += cost["cases"]
        whole["seconds"] += cost["seconds"]
        peaks = [peak for peak in (whole["peak_bytes"], cost["peak_bytes"]) if peak is not None]
        whole["peak_bytes"] = max(peaks, default=None)
    return [
        {
            "name": name,
            "parameters": whole["parameters"],
            "milliseconds_per_case": round(1000 * whole["seconds"] / whole["cases"], 3),
            "peak_memory_mb": None if whole["peak_bytes"] is None else round(whole["peak_bytes"] / 1e6, 1),
        }
        for name, whole in found.items()
        if whole["cases"]
    ]


def _reset_peak(cuda: bool) -> None:
    if cuda:
        import torch

        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):  # not Linux, or not allowed: then the peak is that of the whole process
            _RESET.write_text("5")


def _peak(cuda: bool) -> int | None:
    """Bytes: on a GPU what the tensors took at most, else what the process held; None where neither is known."""
    if cuda:
        import torch

        return int(torch.cuda.max_memory_allocated())
    with contextlib.suppress(OSError, ValueError, StopIteration):
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return None
