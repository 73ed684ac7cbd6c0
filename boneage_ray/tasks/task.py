"""A task owns the loss and the meaning of outputs; the training loop knows neither."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from boneage_ray.datasets.batch import Batch
from boneage_ray.datasets.plan import Shard
from boneage_ray.errors import UsageError
from boneage_ray.models.config import ModelSettings

Columns = dict[str, list[Any]]


def extend(whole: Columns, more: Columns) -> None:
    """Put the cases of a batch or a worker behind those that are there."""
    for name, values in more.items():
        whole.setdefault(name, []).extend(values)


def on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All on the host, waited for once; what is there already stays as it is."""
    moved = {name: tensor.to("cpu", non_blocking=True) for name, tensor in tensors.items()}
    for device in {tensor.device for tensor in tensors.values() if tensor.is_cuda}:
        torch.cuda.current_stream(device).synchronize()
    return moved


class Task(ABC):
    """Abstract; its concrete classes are final.

    `uses_masks`, `uses_points`: batches bring the masks or landmarks, changed as their images are.
    `views`: how often each image of a training batch is augmented; the network gets all first views, then all second ones.
    """

    uses_masks: ClassVar[bool] = False
    uses_points: ClassVar[bool] = False
    views: ClassVar[int] = 1

    @abstractmethod
    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Weighted scalar losses by name; their sum is minimised."""

    @abstractmethod
    def predict(self, outputs: Mapping[str, Tensor]) -> Columns:
        """Outputs as result-row columns, one entry a case: months and millimetres, classes by name.

        Whatever it needs comes from the device by one `on_host`: each waits for all that the device was given.
        """

    def truth(self, batch: Batch) -> Columns:
        """What `metrics` compares with, one entry a case."""
        return {"age_months": batch.age_B.tolist()}

    def summarise(self, predicted: Columns, truth: Columns) -> tuple[Columns, Columns]:
        """Of a batch, what `metrics` needs: held for a whole split, and sent between workers, so nothing large."""
        return predicted, truth

    @abstractmethod
    def metrics(self, predicted: Columns, truth: Columns) -> dict[str, float]:
        """Figures over a whole split, from the columns of `summarise`."""

    def combine(self, names: Sequence[str], answers: Sequence[Columns], models: Sequence[ModelSettings]) -> Columns:
        """The columns of all members of an ensemble as one; members by name, with their answers and their model configs."""
        raise UsageError("only age regressors are scored together")

    def missing_labels(self, shards: Sequence[Shard]) -> str | None:
        """What no case of a split has, though the task cannot do without it, and how it is given; None where nothing lacks."""
        return None

    def label_warnings(self, model: ModelSettings, shards: Sequence[Shard]) -> list[str]:
        """What a model cannot learn from the cases of a training split, in words."""
        return []

    def doubts(self, metrics: Mapping[str, Any]) -> list[str]:
        """What is wrong with a finished training by its best epoch's figures, in words; by default nothing."""
        return []

    def calibration(self, predicted: Columns, truth: Columns) -> dict[str, Any] | None:
        """What calibration.json of a trained model holds, if anything, from the columns of the validation split (`metrics`)."""
        return None

    def calibrate(
        self, metrics: Mapping[str, Any], calibration: Mapping[str, Any], coverage: float | None = None
    ) -> None:
        """Take from a bundle's metrics of the validation split and its calibration what its predictions need; else nothing.

        `coverage`: that of intervals, if it is to be another than the calibration's.
        """
        return

    def intervals(self, predicted: Columns, sexes: Sequence[str | None]) -> Columns:
        """Further columns: a calibrated interval of each case, if the bundle has a calibration; by default none."""
        return {}
