"""How the host stays ahead of the device: batches go there and losses come back without either waiting for the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from boneage_ray.datasets.batch import Batch
from boneage_ray.errors import BoneageError

LOSSES_AT_ONCE = 16  # steps on a GPU


class NonFiniteLossError(BoneageError):
    """The loss became NaN or infinite; carries the ids of the batch."""

    def __init__(self, ids: tuple[str, ...]) -> None:
        super().__init__(ids)
        self.ids = ids

    def __str__(self) -> str:
        return (
            f"the loss is not finite for the batch {', '.join(self.ids)}; the last checkpoint is kept. "
            "Give a lower --set stage.lr or --set precision=float32"
        )


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on a device. To a GPU each is copied on a stream of its own, while the step before is computed."""
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for batch in batches:
        if batch.image_B1HW.is_cuda:  # kept there (--cache-on-gpu)
            yield batch
            continue
        with torch.cuda.stream(copies):
            moved = batch.pinned().to(device)
        steps = torch.cuda.current_stream(device)
        steps.wait_stream(copies)
        yield moved.used_by(steps)


class LossReader:
    """Losses of steps as the host learns them.

    On a GPU they come in groups, each copied without waiting and read when it has arrived, at the latest when the next one is
    full; on the CPU each is there at once. `latest` is the newest that is known.
    """

    def __init__(self, device: torch.device) -> None:
        self.latest = math.nan
        self._device = device
        self._at_once = LOSSES_AT_ONCE if device.type == "cuda" else 1
        self._new: list[tuple[Tensor, tuple[str, ...]]] = []
        self._coming: tuple[Tensor, list[tuple[str, ...]], torch.cuda.Event | None] | None = None

    def add(self, loss: Tensor, ids: tuple[str, ...]) -> None:
        """A step's loss and the ids of its cases. Raises `NonFiniteLossError` for the first loss known to be none."""
        self._new.append((loss, ids))
        if len(self._new) == self._at_once:
            self._read()
            self._send()
        if self._coming is not None and (self._coming[2] is None or self._coming[2].query()):  # type: ignore[no-untyped-call]
            self._read()

    def finish(self) -> None:
        """Wait for those that are not known yet. Raises `NonFiniteLossError`."""
        self._read()
        self._send()
        self._read()

    def _send(self) -> None:
        if not self._new:
            return
        losses, ids = zip(*self._new, strict=True)
        values, arrived = torch.stack(losses).to("cpu", non_blocking=True), None
        if self._device.type == "cuda":
            arrived = torch.cuda.current_stream(self._device).record_event()
        self._coming, self._new = (values, list(ids), arrived), []

    def _read(self) -> None:
        if self._coming is None:
            return
        values, ids, arrived = self._coming
        self._coming = None
        if arrived is not None:
            arrived.synchronize()
        for value, of_batch in zip(values.tolist(), ids, strict=True):
            if not math.isfinite(value):
                raise NonFiniteLossError(of_batch)
            self.latest = value
