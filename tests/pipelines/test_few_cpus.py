"""A machine with one core: nothing starves, nothing hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from pipelines.steps import SMALL

# A Ray of its own: beside the tests that share one.
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("ray-of-its-own")]

SCRIPT = """
import json, sys
from boneage_ray.runtime import cluster
from boneage_ray.commands import pipeline
from boneage_ray.runtime.runs import Run
archive, out, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
assert cluster.connect() == 1.0
def go(command, arguments):
    record = Run(command.__name__)
    command(record, arguments)
    return record.answer
go(pipeline.prepare, pipeline.PrepareArguments(archive, "demo", out + "/data", settings=settings))
go(pipeline.train, pipeline.TrainArguments("demo", out + "/data", out + "/model", workers=2, settings=settings))
go(pipeline.evaluate, pipeline.EvaluateArguments(out + "/model", out + "/data", out + "/evaluation"))
answer = go(pipeline.score, pipeline.ScoreArguments(archive, out + "/model", out + "/scores"))
print(json.dumps(answer))
"""


def test_whole_way_on_one_cpu(archive, tmp_path):
    settings = json.dumps([*SMALL, "stage.epochs=1"])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, archive, str(tmp_path), settings],
        env={**os.environ, "BONEAGE_CPUS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["scored"] == 60
