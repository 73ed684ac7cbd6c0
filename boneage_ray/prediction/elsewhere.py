"""A scorer whose networks are in other processes: on a GPU that many workers ask, or beside a service's replica."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from boneage_ray.prediction.ensemble import Scorer
from boneage_ray.prediction.members import Models
from boneage_ray.prediction.predictor import batch_size_of
from boneage_ray.tasks.task import Columns


@dataclass
class Elsewhere:
    """Asks for what model `number` predicts; `ask` takes that number and columns."""

    ask: Callable[..., Columns]
    number: int
    name: str
    sha256: str
    batch_size: int

    @classmethod
    def of(cls, ask: Callable[..., Columns], models: Sequence[Models], device: str) -> list[Scorer]:
        """One for each of some models, without loading any."""
        return [
            cls(ask, number, each.name, each.sha256, min(batch_size_of(device, image.size) for image in each.images))
            for number, each in enumerate(models)
        ]

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> Columns:
        """Columns in, columns out; images travel as one array each."""
        packed = {name: values if name == "sex" else np.stack(values) for name, values in columns.items()}
        return self.ask(self.number, packed)
