"""What one worker hears, as all workers know it: after the same step."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed


class SharedNotice:
    """Whether any worker was asked to stop. Called once a step on every worker, the answer is that of the step before.

    It travels between hosts while the step is computed, and so waits for no device.
    """

    def __init__(self, workers: int) -> None:
        self._group: Any = distributed.new_group(backend="gloo") if workers > 1 else None
        self._flag = torch.zeros(1, dtype=torch.int32)
        self._coming: Any = None

    def heard(self, asked: bool) -> bool:
        """Pass on whether this worker was asked; whether any was, at the step before (a single worker: now)."""
        if self._group is None:
            return asked
        if self._coming is not None:
            self._coming.wait()
        ends = bool(self._flag.item())
        self._flag = torch.tensor([int(asked)], dtype=torch.int32)
        self._coming = distributed.all_reduce(self._flag, distributed.ReduceOp.MAX, self._group, async_op=True)
        return ends
