"""The second of two stages: actors on GPUs, which workers on any node ask.

A worker puts what it asks into the object store of its own node and sends only where that is. An actor fetches it once it has
room, so what waits lies with those who wait, one question each, and a GPU's node holds `AT_ONCE` questions. While one of these
is computed the next one is on its way.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from boneage_ray.errors import BoneageError
from boneage_ray.runtime.cluster import PART_TRIES, Failure, PartLostError
from boneage_ray.runtime.nodes import patience

AT_ONCE = 2  # questions that a GPU works on: one is computed while the other one is copied, or its answer is
LOOK_SECONDS, PAUSE_SECONDS = 5.0, 0.5

# What runs on a GPU: built once from keyword arguments, then called from `AT_ONCE` threads.
Answering = Callable[..., Any]


@dataclass(frozen=True)
class GpuStage:
    """The actors of one run; calling it asks one of them. It travels to workers."""

    actors: tuple[Any, ...]

    def __call__(self, *question: Any) -> Any:  # noqa: ANN401  whatever the actors are built to answer
        """The answer of the less busy one of two actors. Raises what it raised, and `BoneageError` if none answers any more.

        Raises `PartLostError` if actors were killed at this question `PART_TRIES` times, perhaps by another one that they had.
        """
        import ray

        kept = ray.put(question)
        for _ in range(PART_TRIES):
            try:
                return _content(ray.get(self._least_busy().answer.remote([kept])))
            except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError):
                continue  # the actor is gone, or its node; Ray starts another one
        raise PartLostError

    def _least_busy(self) -> Any:  # noqa: ANN401  an actor
        """Of two actors that live the one with fewer questions. Raises `BoneageError` if none lives for a long time."""
        import ray

        end = time.monotonic() + patience()
        while True:
            two = random.sample(self.actors, min(2, len(self.actors)))
            asked = {actor.busy.remote(): actor for actor in two}
            told, _ = ray.wait(list(asked), num_returns=len(asked), timeout=LOOK_SECONDS)
            found = []
            for reply in told:
                try:
                    found.append((_content(ray.get(reply)), asked[reply]))
                except ray.exceptions.RayActorError:
                    continue
            if found:
                return min(found, key=lambda pair: pair[0])[1]
            if time.monotonic() > end:
                raise BoneageError(
                    f"none of {len(self.actors)} predictors on GPUs has answered for {patience():g} s (BONEAGE_WAIT_SECONDS): is "
                    "there still a node with a GPU? Give the command again"
                )
            time.sleep(PAUSE_SECONDS)


@contextmanager
def gpu_stage(make: Callable[..., Answering], arguments: dict[str, Any], count: int) -> Iterator[GpuStage]:
    """`count` actors, each on a GPU of its own and with `make(**arguments)`; they end with the block.

    They take no CPU, so that a node may give all of its CPUs to the workers, and are started again when they are killed.
    """
    import ray

    kind = ray.remote(num_cpus=0, num_gpus=1, max_restarts=-1, max_task_retries=0)(_GpuActor)
    actors = tuple(kind.remote(make, arguments) for _ in range(count))
    try:
        yield GpuStage(actors)
    finally:
        for actor in actors:
            ray.kill(actor)


class _GpuActor:
    """Answers questions, `AT_ONCE` at a time. What goes wrong is an answer, too: Ray keeps only the text of a cause."""

    def __init__(self, make: Callable[..., Answering], arguments: dict[str, Any]) -> None:
        self._made = ThreadPoolExecutor(1).submit(make, **arguments)
        self._threads, self._room = ThreadPoolExecutor(AT_ONCE), asyncio.Semaphore(AT_ONCE)
        self._busy = 0

    async def busy(self) -> dict[str, Any]:
        """How many questions wait here or are worked on; comes once the actor is ready."""
        try:
            await asyncio.wrap_future(self._made)
        except Exception as error:  # noqa: BLE001  raised again in the worker
            return {"failure": asdict(Failure.of(error))}
        return {"answer": self._busy}

    async def answer(self, kept: list[Any]) -> dict[str, Any]:
        """The answer to a question that is still with who asks."""
        self._busy += 1
        try:
            answering = await asyncio.wrap_future(self._made)
            async with self._room:
                question = await kept[0]
                loop = asyncio.get_running_loop()
                return {"answer": await loop.run_in_executor(self._threads, answering, *question)}
        except Exception as error:  # noqa: BLE001  raised again in the worker
            return {"failure": asdict(Failure.of(error))}
        finally:
            self._busy -= 1


def _content(reply: dict[str, Any]) -> Any:  # noqa: ANN401
    if "failure" in reply:
        raise Failure(**reply["failure"]).as_error()
    return reply["answer"]
