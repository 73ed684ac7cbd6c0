"""How many workers train when nodes come and go: from --min-workers to --workers, always a number that shares the batch.

Not by Ray Train's own elastic groups: these take any number between two bounds, count no parts of a CPU, and end the
workers for a larger group without a checkpoint.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from boneage_ray.errors import BoneageError, UsageError
from boneage_ray.runtime.nodes import patience
from boneage_ray.runtime.runs import say

# In which a lost node's place may be taken by another, and workers that ended give back their CPUs.
SETTLE_SECONDS = 10.0
GROW_SECONDS = 60.0  # a group trains at least so long before a larger one takes its place
SURE_SECONDS = 5.0  # for which new room is kept before it counts: it may be what a group that ends has given back
CPU_OF_EACH = 0.75  # workers of a number that changes share no CPU: the loss of a node would leave room for all of them


def sizes(batch_size: int, most: int, least: int) -> tuple[int, ...]:
    """The numbers of workers that share a batch equally, the largest first. Raises `UsageError` if `least` is none of them."""
    if least > most:
        raise UsageError(f"--min-workers {least} is more than --workers {most}")
    if batch_size % least:
        shared = ", ".join(str(number) for number in range(1, most + 1) if batch_size % number == 0)
        raise UsageError(
            f"--min-workers {least} cannot share batches of {batch_size}, {batch_size // most} for each of {most} workers, "
            f"equally: give one of {shared}"
        )
    return tuple(number for number in range(most, least - 1, -1) if batch_size % number == 0)


@dataclass(frozen=True)
class Group:
    """A group of workers whose number follows the cluster: one of `sizes`, the largest first, with the resources of each.

    `board`: the Ray actor that workers report to (board.py).
    """

    sizes: tuple[int, ...]
    each: Mapping[str, float]
    board: Any

    @property
    def changes(self) -> bool:
        """Whether there is more than one number to choose from."""
        return len(self.sizes) > 1

    def choose(self) -> int:
        """The largest number of workers that there is room for now; of a group that never changes, its only one.

        Waits `SETTLE_SECONDS` for the largest and `BONEAGE_WAIT_SECONDS` for the smallest; 0 if the run is asked to stop
        meanwhile. Raises `BoneageError` if there is no room.
        """
        most, *fewer = self.sizes
        if not fewer:
            return most
        for number, seconds in [(most, SETTLE_SECONDS), *((number, 1.0) for number in fewer)]:
            if (found := self._room_within(number, seconds)) is not None:
                return found
        say(f"waiting for room for {fewer[-1]} worker(s), {dict(self.each)} each")
        if (found := self._room_within(fewer[-1], patience())) is not None:
            return found
        raise BoneageError(
            f"no room for {fewer[-1]} worker(s) of {dict(self.each)} after {patience():g} s (BONEAGE_WAIT_SECONDS)"
        )

    @contextmanager
    def growing(self, workers: int, in_mid_epoch: bool) -> Iterator[None]:
        """While so many workers train in this block: ask for room for the next larger number, and once it is there have the
        workers end with a checkpoint, after the next step or (not `in_mid_epoch`) the next epoch.
        """
        if workers == self.sizes[0]:
            yield
            return
        done, larger = threading.Event(), min(number for number in self.sizes if number > workers)
        watcher = threading.Thread(target=self._watch, args=(workers, larger, in_mid_epoch, done), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join(timeout=15)

    def _watch(self, workers: int, larger: int, in_mid_epoch: bool, done: threading.Event) -> None:
        while not self._state()[0]:
            if done.wait(1.0):
                return
        if done.wait(GROW_SECONDS):
            return
        with self._asked_for(larger - workers) as places:
            while not places.wait(0.5):
                if done.wait(0.5):
                    return
            if done.wait(SURE_SECONDS):
                return
        say(f"there is room for {larger} workers: after a checkpoint, training goes on with more")
        self.board.pause.remote(not in_mid_epoch)

    def _room_within(self, number: int, seconds: float) -> int | None:
        """The number if room for so many comes in time, else None; 0 if the run is asked to stop meanwhile."""
        end = time.monotonic() + seconds
        with self._asked_for(number) as places:
            while not self._state()[1]:
                if places.wait(0.5):
                    if number < self.sizes[0]:
                        say(f"there is room for {number} of {self.sizes[0]} workers: training goes on with these")
                    return number
                if time.monotonic() >= end:
                    return None
        return 0

    def _state(self) -> tuple[bool, bool]:
        import ray

        found: tuple[bool, bool] = ray.get(self.board.state.remote())
        return found

    @contextmanager
    def _asked_for(self, number: int) -> Iterator[Any]:
        """A request for places of so many workers, which Ray's autoscaler hears of, too. They are free again after the block."""
        from ray.util.placement_group import placement_group, remove_placement_group

        places = placement_group([dict(self.each)] * number)
        try:
            yield places
        finally:
            remove_placement_group(places)
