"""A split that is small enough is read once and kept in memory, of the host or of its GPU: every epoch is drawn from all of its
rows, without a pipeline.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from boneage_ray.datasets.batch import NO_MASK, Batch, collate
from boneage_ray.datasets.plan import Shard, Slice
from boneage_ray.datasets.read import TRAINING_COLUMNS, training_rows
from boneage_ray.errors import UsageError

_READERS = 8  # shards at a time: a store answers one request slowly and many at once


class HeldSplit:
    """All rows of a split in the memory of this process, in the order of its shards.

    `device`: a GPU that keeps them instead.
    """

    def __init__(self, shards: Sequence[Shard], device: torch.device | None = None) -> None:
        with ThreadPoolExecutor(_READERS, "shards") as readers:
            self.rows = _joined(list(readers.map(_read, shards)))
        if device is not None:
            self.rows = self.rows.to(device)

    def batches(self, rows: Sequence[int], size: int) -> Iterator[Batch]:
        """The rows of these numbers in their order, `size` a batch; a row may come more than once."""
        for start in range(0, len(rows), size):
            yield self.rows.chosen(rows[start : start + size])


def check_room(sizes: Sequence[int], device: torch.device) -> None:
    """Raise `UsageError` if splits of so many bytes would take more than half of the free memory of a GPU."""
    needed, free = sum(sizes), torch.cuda.mem_get_info(device)[0]
    if needed > free // 2:
        raise UsageError(
            f"--cache-on-gpu: the images take {needed / 2**30:.2f} GiB, and {free / 2**30:.2f} GiB of the GPU are free, of which "
            "the training needs the other half: leave it out"
        )


def _read(shard: Shard) -> Batch:
    table = training_rows(Slice(shard.uri, 0, shard.rows))
    return collate({name: table.column(name).to_pylist() for name in TRAINING_COLUMNS})


def _joined(parts: Sequence[Batch]) -> Batch:
    """All cases in one; of masks and points that only some parts have, those of the others are unknown."""
    return Batch(
        torch.cat([part.image_B1HW for part in parts]),
        torch.cat([part.sex_B for part in parts]),
        torch.cat([part.age_B for part in parts]),
        tuple(name for part in parts for name in part.ids),
        _filled([part.mask_B1HW for part in parts], parts, NO_MASK),
        _filled([part.points_BK2 for part in parts], parts, math.nan),
    )


def _filled(given: Sequence[Tensor | None], parts: Sequence[Batch], unknown: float) -> Tensor | None:
    like = next((tensor for tensor in given if tensor is not None), None)
    if like is None:
        return None
    pairs = zip(given, parts, strict=True)
    return torch.cat([like.new_full((len(part), *like.shape[1:]), unknown) if t is None else t for t, part in pairs])
