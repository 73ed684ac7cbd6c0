"""The loop's `World` in a worker of Ray Train."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from boneage_ray.datasets.batch import Batch
from boneage_ray.datasets.load import open_prepared
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.recipes.stage import Data
from boneage_ray.runtime.devices import Precision, RunDevice
from boneage_ray.training.feed import FEW_IMAGES, Feed
from boneage_ray.training.metering import TrainingMeter
from boneage_ray.training.notice import Notice, Notices

SAID_SECONDS = 0.25  # between what the board hears, whose answer says whether to stop


class RayWorld:
    """The loop's `World` in a Ray Train worker."""

    size: int

    def __init__(
        self,
        recipe: Recipe,
        uris: dict[Data, str | None],
        board: Any,  # noqa: ANN401  a Ray actor handle
        compute: RunDevice,
        cache_on_gpu: bool = False,
    ) -> None:
        import ray.train
        import ray.train.torch

        context = ray.train.get_context()
        self.rank, self.size = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()
        self.auto_precision: Precision | None = compute.auto
        self.board = board
        self.meter = TrainingMeter(self.rank)
        sources = {data: open_prepared(uri) for data, uri in uris.items() if uri is not None}
        self.feed = Feed(recipe, sources, self.rank, self.size, self.device if cache_on_gpu else None)
        self._said, self._cases = time.monotonic(), 0
        self._notices, self._asked = Notices(self.rank, self.size, node_is_leaving), False
        self._answer: Any = None  # of the board, on its way

    def wrap(self, model: nn.Module) -> nn.Module:
        if self.size == 1:
            return model
        if self.device.type == "cuda" and self.feed.batch_size < FEW_IMAGES:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        ids = [self.device] if self.device.type == "cuda" else None
        # The kept batch-norm statistics are made equal once an epoch (same_buffers): workers would wait if at every step.
        return nn.parallel.DistributedDataParallel(
            model, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
        )

    def same_buffers(self, raw: nn.Module) -> None:
        if self.size > 1:
            for buffer in raw.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def train_batches(self, epoch: int, data: Data) -> Iterable[Batch]:
        return self.meter.waiting(self.feed.train_batches(epoch, data))

    def val_batches(self) -> Iterable[Batch]:
        return self.feed.val_batches()

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(gathered, value)
        return gathered

    def notice(self) -> Notice:
        import ray

        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            self._asked, self._answer = self._asked or ray.get(self._answer), None
        heard = self._notices.heard(self._asked)
        if heard is Notice.LEAVING and self.rank == 0:
            self.board.leaving.remote()
        return heard

    def on_step(self, cases: int, loss: float) -> None:
        self.meter.step(cases, loss)
        self._cases += cases
        now = time.monotonic()
        if self.rank == 0 and now - self._said >= SAID_SECONDS:
            rate = self._cases * self.size / (now - self._said)
            self._answer = self.board.step.remote(loss, rate)
            self._said, self._cases = now, 0

    def on_epoch(self, line: dict[str, Any]) -> None:
        # Not ray.train.report: it waits for the controller's next poll (2 s), and faster polling costs a tenth of a core.
        self.meter.epoch(line)
        if self.rank == 0:
            self.board.epoch.remote(line)


def node_is_leaving() -> bool:
    """Whether a node with a worker of this training is about to be taken away, as a cloud tells Ray. All workers ask at once."""
    import ray.train

    return ray.train.get_preemption_info() is not None
