"""What the benchmarks share: archives to work on, commands in processes of their own, memory of a process tree.

Run by hand, never by pytest: absolute times mean nothing on a shared machine, so every benchmark interleaves what it
compares and prints ratios.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from boneage_ray import bundle
from boneage_ray.models.regressor import Regressor
from boneage_ray.phantoms.archive import HAND_FOLDER, write_hand_archive
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override


def machine():
    """One line about the machine, for the table."""
    names = [
        line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    memory = psutil.virtual_memory().total / 2**30
    return f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else platform.processor()}, {memory:.0f} GiB"


def hands(folder, count, size, distinct=500):
    """An archive of `count` PNGs; beyond `distinct` phantoms the files are links to them, under names of their own."""
    images = folder / HAND_FOLDER
    if not images.exists():
        write_hand_archive(str(folder), min(count, distinct), seed=1, size=size)
        originals = sorted(images.iterdir())
        for k in range(count - len(originals)):
            os.link(originals[k % len(originals)], images / f"again-{k:06d}.png")
    return images


def random_bundle(folder, recipe_name, *settings):
    """A bundle of random weights: as fast as a trained one."""
    recipe = override(find_recipe(recipe_name), settings)
    if not folder.exists():
        bundle.save(str(folder), recipe, Regressor(recipe.model, with_weights=False).state_dict(), {})
    return folder


@dataclass
class Watched:
    """A finished command: seconds, and the peak of its process tree's memory in MiB (proportional set size)."""

    started: float
    seconds: float = 0.0
    peak_mib: float = 0.0
    samples: list = field(default_factory=list)


def boneage(*arguments, memory=False, environment=None):
    """Run the console command to its end; raises if it fails."""
    watched = Watched(time.time())
    command = [sys.executable, "-m", "boneage_ray", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    watcher = threading.Thread(target=_watch, args=(process.pid, watched), daemon=True)
    if memory:
        watcher.start()
    code = process.wait()
    watched.seconds = time.time() - watched.started
    if code:
        raise SystemExit(f"boneage {arguments[0]} ended with exit code {code}")
    if memory:
        watcher.join(timeout=10)
        watched.peak_mib = max(watched.samples)
    return watched


def on_one_core():
    """The environment of a command beside others: it has one core, and a Ray of its own."""
    return os.environ | {"BONEAGE_CPUS": "1", "RAY_ADDRESS": "local"}


def post(body, kind="application/octet-stream", token=None):
    """The bytes of a request to predict. Bare streams: a client on the same cores should cost little."""
    lines = ["POST /v1/predict?sex=F HTTP/1.1", "Host: a", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [f"Authorization: Bearer {token}"] if token else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


async def answer_of(reader):
    """(status, headers by small name, body) of the next answer on a connection."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if line)
    return int(first.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


def bare_rate(work, files, *arguments):
    """Images per second of a bare loop, one process a core over its share of the files; its start is left out.

    `work(files, start, *arguments)` runs in each: it calls `start()` once it is ready, and returns how many images it did.
    """
    cores = len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    gate = context.Semaphore(0), context.Event(), context.Queue()
    processes = [
        context.Process(target=_bare_process, args=(work, gate, files[core::cores], arguments)) for core in range(cores)
    ]
    for process in processes:
        process.start()
    ready, go, done = gate
    for _ in processes:
        ready.acquire()
    start = time.time()
    go.set()
    ended = [done.get() for _ in processes]
    for process in processes:
        process.join()
    return sum(count for _, count in ended) / (max(when for when, _ in ended) - start)


def _bare_process(work, gate, files, arguments):
    ready, go, done = gate

    def start():
        ready.release()
        go.wait()

    count = work(files, start, *arguments)
    done.put((time.time(), count))


def _watch(pid, watched):
    while psutil.pid_exists(pid):
        total = 0
        try:
            parent = psutil.Process(pid)
            for process in [parent, *parent.children(recursive=True)]:
                total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            pass  # a process that ended between two looks
        watched.samples.append(total / 2**20)
        time.sleep(2)
