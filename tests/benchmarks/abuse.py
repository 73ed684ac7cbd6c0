"""The service under attack, with a killed replica and with too much to do: `python tests/benchmarks/abuse.py [--seconds 600]`.

`--parts attack killed overload`: 2,000 hostile requests of many kinds (hostile.py) while a good client asks all the time; the
model's replica killed under eight clients, each of which makes a failed request again once; an open loop at twice the rate that
eight clients got. A good answer is wrong if its age is not the one that the same file had before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict

import psutil
from common import answer_of, machine, post
from gpu import PORT, ready
from hostile import Attack

from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.phantoms.png import encode_gray_png

TOKEN = "0123456789abcdef" * 2
AGAIN_AFTER, LONGEST = 15, 90


class Good:
    """Sound hands and the ages that the service told before anything happened."""

    def __init__(self):
        images = [hand_phantom(seed, 60.0 + 12 * seed, "F", 512).image for seed in range(8)]
        self.requests = [post(encode_gray_png(image), "image/png", TOKEN) for image in images]
        self.ages = []

    async def ask(self, number):
        """(status, seconds); "wrong" for another answer than before, "lost" without one within `LONGEST` seconds."""
        which, started, writer = number % len(self.requests), time.perf_counter(), None
        told = "lost"
        try:
            async with asyncio.timeout(LONGEST):
                reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
                writer.write(self.requests[which])
                told, _, body = await answer_of(reader)
            row = json.loads(body)
            answer = (row.get("age_months"), row.get("reason"))
            if which == len(self.ages):
                self.ages.append(answer)
            elif told in (200, 422) and answer != self.ages[which]:
                told = "wrong"
        except (OSError, asyncio.IncompleteReadError):  # a TimeoutError among them
            pass
        finally:
            if writer:
                writer.close()
        return told, time.perf_counter() - started


async def attack(good, count):
    """Lines by kind; sixteen at a time, slow ones beside them."""
    hostile, found, done = Attack(PORT, TOKEN), defaultdict(Counter), asyncio.Event()
    kinds = list(hostile.kinds)
    work = [(kinds[k % len(kinds)], k // len(kinds)) for k in range(count)]
    slots, slow = asyncio.Semaphore(16), asyncio.Semaphore(200)
    answered, times = Counter(), []

    async def one(kind, number):
        async with slow if kind.startswith("slow") else slots:
            found[kind][await hostile.kinds[kind](number)] += 1

    async def asks():
        number = 0
        while not done.is_set():
            told, seconds = await good.ask(number)
            answered[told] += 1
            times.append(seconds)
            number += 1

    client = asyncio.create_task(asks())
    await asyncio.gather(*(one(*each) for each in work))
    done.set()
    await client
    lines = [{"kind": kind, "answers": dict(found[kind])} for kind in sorted(found)]
    return [*lines, {"kind": "good client", "answers": dict(answered), "longest s": round(max(times), 1)}]


async def killed(good, service, seconds=50):
    """The model's replica ends by SIGKILL after a fifth of the time."""
    answers, again, end, back = Counter(), Counter(), time.perf_counter() + seconds, []

    async def client(number):
        while time.perf_counter() < end:
            told, _ = await good.ask(number)
            answers[told] += 1
            if told not in (200, 422):
                await asyncio.sleep(AGAIN_AFTER)
                told, _ = await good.ask(number)
                again[told] += 1
            number += 8

    async def watch():
        while time.perf_counter() < end and not back:
            told, _ = await good.ask(0)
            if when and told == 200:
                back.append(time.perf_counter())
            await asyncio.sleep(0.2)

    when = []

    async def kill():
        await asyncio.sleep(seconds / 5)
        replicas = [p for p in _tree(service) if "ServeReplica:boneage:model-1" in " ".join(p.cmdline())]
        assert len(replicas) == 1, replicas
        os.kill(replicas[0].pid, signal.SIGKILL)
        await asyncio.sleep(0.5)  # what was on its way already
        when.append(time.perf_counter() - 0.5)

    await asyncio.gather(kill(), watch(), *(client(k) for k in range(8)))
    answered = round(min(back) - when[0], 1) if back else None
    return [
        {
            "kind": "killed",
            "answers": dict(answers),
            f"again after {AGAIN_AFTER} s": dict(again),
            "back after s": answered,
        }
    ]


async def overload(good, service, seconds):
    """Twice as many requests a second as eight clients in a closed loop got answers."""
    count, end = Counter(), time.perf_counter() + 15

    async def client(number):
        while time.perf_counter() < end:
            told, _ = await good.ask(number)
            count[told] += 1

    await asyncio.gather(*(client(k) for k in range(8)))
    rate, answers, times, memory, tasks = count[200] / 15, Counter(), [], [], set()

    async def one(number):
        told, took = await good.ask(number)
        answers[told] += 1
        if told == 200:
            times.append(took)

    started = time.perf_counter()
    number = 0
    while (passed := time.perf_counter() - started) < seconds:
        if passed >= len(memory) * seconds / 10:
            memory.append(round(sum(p.memory_full_info().pss for p in _tree(service)) / 2**20))
        for _ in range(int(2 * rate * passed) - number):
            task = asyncio.create_task(one(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.sleep(0.02)
    await asyncio.gather(*tasks)
    times.sort()
    told = {
        "kind": "overload",
        "sustainable/s": round(rate, 1),
        "asked/s": round(number / seconds, 1),
        "answers": dict(answers),
    }
    told |= {"p50 s": round(times[len(times) // 2], 2), "p99 s": round(times[int(len(times) * 0.99)], 2)}
    return [told | {"MiB in tenths of the time": memory}]


def _tree(service):
    parent = psutil.Process(service.pid)
    return [parent, *parent.children(recursive=True)]


async def parts(arguments, service):
    good = Good()
    for number in range(len(good.requests)):
        await good.ask(number)
    assert None not in [age for age, _ in good.ages[:3]], good.ages
    for name in arguments.parts:
        if name == "attack":
            lines = await attack(good, arguments.requests)
        else:
            lines = await (killed(good, service) if name == "killed" else overload(good, service, arguments.seconds))
        for line in lines:
            print(json.dumps(line), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--parts", nargs="+", default=["attack", "killed", "overload"], choices=["attack", "killed", "overload"]
    )
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=600)
    arguments = parser.parse_args()
    print(f"machine: {machine()}; phantom hands of 512 px, the built-in hand model", flush=True)
    command = [sys.executable, "-m", "boneage_ray", "serve", "--model", "hand", "--port", str(PORT)]
    environment = os.environ | {"BONEAGE_API_TOKENS": TOKEN}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as service:
        try:
            ready(service)
            asyncio.run(parts(arguments, service))
            assert service.poll() is None, "the service ended"
        finally:
            service.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
