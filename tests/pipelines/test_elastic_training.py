"""A training whose node is lost goes on with one worker, and with two again once another node has come."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from pipelines.real_nodes import available, real_nodes
from pipelines.steps import SMALL

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("ray-of-its-own"),
    pytest.mark.skipif(available() is not None, reason=f"nodes of their own need namespaces: {available()}"),
]
EPOCHS = 40
SCRIPT = """
import sys
from boneage_ray.commands import pipeline
from boneage_ray.runtime.runs import Run
from boneage_ray.training import elastic
elastic.GROW_SECONDS = 1.0
data, out, *settings = sys.argv[1:]
pipeline.train(Run("train"), pipeline.TrainArguments("demo", data, out, workers=2, min_workers=1, settings=settings))
"""


def epochs(out):
    """The epoch that the last checkpoint is of; 0 before the first."""
    return max((int(path.name[6:10]) for path in out.glob("checkpoints/epoch-*.json")), default=0)


def wait_for(epoch, out, process):
    end = time.monotonic() + 300
    while epochs(out) < epoch:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.1)


def test_two_workers_become_one_and_two_again(prepared, tmp_path):
    out = tmp_path / "model"
    settings = [*SMALL, f"stage.epochs={EPOCHS}", "stage.patience=0"]
    with real_nodes() as nodes:
        second = nodes.add()
        command = [sys.executable, "-c", SCRIPT, prepared, str(out), *settings]
        process = subprocess.Popen(
            command, env=nodes.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_for(1, out, process)
        second.kill()
        wait_for(epochs(out) + 2, out, process)
        nodes.add()
        _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    history = json.loads((out / "metrics.json").read_text())["history"]
    numbers = [line["workers"] for line in history]
    assert [n for k, n in enumerate(numbers) if k == 0 or n != numbers[k - 1]] == [2, 1, 2], numbers
    assert len(history) == EPOCHS
    assert len({line["train_cases"] for line in history}) == 1, "as many cases an epoch, however many workers"
    assert "there is room for 1 of 2 workers: training goes on with these" in said
    assert "there is room for 2 workers: after a checkpoint, training goes on with more" in said
    assert not [line for line in history if line["train_loss"] is None]
