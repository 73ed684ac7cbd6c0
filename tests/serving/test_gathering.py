"""Items that wait share a batch; each gets its own answer, and what was given up is not worked on."""

from __future__ import annotations

import asyncio
import threading

import pytest

from boneage_ray.serving.gathering import Gathering


def test_what_comes_while_the_model_is_busy_is_one_batch_and_the_first_does_not_wait():
    busy, go, batches = threading.Event(), threading.Event(), []

    def work(items):
        batches.append(items)
        busy.set()
        assert go.wait(30)
        return [10 * item for item in items]

    async def ask():
        gathering = Gathering([work], 4)
        first = asyncio.ensure_future(gathering(0))
        await asyncio.to_thread(busy.wait, 30)
        others = [asyncio.ensure_future(gathering(k)) for k in range(1, 7)]
        await asyncio.sleep(0)
        others[1].cancel()  # its client left
        await asyncio.sleep(0)
        go.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    answers = asyncio.run(ask())
    assert [answer for answer in answers if isinstance(answer, int)] == [0, 10, 30, 40, 50, 60]
    assert batches == [[0], [1, 3, 4], [5, 6]]


def test_a_batch_that_fails_fails_for_each_of_it_and_the_next_is_worked_on():
    def work(items):
        if "bad" in items:
            raise ValueError(items)
        return items

    async def ask():
        gathering = Gathering([work, work], 1)
        with pytest.raises(ValueError, match="bad"):
            await gathering("bad")
        return await asyncio.gather(*(gathering(k) for k in range(20)))

    assert asyncio.run(ask()) == list(range(20))
