"""Requests gathered into batches while the model is busy: a single one never waits for company, and many share a pass."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class _Waiting(Generic[A, B]):
    item: A
    answer: asyncio.Future[B]
    loop: asyncio.AbstractEventLoop


class Gathering(Generic[A, B]):
    """Each of `works` takes batches in a thread of its own: as many items as wait, shared among the threads, at most `size`.

    Not Ray Serve's batches: those are closed by a clock, also while the model is busy, and make each request wait for it.
    """

    def __init__(self, works: Sequence[Callable[[list[A]], list[B]]], size: int) -> None:
        self.size, self.threads = size, len(works)
        self._queue: SimpleQueue[_Waiting[A, B]] = SimpleQueue()
        for number, work in enumerate(works):
            threading.Thread(target=self._run, args=(work,), name=f"predicting-{number}", daemon=True).start()

    async def __call__(self, item: A) -> B:
        """The answer to one item, or what its batch raised."""
        loop = asyncio.get_running_loop()
        waiting: _Waiting[A, B] = _Waiting(item, loop.create_future(), loop)
        self._queue.put(waiting)
        return await waiting.answer

    def _run(self, work: Callable[[list[A]], list[B]]) -> None:
        while True:
            # Whose request was given up, as by a client that left, costs nothing more.
            if batch := [waiting for waiting in self._batch() if not waiting.answer.cancelled()]:
                self._answer(work, batch)

    def _batch(self) -> list[_Waiting[A, B]]:
        batch = [self._queue.get()]
        share = min(self.size, 1 + self._queue.qsize() // self.threads)
        while len(batch) < share:
            try:
                batch.append(self._queue.get_nowait())
            except Empty:
                break
        return batch

    @staticmethod
    def _answer(work: Callable[[list[A]], list[B]], batch: list[_Waiting[A, B]]) -> None:
        try:
            answered = list(zip(batch, work([waiting.item for waiting in batch]), strict=True))
        except Exception as error:  # noqa: BLE001  raised again where each request waits
            for waiting in batch:
                waiting.loop.call_soon_threadsafe(_fail, waiting.answer, error)
            return
        for waiting, answer in answered:
            waiting.loop.call_soon_threadsafe(_settle, waiting.answer, answer)


def _settle(future: asyncio.Future[B], answer: B) -> None:
    if not future.done():
        future.set_result(answer)


def _fail(future: asyncio.Future[B], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
