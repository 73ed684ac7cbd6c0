"""How many actors a run gets now and later, and how long it waits for what an autoscaler may add. No Ray runs here."""

from __future__ import annotations

import pytest
import ray
import ray.autoscaler.sdk

from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.runtime import cluster, nodes, parts, resources
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.runtime.resources import Resources, check_workers, choose_resources, offered_cpus


@pytest.fixture
def world(monkeypatch):
    """world(now, most) is a cluster that has `now` and may grow to `most`; returns what the autoscaler was asked for."""
    asked = []
    monkeypatch.setattr(ray.autoscaler.sdk, "request_resources", lambda bundles: asked.append(bundles))  # noqa: PLW0108

    def make(now, most=None):
        monkeypatch.setattr(ray, "cluster_resources", lambda: now)
        for module in (resources, nodes):
            monkeypatch.setattr(module, "scales", lambda: most or {})
        return asked

    return make


@pytest.mark.parametrize(
    ("now", "most", "parts_waiting", "gpu", "expected"),
    [
        ({"CPU": 4.0}, None, 100, False, Resources(4, 0.0, 1, 4)),
        ({"CPU": 4.0}, None, 2, False, Resources(2, 0.0, 1, 4)),
        ({"CPU": 4.0}, {"CPU": 40.0}, 100, False, Resources(4, 0.0, 1, 4, 40)),
        ({"CPU": 4.0}, {"CPU": 40.0}, 9, False, Resources(4, 0.0, 1, 4, 9)),
        ({"CPU": 4.0}, {"CPU": 40.0}, 3, False, Resources(3, 0.0, 1, 4)),
        ({"CPU": 8.0, "GPU": 2.0}, None, 100, True, Resources(2, 1.0, 4, 8)),
        ({"CPU": 8.0, "GPU": 1.0}, {"GPU": 8.0, "CPU": 64.0}, 100, True, Resources(1, 1.0, 8, 8, 8)),
    ],
)
def test_actors_are_as_many_as_there_are_cores_and_may_become_as_many_as_the_cluster_allows(
    world, now, most, parts_waiting, gpu, expected
):
    world(now, most)
    assert choose_resources(parts_waiting, gpu) == expected


def test_a_pool_grows_only_where_the_cluster_does_and_asks_for_its_nodes_as_long_as_it_runs(world):
    asked = world({"CPU": 1.0})
    with cluster._growth(Resources(2, 0.0, 1, 2)):
        assert asked == []
    with cluster._growth(Resources(1, 1.0, 4, 4, 3)):
        assert asked == [[{"CPU": 1.0, "GPU": 1.0}] * 3]
    assert asked[1:] == [[]]
    assert "up to 3 as the cluster grows" in Resources(1, 1.0, 4, 4, 3).describe()


def test_parts_are_listed_ahead_for_the_whole_cluster_within_reason(world):
    world({"CPU": 2.0}, {"CPU": 40.0})
    assert offered_cpus() == 40
    world({}, {"CPU": 9e18})
    assert offered_cpus() == resources.MOST_PARTS_AHEAD


def test_without_a_gpu_now_or_later_a_run_is_refused_at_once(world):
    asked = world({"CPU": 2.0}, {"CPU": 40.0})
    nodes.wait_for("GPU", 1, "--gpu")
    with pytest.raises(UsageError, match="the cluster has no GPU"):
        choose_resources(4, gpu=True)
    with pytest.raises(UsageError, match="the cluster has 0 GPU"):
        check_workers(1, True, 2.0)
    assert asked == []


def test_zero_gpus_now_is_not_no_gpu(world, monkeypatch, capsys):
    now = {"CPU": 2.0}
    asked = world(now, {"CPU": 40.0, "GPU": 4.0})
    check_workers(3, True, 2.0)
    naps = []

    def nap(seconds):
        naps.append(seconds)
        now["GPU"] = float(len(naps))  # one more after every look

    monkeypatch.setattr(nodes.time, "sleep", nap)
    nodes.wait_for("GPU", 3, "--gpu --workers 3")
    assert asked == [[{"GPU": 1}] * 3, []]
    assert len(naps) == 3
    said = capsys.readouterr().err
    assert "--gpu --workers 3: waiting up to 900 s for 3 GPU; the cluster has 0 now and can grow" in said


def test_a_wait_ends_after_its_time_and_takes_its_request_back(world, monkeypatch):
    asked = world({"CPU": 2.0}, {"GPU": 4.0})
    monkeypatch.setenv("BONEAGE_WAIT_SECONDS", "0.1")
    monkeypatch.setattr(nodes.time, "sleep", lambda _: None)
    with pytest.raises(UsageError, match=r"did not get 1 within 0.1 s \(BONEAGE_WAIT_SECONDS\); `ray status`"):
        nodes.wait_for("GPU", 1, "--gpu")
    assert asked[-1] == []


@pytest.mark.parametrize(("began", "gpu", "fix"), [("cpu", True, "omit --gpu"), ("cuda", False, "give --gpu")])
def test_rows_of_one_run_never_come_from_two_kinds_of_devices(world, tmp_path, began, gpu, fix):
    world({"CPU": 2.0, "GPU": 1.0})
    out = str(tmp_path)
    parts.claim(out, "abc", False, "score")
    parts.plan_device(out, RunDevice(began, "bfloat16"))
    with pytest.raises(MismatchError, match=f"this run began on {began}, .*{fix}"):
        nodes.device_of_run(out, gpu, one_device=True)
    # A training may go on elsewhere, in the precision that it began with.
    assert nodes.device_of_run(out, gpu) == RunDevice("cuda" if gpu else "cpu", "bfloat16")
    assert nodes.device_of_run(out, not gpu, one_device=True) == RunDevice(began, "bfloat16")


def test_where_no_node_could_be_asked_nothing_is_computed_in_bfloat16(world, monkeypatch):
    world({"CPU": 2.0})
    monkeypatch.setattr(nodes, "_working_nodes", lambda ray, resource="CPU": [{}, {}])
    monkeypatch.setattr(nodes, "on_every_node", lambda *_, **__: {})
    assert nodes.device_of_cluster(gpu=True) == RunDevice("cuda", "float32")
