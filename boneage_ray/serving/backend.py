"""A served model as the web app sees it, and `model=auto`: of several models the one that an image fits. No Ray here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from boneage_ray.archives.archive import Input
from boneage_ray.prediction.routing import routed, sha256_of_all
from boneage_ray.records.schema import Row
from boneage_ray.serving.schema import ModelInfo
from boneage_ray.tasks.known import TASKS

AUTO = "auto"


class Backend(Protocol):
    """One model that predicts; raises `OverloadedError` or `UnavailableError` when it cannot at the moment."""

    async def predict(self, data: bytes, item: Input) -> Row:
        """The result row of one file, whatever is in it."""

    async def explain(self, data: bytes, item: Input) -> bytes | Row:
        """A PNG of what the result of one file rests on, or the row that says why there is none."""

    async def ready(self) -> bool:
        """Whether a real prediction was made and the next one would be."""


@dataclass(frozen=True)
class Served:
    """A model under its name; `unnamed`: what answers requests that name no model, if that is not the same."""

    info: ModelInfo
    backend: Backend
    unnamed: Backend | None = None


def automatic(served: Sequence[Served]) -> list[Served]:
    """What answers for `model=auto`; nothing where one model is served, or two for one region: an image would fit both."""
    regions = [kind.region for model in served for kind in TASKS if kind.name == model.info.task]
    names = [model.info.name for model in served]
    if len(served) < 2 or len(set(regions)) < len(served) or AUTO in names:
        return []
    ordered = sorted(served, key=lambda model: model.info.model_sha256)  # as `score --route` has them
    sha256 = sha256_of_all([model.info.model_sha256 for model in served])
    info = ModelInfo(name=AUTO, model_sha256=sha256, recipe=AUTO, summary=f"fits {' or '.join(names)}", metrics={})
    return [Served(info, Routed(ordered))]


class Routed:
    """Every model reads and predicts the file; the row is the one that `boneage score --route` writes."""

    def __init__(self, served: Sequence[Served]) -> None:
        self.served = served

    async def predict(self, data: bytes, item: Input) -> Row:
        """See `routed`."""
        return routed(await self._rows(data, item))

    async def explain(self, data: bytes, item: Input) -> bytes | Row:
        """The picture of the model that the file fits, or the row that says why there is none."""
        rows = await self._rows(data, item)
        row = routed(rows)
        if row["status"] != "scored":
            return row
        chosen = next(model for model, each in zip(self.served, rows, strict=True) if each is row)
        if chosen.info.members > 1:
            message = f"model {chosen.info.name} is an ensemble; serve one of its members and ask for that"
            return {"status": "failed", "step": "predict", "reason": "not_explainable", "message": message}
        return await chosen.backend.explain(data, item)

    async def ready(self) -> bool:
        """Each model is asked by itself."""
        return True

    async def _rows(self, data: bytes, item: Input) -> list[Row]:
        return await asyncio.gather(*(model.backend.predict(data, item) for model in self.served))
