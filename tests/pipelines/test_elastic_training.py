"""A training whose node is lost goes on with one worker, and with two again once another node has come."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

from pipelines.real_nodes import marks, real_nodes
from pipelines.steps import SMALL

pytestmark = marks()
SCRIPT = """
import sys
from boneage_ray.commands import pipeline
from boneage_ray.runtime.runs import Run
from boneage_ray.training import elastic
elastic.GROW_SECONDS = 1.0
data, out, *settings = sys.argv[1:]
pipeline.train(Run("train"), pipeline.TrainArguments("demo", data, out, workers=2, min_workers=1, settings=settings))
"""


def history(out):
    """The lines of all epochs that are committed."""
    for path in sorted(out.glob("checkpoints/epoch-????.json"), reverse=True):
        try:
            return json.loads(path.read_text())["history"]
        except FileNotFoundError:  # replaced meanwhile
            continue
    return []


def wait_for(workers, out, process):
    """Wait until two more epochs have ended with so many workers."""
    before, end = len(history(out)), time.monotonic() + 300
    while [line["workers"] for line in history(out)[before:]][-2:] != [workers] * 2:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.1)


def test_two_workers_become_one_and_two_again(prepared, tmp_path):
    out = tmp_path / "model"
    with real_nodes() as nodes:
        second = nodes.add()
        command = [sys.executable, "-c", SCRIPT, prepared, str(out), *SMALL, "stage.epochs=9000", "stage.patience=0"]
        process = subprocess.Popen(
            command, env=nodes.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_for(2, out, process)
        second.kill()
        wait_for(1, out, process)
        nodes.add()
        wait_for(2, out, process)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=600)
    lines = history(out)
    numbers = [line["workers"] for line in lines]
    assert [n for k, n in enumerate(numbers) if k == 0 or n != numbers[k - 1]] == [2, 1, 2], numbers
    assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))
    assert len({line["train_cases"] for line in lines}) == 1, "as many cases an epoch, however many workers"
    assert "there is room for 1 of 2 workers: training goes on with these" in said
    assert "there is room for 2 workers: after a checkpoint, training goes on with more" in said
    assert "the checkpoint after epoch" in said
