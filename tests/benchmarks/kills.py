"""Trainings that are killed: `PYTHONPATH=tests python tests/benchmarks/kills.py --work DIR [--kills 5] [--parts worker ...]`.

A small recipe on phantoms, a checkpoint every fourth step. Once unbroken; then a worker killed at moments by chance in one run;
the whole command killed as often and given again with `--resume`; and with two workers on two nodes, one of which Ray is told
to drain, after which another takes its place (needs root, see tests/pipelines/real_nodes.py). Each line tells the largest
difference of any loss of any epoch from the unbroken run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from common import hands, machine

from boneage_ray.phantoms.archive import HAND_CSV

SETTINGS = (
    "image.size=64",
    "model.backbone.name=resnet10t",
    "batch_size=8",
    "stage.epochs=8",
    "checkpoint.every_steps=4",
)
SET = [word for setting in SETTINGS for word in ("--set", setting)]
DRAIN = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--deadline-remaining-seconds", "30")


def command(*arguments, environment=None, said=subprocess.DEVNULL):
    """A command that was started; `said`: where what it says goes."""
    words = [sys.executable, "-m", "boneage_ray", *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=said, env=environment)


def train(data, out, *more, **how):
    return command("train", "--recipe", "demo", "--data", data, "--out", out, *SET, *more, **how)


def difference(out, whole):
    """The largest of any loss of any epoch."""
    found = [json.loads((folder / "metrics.json").read_text())["history"] for folder in (out, whole)]
    assert len(found[0]) == len(found[1])
    return max(abs(a[key] - b[key]) for a, b in zip(*found, strict=True) for key in ("train_loss", "val_loss"))


def checkpoints(out):
    return {path.name for path in out.glob("checkpoints/epoch-*.json")}


def wait_for_steps(out, seconds, process):
    """Wait until there is a further checkpoint, and so long from then: three failures without one between them end a run."""
    before, end = checkpoints(out), None
    while process.poll() is None and (end is None or time.monotonic() < end):
        if end is None and checkpoints(out) - before:
            end = time.monotonic() + seconds
        time.sleep(0.1)


def worker_killed(data, whole, out, kills):
    process, done, chance = train(data, out), 0, random.Random(1)
    while process.poll() is None and done < kills:
        wait_for_steps(out, chance.uniform(0, 3), process)
        for child in psutil.Process(process.pid).children(recursive=True):
            if "RayTrainWorker" in " ".join(child.cmdline()):
                child.kill()
                done += 1
                break
    assert process.wait() == 0
    return {"killed": "a worker", "times": done, "largest difference": difference(out, whole)}


def driver_killed(data, whole, out, kills):
    chance, more, done = random.Random(2), (), 0
    while done < kills:
        process = train(data, out, *more)
        wait_for_steps(out, chance.uniform(0, 3), process)
        if process.poll() is not None:
            break
        done += 1
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for child in children:  # without its driver Ray ends by itself, but later than the next one starts
            if child.is_running():
                child.kill()
        more = ("--resume",)
    assert process.wait() == 0 or train(data, out, "--resume").wait() == 0
    return {"killed": "the command", "times": done, "largest difference": difference(out, whole)}


def node_drained(data, whole, out, _kills):
    from pipelines.real_nodes import real_nodes

    with real_nodes() as nodes, tempfile.TemporaryFile("w+") as said:
        second = nodes.add()
        environment = nodes.environment | {"PYTHONPATH": os.environ["PYTHONPATH"]}
        assert train(data, whole, "--workers", 2, environment=environment).wait() == 0
        process = train(data, out, "--workers", 2, environment=environment, said=said)
        wait_for_steps(out, 2, process)
        which = "import ray; ray.init(); print([n['NodeID'] for n in ray.nodes() if n['NodeManagerAddress'] == '127.0.0.2'][0])"
        node = subprocess.run(
            [sys.executable, "-c", which], env=environment, capture_output=True, text=True, check=True
        )
        drain = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", environment["RAY_ADDRESS"]]
        subprocess.run([*drain, "--node-id", node.stdout.split()[-1], *DRAIN], env=environment, check=True)
        time.sleep(20)
        second.send_signal(signal.SIGTERM)
        nodes.add()
        assert process.wait() == 0
        said.seek(0)
        assert "a node is about to be taken away" in said.read()
    return {"killed": "a node, after a notice", "times": 1, "largest difference": difference(out, whole)}


PARTS = {"worker": worker_killed, "driver": driver_killed, "node": node_drained}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    arguments = parser.parse_args()
    print(f"machine: {machine()}", flush=True)
    folder, data = hands(arguments.work / "hands", 240, 96), arguments.work / "data"
    if not (data / "manifest.json").exists():
        labels = arguments.work / "hands" / HAND_CSV
        assert command("prepare", folder, "--labels", labels, "--recipe", "demo", *SET[:2], "--out", data).wait() == 0
    for part in arguments.parts:
        whole, out = arguments.work / ("whole-two" if part == "node" else "whole"), arguments.work / f"killed-{part}"
        shutil.rmtree(out, ignore_errors=True)
        if part == "node":
            shutil.rmtree(whole, ignore_errors=True)
        elif not (whole / "metrics.json").exists():
            assert train(data, whole).wait() == 0
        print(json.dumps(PARTS[part](data, whole, out, arguments.kills)), flush=True)


if __name__ == "__main__":
    main()
