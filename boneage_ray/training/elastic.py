"""How many workers train when nodes come and go: from --min-workers to --workers, always a number that shares the batch.

Not by Ray Train's own elastic groups: these take any number between two bounds, count no parts of a CPU, and end the
workers for a larger group without a checkpoint.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from boneage_ray.errors import BoneageError, UsageError
from boneage_ray.runtime.nodes import patience
from boneage_ray.runtime.runs import say

SETTLE_SECONDS = (
    10.0  # in which a lost node's place may be taken by another, and workers that ended give back their CPUs
)
GROW_SECONDS = 60.0  # a group trains at least so long before a larger one takes its place


def sizes(batch_size: int, most: int, least: int) -> tuple[int, ...]:
    """The numbers of workers that share a batch equally, the largest first. Raises `UsageError` if `least` is none of them."""
    if least > most:
        raise UsageError(f"--min-workers {least} is more than --workers {most}")
    if batch_size % least:
        shared = ", ".join(str(number) for number in range(1, most + 1) if batch_size % number == 0)
        raise UsageError(f"--min-workers {least} cannot share batches of {batch_size} equally: give one of {shared}")
    return tuple(number for number in range(most, least - 1, -1) if batch_size % number == 0)


@dataclass(frozen=True)
class Group:
    """A group of workers whose number follows the cluster: one of `sizes`, the largest first, with the resources of each."""

    sizes: tuple[int, ...]
    each: Mapping[str, float]

    @property
    def changes(self) -> bool:
        """Whether there is more than one number to choose from."""
        return len(self.sizes) > 1

    def choose(self) -> int:
        """The largest number of workers that there is room for now; of a group that never changes, its only one.

        Waits `SETTLE_SECONDS` for the largest and `BONEAGE_WAIT_SECONDS` for the smallest. Raises `BoneageError` if there is
        none.
        """
        most, *_, least = (*self.sizes, self.sizes[-1])
        if not self.changes:
            return most
        for number in self.sizes:
            bound = patience() if number == least else SETTLE_SECONDS if number == most else 1.0
            with self._asked_for(number) as places:
                if places.wait(bound):
                    if number < most:
                        say(f"there is room for {number} of {most} workers: training goes on with these")
                    return number
        raise BoneageError(
            f"no room for {least} worker(s) of {dict(self.each)} after {patience():g} s (BONEAGE_WAIT_SECONDS)"
        )

    @contextmanager
    def growing(self, workers: int, board: Any, in_mid_epoch: bool) -> Iterator[threading.Event]:  # noqa: ANN401
        """While so many workers train in this block: ask for room for the next larger number, and once it is there have the
        workers end (`board`, a Ray actor) with a checkpoint, after the next step or (not `in_mid_epoch`) the next epoch. The
        event says that they were asked to.
        """
        asked, done = threading.Event(), threading.Event()
        larger = min((number for number in self.sizes if number > workers), default=workers)

        def watch() -> None:
            if done.wait(GROW_SECONDS):
                return
            with self._asked_for(larger - workers) as places:
                while not places.wait(0.5):
                    if done.wait(0.5):
                        return
            asked.set()
            say(f"there is room for {larger} workers: after a checkpoint, training goes on with more")
            board.pause.remote(not in_mid_epoch)

        watcher = threading.Thread(target=watch, daemon=True)
        if larger > workers:
            watcher.start()
        try:
            yield asked
        finally:
            done.set()
            if larger > workers:
                watcher.join(timeout=15)

    @contextmanager
    def _asked_for(self, number: int) -> Iterator[Any]:
        """A request for places of so many workers, which Ray's autoscaler hears of, too. They are free again after the block."""
        from ray.util.placement_group import placement_group, remove_placement_group

        places = placement_group([dict(self.each)] * number)
        try:
            yield places
        finally:
            remove_placement_group(places)
