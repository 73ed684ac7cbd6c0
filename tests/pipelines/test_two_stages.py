"""Two stages on a cluster of two nodes, one of which pretends to have GPUs: placement, kills, and rows that are equal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("ray-of-its-own")]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What was seen, see pretended_gpus.py. A process of its own, because its Ray has nodes of its own."""
    program = Path(__file__).with_name("pretended_gpus.py")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "BONEAGE_CPUS"))}
    ended = subprocess.run(
        [sys.executable, str(program), str(tmp_path_factory.mktemp("stages"))],
        capture_output=True,
        text=True,
        check=False,
        env=plain | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_all_nodes_decode_and_only_those_with_gpus_predict(seen):
    (elsewhere,) = {
        text.removeprefix("decoder ")
        for text in seen["seen"]
        if text.startswith("decoder ") and text not in ("decoder GPU node", "decoder died")
    }
    assert sorted(seen["seen"]) == sorted(
        [f"decoder {elsewhere}", "decoder GPU node", "decoder died", "predictor GPU node", "predictor died"]
    )
    assert seen["shapes"] == ["fused", "two-stage"]
    assert seen["predict_seconds"] > 0


def test_rows_are_equal_in_both_shapes_also_when_a_decoder_and_a_predictor_were_killed(seen):
    assert (seen["rows"], seen["equal"]) == (96, True)


def test_a_question_that_kills_each_predictor_is_given_up_and_others_are_answered(seen):
    assert seen["answers"] == ["hello!", "BoneageError of another run", "PartLostError", "again!"]
