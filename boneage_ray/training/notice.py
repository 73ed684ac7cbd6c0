"""What one worker hears, as all workers know it: after the same step."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import torch
from torch import distributed

LOOK_SECONDS = 5.0  # between looks whether a node is about to be taken away, for which the workers wait for each other


class Notice(IntEnum):
    """What workers hear; of several at one step the highest counts."""

    NONE = 0
    LOOK = 1  # all ask Ray together whether a node of theirs is about to be taken away
    LEAVING = 2  # one is: a checkpoint now, and on
    STOP = 3  # a checkpoint now, and the end


class SharedNotice:
    """What any worker heard. Called once a step on every worker, the answer is that of the step before.

    It travels between hosts while the step is computed, and so waits for no device.
    """

    def __init__(self, workers: int) -> None:
        self._group: Any = distributed.new_group(backend="gloo") if workers > 1 else None
        self._flag = torch.zeros(1, dtype=torch.int32)
        self._coming: Any = None

    def heard(self, own: Notice) -> Notice:
        """Pass on what this worker heard itself; what any heard, at the step before (a single worker: now)."""
        if self._group is None:
            return own
        if self._coming is not None:
            self._coming.wait()
        known = Notice(int(self._flag.item()))
        self._flag = torch.tensor([int(own)], dtype=torch.int32)
        self._coming = distributed.all_reduce(self._flag, distributed.ReduceOp.MAX, self._group, async_op=True)
        return known


class Notices:
    """What one worker of Ray Train hears after each step. `node_is_leaving` waits for all workers, which ask at the same step.

    The first worker decides when: every `LOOK_SECONDS`, until one node leaves and the checkpoint for it is due.
    """

    def __init__(self, rank: int, workers: int, node_is_leaving: Callable[[], bool]) -> None:
        self._rank, self._shared, self._node_is_leaving = rank, SharedNotice(workers), node_is_leaving
        self._looked, self._leaving = time.monotonic(), False

    def heard(self, asked: bool) -> Notice:
        """Whether to stop, as this worker or another was asked, or to write a checkpoint because a node leaves."""
        own = Notice.STOP if asked else Notice.NONE
        now = time.monotonic()
        if own is Notice.NONE and not (self._rank or self._leaving) and now - self._looked >= LOOK_SECONDS:
            self._looked, own = now, Notice.LOOK
        known = self._shared.heard(own)
        if known is not Notice.LOOK:
            return known
        self._leaving = self._node_is_leaving()
        return Notice.LEAVING if self._leaving else Notice.NONE
