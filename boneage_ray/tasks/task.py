"""A task owns the loss and the meaning of outputs; the training loop knows neither."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from boneage_ray.datasets.batch import Batch

Columns = dict[str, list[Any]]


class Task(ABC):
    """Abstract; its concrete classes are final."""

    @abstractmethod
    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Weighted scalar losses by name; their sum is minimised."""

    @abstractmethod
    def predict(self, outputs: Mapping[str, Tensor]) -> Columns:
        """Outputs as result-row columns, one entry a case: months and millimetres, classes by name."""

    @abstractmethod
    def metrics(self, predicted: Columns, truth: Columns) -> dict[str, float]:
        """Figures over a whole split; `truth` has the columns age_months and sex."""
