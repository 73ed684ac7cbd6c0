"""How many actors a run gets now and later, and how long it waits for what an autoscaler may add. No Ray runs here."""

from __future__ import annotations

from threading import Event

import pytest
import ray
import ray.autoscaler.sdk
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.runtime import autoscaler, cluster, nodes, parts, plan, resources
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.runtime.resources import (
    Resources,
    check_shape,
    check_workers,
    choose_resources,
    in_two_stages,
    offered_cpus,
)


@pytest.fixture
def world(monkeypatch):
    """world(now, answers) is a cluster that has `now`; with answers it has an autoscaler, which gives one at each look.

    Returns what the autoscaler was asked for.
    """
    asked = []
    monkeypatch.setattr(ray.autoscaler.sdk, "request_resources", lambda bundles: asked.append(bundles))  # noqa: PLW0108

    def make(now, answers=None):
        monkeypatch.setattr(ray, "cluster_resources", lambda: now)
        monkeypatch.setattr(autoscaler, "is_there", lambda: answers is not None)
        monkeypatch.setattr(autoscaler, "_state", GetClusterStatusReply)
        looks = iter(answers or [])
        monkeypatch.setattr(autoscaler.Request, "answer", lambda self: next(looks, None))
        return asked

    return make


def state(version=0, seen=0, infeasible=False):
    """What the second version of the autoscaler says."""
    reply = GetClusterStatusReply()
    reply.cluster_resource_state.cluster_resource_state_version = 7
    reply.autoscaling_state.autoscaler_state_version = version
    reply.autoscaling_state.last_seen_cluster_resource_state_version = seen
    if infeasible:
        reply.autoscaling_state.infeasible_cluster_resource_constraints.add()
    return reply


@pytest.mark.parametrize(
    ("now", "grows", "parts_waiting", "gpu", "expected"),
    [
        ({"CPU": 4.0}, False, 100, False, Resources(4, 0.0, 1, 4)),
        ({"CPU": 4.0}, False, 2, False, Resources(2, 0.0, 1, 4)),
        ({"CPU": 4.0}, True, 100, False, Resources(4, 0.0, 1, 4, 100)),
        ({"CPU": 4.0}, True, 10_000, False, Resources(4, 0.0, 1, 4, resources.MOST_PARTS_AHEAD)),
        ({"CPU": 4.0}, True, 3, False, Resources(3, 0.0, 1, 4)),
        ({"CPU": 8.0, "GPU": 2.0}, False, 100, True, Resources(2, 1.0, 4, 8)),
        ({"CPU": 8.0, "GPU": 1.0}, True, 8, True, Resources(1, 1.0, 8, 8, 8)),
    ],
)
def test_actors_are_as_many_as_there_are_cores_and_may_become_as_many_as_there_is_work_for(
    world, now, grows, parts_waiting, gpu, expected
):
    world(now, [] if grows else None)
    assert choose_resources(parts_waiting, gpu) == expected


@pytest.mark.parametrize(
    ("nodes_cpus", "gpus", "parts_waiting", "expected"),
    [
        ((1,), 1, 100, Resources(1, 0.0, 1, 1, 0, 1)),
        ((0, 4, 8), 2, 100, Resources(15, 0.0, 1, 12, 0, 2)),  # a head without CPUs takes none
        ((4, 8), 8, 3, Resources(3, 0.0, 1, 12, 0, 3)),
    ],
)
def test_in_two_stages_workers_come_on_all_nodes_and_leave_room_for_the_listing(
    world, monkeypatch, nodes_cpus, gpus, parts_waiting, expected
):
    world({"CPU": float(sum(nodes_cpus)), "GPU": float(gpus)})
    there = [{"Alive": True, "Resources": {"CPU": float(each)}} for each in nodes_cpus]
    monkeypatch.setattr(ray, "nodes", lambda: [*there, {"Alive": False, "Resources": {"CPU": 64.0}}])
    found = choose_resources(parts_waiting, True, True)
    assert found == expected
    assert found.actors * found.cpus_per_actor + cluster.LISTING_CPUS <= sum(nodes_cpus)
    assert f"predictions by {found.predictors} actor(s) with 1 GPU each (two-stage)" in found.describe()


@pytest.mark.parametrize(
    ("shape", "gpu", "grows", "expected"),
    [
        ("auto", True, False, True),
        ("auto", True, True, False),  # GPUs that come later would not be used
        ("two-stage", True, True, True),
        ("fused", True, False, False),
        ("auto", False, False, False),
    ],
)
def test_the_shape_follows_from_the_cluster_unless_it_is_given(world, shape, gpu, grows, expected):
    world({"CPU": 4.0, "GPU": 1.0}, [] if grows else None)
    assert in_two_stages(check_shape(shape, gpu), gpu) is expected


def test_a_shape_that_cannot_be_is_refused():
    with pytest.raises(UsageError, match="--shape both: give one of auto, fused, two-stage"):
        check_shape("both", True)
    with pytest.raises(UsageError, match="--shape two-stage: the second stage predicts on GPUs; give --gpu"):
        check_shape("two-stage", False)


