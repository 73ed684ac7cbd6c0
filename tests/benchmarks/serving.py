"""The service under load against `score`: `python tests/benchmarks/serving.py --work DIR [--clients 1 8 32 128] [--rounds 2]
[--compare fastapi litserve]`: also against plain FastAPI (plain_service.py) and LitServe (lit_service.py).

Closed loop: each client asks again as soon as it is answered, over a connection of its own, for `--seconds`. In each round the
same files are scored by `boneage score`, whose start is left out by the difference of two archives, and predicted one by one by
the predictor in this process, decoding included. Rates in images/s, times in milliseconds; a 503 counts as refused.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
from common import answer_of, boneage, hands, machine, post
from gpu import PORT, ready
from plain_service import Model

FOLDER = Path(__file__).parent
SERVICES = {
    "boneage": ["-m", "boneage_ray", "serve", "--model", "hand", "--port", str(PORT)],
    "fastapi": [str(FOLDER / "plain_service.py"), str(PORT)],
    "litserve": [str(FOLDER / "lit_service.py"), str(PORT)],
}


def request(service, data):
    """What is sent to a service."""
    if service == "litserve":
        return post(json.dumps({"image": base64.b64encode(data).decode()}).encode(), "application/json")
    return post(data, "image/png")


async def load(clients, seconds, requests):
    """(answers a second, sorted seconds of each answer, statuses) of a closed loop."""
    times, statuses = [], Counter()
    end = time.perf_counter() + seconds

    async def client(number):
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        turn = number
        while time.perf_counter() < end:
            started = time.perf_counter()
            writer.write(requests[turn % len(requests)])
            status, headers, _ = await answer_of(reader)
            statuses[status] += 1
            if status == 503:
                await asyncio.sleep(float(headers["retry-after"]))
            else:
                times.append(time.perf_counter() - started)
            turn += clients
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return len(times) / (time.perf_counter() - started), sorted(times), dict(statuses)


def predicted(files):
    """Median milliseconds of one file in this process, by one thread."""
    model, times = Model(), []
    for data in files:
        started = time.perf_counter()
        model(data)
        times.append(1000 * (time.perf_counter() - started))
    return sorted(times)[len(times) // 2]


def scored(work):
    """Images/s of `boneage score`."""
    seconds = []
    for count in (300, 900):  # with as many workers
        out = work / f"scores-{count}-{time.time_ns()}"
        seconds.append(
            boneage("score", hands(work / f"hands-{count}", count, 512), "--model", "hand", "--out", out).seconds
        )
    return 600 / (seconds[1] - seconds[0])


def served(name, files, arguments):
    """A line for each number of clients, and one for a file of 40 kB that is no picture: what all but the network takes."""
    asked = [request(name, data) for data in files]
    with subprocess.Popen(
        [sys.executable, *SERVICES[name]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as service:
        try:
            ready(service)
            asyncio.run(load(4, 3, asked))
            broken = [request(name, b"\x89PNG\r\n\x1a\n" + bytes(40_000))]
            for clients, sent in [(1, broken), *((clients, asked) for clients in arguments.clients)]:
                rate, times, statuses = asyncio.run(load(clients, arguments.seconds, sent))
                half, most = (1000 * times[int(len(times) * part)] for part in (0.5, 0.99))
                told = {"service": name, "files": "no picture" if sent is broken else "hands", "clients": clients}
                told |= {"images/s": round(rate, 1), "p50 ms": round(half, 1), "p99 ms": round(most, 1)}
                print(json.dumps(told | {"statuses": statuses}), flush=True)
        finally:
            processes = psutil.Process(service.pid).children(recursive=True)
            service.send_signal(signal.SIGTERM)
            for left in psutil.wait_procs(processes, 60)[1]:  # LitServe leaves its own
                left.kill()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--compare", nargs="*", default=[], choices=["fastapi", "litserve"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=15)
    arguments = parser.parse_args()
    print(f"machine: {machine()}; hands of 512 px, the built-in hand model", flush=True)
    files = [path.read_bytes() for path in sorted(hands(arguments.work / "hands-60", 60, 512).iterdir())]
    for turn in range(arguments.rounds):
        print(
            f"round {turn + 1}: score {scored(arguments.work):.1f} images/s, in process {predicted(files):.0f} ms",
            flush=True,
        )
        for name in ("boneage", *arguments.compare):
            served(name, files, arguments)


if __name__ == "__main__":
    main()
