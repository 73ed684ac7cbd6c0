"""Several nodes: they share their places or the run is refused, they compute alike, and one that is lost costs no row."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pipelines.real_nodes import marks, real_nodes

from boneage_ray import bundle, storage
from boneage_ray.models.regressor import Regressor
from boneage_ray.phantoms.archive import HAND_CSV, HAND_FOLDER, write_hand_archive
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.runtime import lease

pytestmark = marks()
HANDS = 300


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """`hands`, a model of random weights, and `private`, which the second node has for itself."""
    root = tmp_path_factory.mktemp("nodes")
    write_hand_archive(str(root / "hands"), HANDS, seed=5, size=96)
    write_hand_archive(str(root / "private" / "hands"), 4, seed=5, size=96)
    recipe = override(find_recipe("demo"), ["image.size=64", "model.backbone.name=resnet10t"])
    bundle.save(str(root / "model"), recipe, Regressor(recipe.model, with_weights=False).state_dict(), {})
    # A processor that computes in float32 only.
    lines = Path("/proc/cpuinfo").read_text().splitlines(keepends=True)
    (root / "cpuinfo").write_text("".join(line for line in lines if not line.startswith(("flags", "Features"))))
    return root


@pytest.fixture(scope="module")
def cluster(work):
    """A head and a second node with another processor, which has a disk of its own at `private`; `second` ends it."""
    with real_nodes() as nodes:
        other = f"mount --bind {work}/cpuinfo /proc/cpuinfo && mount -t tmpfs none {work}/private"
        nodes.second = nodes.add(other)
        yield nodes


def boneage(cluster, *arguments):
    command = [sys.executable, "-m", "boneage_ray", *map(str, arguments)]
    return subprocess.Popen(command, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process):
    """(exit code, stderr) of a command."""
    _, errors = process.communicate(timeout=600)
    return process.returncode, errors


@pytest.mark.parametrize("private", ["OUT", "SOURCE"])
def test_a_place_that_one_node_has_for_itself_is_refused_before_any_work(cluster, work, private):
    hands = work / ("private/hands" if private == "SOURCE" else "hands")
    out = work / ("private/data" if private == "OUT" else "refused")
    flags = ("--labels", hands / HAND_CSV, "--recipe", "demo", "--out", out)
    code, errors = finished(boneage(cluster, "prepare", hands / HAND_FOLDER, *flags))
    assert code == 2, errors
    flag = f"--out {out}" if private == "OUT" else "SOURCE"
    assert "1 of 2 nodes see other files than the driver" in errors
    assert "127.0.0.2" in errors
    assert f"{flag}: " in errors
    assert "object storage (s3://...) or a path that all of them mount" in errors
    assert sorted(path.name for path in out.iterdir()) == ["plan.json", "run.json"]


def test_a_node_that_is_lost_costs_no_row_and_nodes_of_two_kinds_compute_alike(cluster, work):
    out = work / "scores"
    process = boneage(cluster, "score", work / "hands" / HAND_FOLDER, "--model", work / "model", "--out", out)
    end = time.monotonic() + 300
    while len(list((out / "results").glob("part-*.parquet"))) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    held = json.loads((out / lease.LEASE).read_text())
    assert (held["what"], held["pid"]) == ("score", process.pid)
    committed = len(list((out / "results").glob("part-*.parquet")))
    cluster.second.kill()
    code, errors = finished(process)
    assert code == 0, errors
    assert committed < len(list((out / "results").glob("part-*.parquet")))
    rows = pq.read_table(out / "results").column("input_uri").to_pylist()
    assert (len(rows), len(set(rows))) == (HANDS, HANDS)
    assert storage.read_json(f"{out}/summary.json")["scored"] == HANDS
    assert storage.read_json(f"{out}/plan.json")["compute"] == {"device": "cpu", "auto_precision": "float32"}
    assert not (out / lease.LEASE).exists()