def test_a_pool_grows_only_where_an_autoscaler_is_and_asks_for_as_many_nodes_as_it_does_not_refuse(world, monkeypatch):
    asked = world({"CPU": 1.0})
    with cluster._growth(Resources(2, 0.0, 1, 2)):
        assert asked == []
    monkeypatch.setattr(autoscaler, "LOOK_SECONDS", 0.001)
    enough = {"CPU": 1.0, "GPU": 1.0}
    settled = Event()
    world({"CPU": 1.0}, [])
    # This cluster can have 5 of them.
    monkeypatch.setattr(autoscaler.Request, "answer", lambda self: "accepted" if len(self.bundles) <= 5 else "refused")
    monkeypatch.setattr(autoscaler.Request, "renew", lambda self: settled.set())
    with cluster._growth(Resources(1, 1.0, 4, 4, 16)):
        assert settled.wait(30)
    assert asked == [[enough] * 16, [enough] * 8, [enough] * 4, [enough] * 6, [enough] * 5, [enough] * 5, []]
    assert "up to 3 as the cluster grows" in Resources(1, 1.0, 4, 4, 3).describe()


def test_parts_are_listed_ahead_for_the_whole_cluster_within_reason(world):
    world({"CPU": 2.0})
    assert offered_cpus() == 2
    world({"CPU": 2.0}, [])
    assert offered_cpus() == resources.MOST_PARTS_AHEAD


def test_without_a_gpu_and_an_autoscaler_a_run_is_refused_at_once(world):
    asked = world({"CPU": 2.0})
    nodes.wait_for("GPU", 1, "--gpu")
    with pytest.raises(UsageError, match="the cluster has no GPU"):
        choose_resources(4, gpu=True)
    with pytest.raises(UsageError, match="the cluster has 0 GPU"):
        check_workers(1, True, 2.0)
    assert asked == []


def test_zero_gpus_now_is_not_no_gpu(world, monkeypatch, capsys):
    now = {"CPU": 2.0}
    asked = world(now, [None, "accepted", "accepted"])
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
    assert "--gpu --workers 3: waiting up to 900 s for 3 GPU; the cluster has 0 now, its autoscaler is asked" in said


def test_a_wait_ends_when_the_autoscaler_refuses_or_after_its_time_and_takes_its_request_back(world, monkeypatch):
    monkeypatch.setattr(nodes.time, "sleep", lambda _: None)
    asked = world({"CPU": 2.0}, [None, "refused"])
    with pytest.raises(UsageError, match="the cluster has 0 GPU, and its autoscaler cannot make it 4"):
        nodes.wait_for("GPU", 4, "--gpu")
    assert asked == [[{"GPU": 1}] * 4, []]
    asked = world({"CPU": 2.0}, [])
    monkeypatch.setenv("BONEAGE_WAIT_SECONDS", "0.1")
    with pytest.raises(UsageError, match=r"did not get 1 within 0.1 s \(BONEAGE_WAIT_SECONDS\); `ray status`"):
        nodes.wait_for("GPU", 1, "--gpu")
    assert asked[-1] == []


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (state(), False),  # beside a head that no configuration describes
        (state(version=1), True),
    ],
)
def test_the_autoscaler_beside_a_plain_head_adds_no_node(monkeypatch, status, expected):
    monkeypatch.setattr(autoscaler, "_state", lambda: status)
    assert autoscaler.is_there() is expected


@pytest.mark.parametrize(
    ("mapping", "expected"), [({}, False), ({"ff01": "node_ff01"}, False), ({"ff01": "ray.head.default"}, True)]
)
def test_the_first_version_of_the_autoscaler_is_known_by_the_node_types_of_its_report(monkeypatch, mapping, expected):
    monkeypatch.setattr(autoscaler, "_state", GetClusterStatusReply)
    monkeypatch.setattr(autoscaler, "_report_of_version_1", lambda: {"node_type_mapping": mapping})
    assert autoscaler.is_there() is expected


def test_an_answer_is_taken_once_the_autoscaler_has_looked_at_the_request(monkeypatch):
    monkeypatch.setattr(ray.autoscaler.sdk, "request_resources", lambda bundles: None)
    said = []
    monkeypatch.setattr(autoscaler, "_state", lambda: said[-1])
    request = autoscaler.Request([{"GPU": 1}])
    said.append(state(1, 7, infeasible=True))  # of the request before
    request.send()
    assert request.answer() is None
    said.append(state(1, 9, infeasible=True))
    assert request.answer() == "refused"
    said.append(state(1, 9))
    assert request.answer() == "accepted"


def test_the_first_version_starts_what_it_can_and_has_refused_after_a_minute_without_a_node(monkeypatch):
    monkeypatch.setattr(autoscaler, "_state", GetClusterStatusReply)
    report = {}
    monkeypatch.setattr(autoscaler, "_report_of_version_1", lambda: report)
    request = autoscaler.Request([{"GPU": 1}])
    assert request.answer() is None
    report["pending_launches"] = {"gpu": 1}
    assert request.answer() == "accepted"
    report.clear()
    request._asked -= autoscaler.QUIET_SECONDS
    assert request.answer() == "refused"


@pytest.mark.parametrize(("began", "gpu", "fix"), [("cpu", True, "omit --gpu"), ("cuda", False, "give --gpu")])
def test_rows_of_one_run_never_come_from_two_kinds_of_devices(world, tmp_path, began, gpu, fix):
    world({"CPU": 2.0, "GPU": 1.0})
    out = str(tmp_path)
    parts.claim(out, "abc", False, "score")
    plan.plan_device(out, RunDevice(began, "bfloat16"))
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
