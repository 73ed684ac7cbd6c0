"""What is different when a cluster has several nodes: whether all see one place, what each computes in, nodes that come later."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from boneage_ray import storage
from boneage_ray.environment import real_number
from boneage_ray.errors import BoneageError, MismatchError, ServerError, StorageError, UsageError
from boneage_ray.runtime import autoscaler, plan
from boneage_ray.runtime.devices import Device, RunDevice, bfloat16_on
from boneage_ray.runtime.lease import SHARED_PLACE, Hold
from boneage_ray.runtime.resources import check_gpu
from boneage_ray.runtime.runs import say
from boneage_ray.storage.dicomweb import is_dicomweb
from boneage_ray.storage.dicomweb_source import check_source

PROBE_SECONDS = 120.0
WAIT_SECONDS = 900.0
SAY_EVERY = 30.0
_HEAD_BYTES = 2**16
T = TypeVar("T")


@dataclass(frozen=True)
class Mark:
    """A file that every node must see as the driver does: the flag that led to it, and the hash of its first bytes."""

    flag: str
    uri: str
    digest: str


def check_places(hold: Hold, places: Sequence[tuple[str, str]]) -> None:
    """Raise `UsageError` unless every node sees OUT, as leased by this run, and the `places` (flag, URI) that it reads.

    A folder is compared by its first file. On a cluster of one node nothing is asked. Nodes that come later are asked by the
    commits of their workers. Waits for the first CPU of a cluster that has none yet.
    """
    import ray

    wait_for("CPU", 1, "starting")
    if len(_working_nodes(ray)) < 2 and _is_here(ray, _working_nodes(ray)):
        return
    marks = [mark for flag, uri in places if (mark := _mark(flag, uri))]
    answers = on_every_node(_look, hold, marks)
    blind = {node: found for node, found in answers.items() if found}
    if blind:
        node, (problem, *_) = next(iter(blind.items()))
        raise UsageError(f"{len(blind)} of {len(answers)} nodes see other files than the driver: {node}: {problem}")


def device_of_run(out: str, gpu: bool, one_device: bool = False) -> RunDevice:
    """The device and precision of the run that claimed OUT. They are decided once and stand in its plan, also if it continues.

    Automatic precision is bfloat16 if all nodes that have such a device compute in it. Waits for a first GPU that may come.
    `one_device`: raise `MismatchError` if the run began on the other kind of device; else only its precision stays.
    """
    planned, device = plan.planned_device(out), "cuda" if gpu else "cpu"
    if planned is not None and planned.device != device and one_device:
        fix = "omit --gpu" if gpu else "give --gpu"
        raise MismatchError(
            f"{out}: this run began on {planned.device}, and its rows must not come from two kinds of devices: {fix}, or "
            "--overwrite to start again"
        )
    wait_for("GPU" if gpu else "CPU", 1, "--gpu" if gpu else "starting")
    check_gpu(gpu)
    if planned is not None:
        return replace(planned, device="cuda" if gpu else "cpu")
    compute = device_of_cluster(gpu)
    plan.plan_device(out, compute)
    return compute


def device_of_cluster(gpu: bool) -> RunDevice:
    """The device of all workers or replicas, and what automatic precision means on it: bfloat16 if all nodes compute in it."""
    import ray

    device: Device = "cuda" if gpu else "cpu"
    nodes = _working_nodes(ray)
    if len(nodes) < 2 and _is_here(ray, nodes):
        native = bfloat16_on(device)
    else:
        answers = on_every_node(_native, device, resource="GPU" if gpu else "CPU").values()
        native = bool(answers) and all(answers)  # where no node could be asked, float32 is right on every one
    return RunDevice(device, "bfloat16" if native else "float32")


def _native(device: Device) -> bool:
    return bfloat16_on(device)  # Ray takes plain functions only


def on_every_node(task: Callable[..., T], *arguments: Any, resource: str = "CPU") -> dict[str, T]:  # noqa: ANN401
    """Name of each node that has the resource -> what the function returns there. A node that leaves meanwhile is left out.

    Raises `BoneageError` if a node does not answer within two minutes.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    names = {node["NodeID"]: _named(node) for node in _working_nodes(ray, resource)}
    asked = {
        ray.remote(num_cpus=0, max_retries=0)(task)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        .remote(*arguments): node
        for node in names
    }
    ready, silent = ray.wait(list(asked), num_returns=len(asked), timeout=PROBE_SECONDS)
    answers: dict[str, T] = {}
    for answer in ready:
        try:
            answers[names[asked[answer]]] = ray.get(answer)
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError:  # the node, or its worker, is gone
            continue
    here = {node["NodeID"] for node in _working_nodes(ray, resource)}
    if missing := [names[asked[answer]] for answer in silent if asked[answer] in here]:
        raise BoneageError(f"no answer within {PROBE_SECONDS:g} s from the node {missing[0]}, of {len(names)} nodes")
    return answers


def _working_nodes(ray: Any, resource: str = "CPU") -> list[dict[str, Any]]:  # noqa: ANN401  the module
    """The nodes of the cluster that take work; a head without CPUs does not."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get(resource, 0) > 0]


def _is_here(ray: Any, nodes: Sequence[dict[str, Any]]) -> bool:  # noqa: ANN401  the module
    """Whether these nodes are none but the driver's own."""
    own = ray.get_runtime_context().get_node_id()
    return all(node["NodeID"] == own for node in nodes)


def _named(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"


def _mark(flag: str, uri: str) -> Mark | None:
    """What the driver sees of a place; None of one without a file. A DICOMweb server need only answer."""
    if is_dicomweb(uri):
        return Mark(flag, uri, "")
    first = next(iter(storage.list_files(uri)), None)
    if first is None or first.problem is not None:
        return None
    return Mark(flag, first.uri, _digest(first.uri))


def _digest(uri: str) -> str:
    return hashlib.sha256(storage.read_range(uri, 0, _HEAD_BYTES)).hexdigest()


def _look(hold: Hold, marks: Sequence[Mark]) -> list[str]:
    """What is wrong with the places as this node sees them; nothing if it sees what the driver does."""
    problems = [f"--out {hold.out}: {problem}"] if (problem := hold.problem()) else []
    for mark in marks:
        try:
            if is_dicomweb(mark.uri):
                check_source(mark.uri)
                continue
            problem = None if _digest(mark.uri) == mark.digest else f"{mark.uri} is another file there"
        except (StorageError, ServerError) as error:
            problem = str(error)
        if problem:
            problems.append(f"{mark.flag}: {problem}; {SHARED_PLACE}")
    return problems


def patience() -> float:
    """Seconds that a command waits for what a cluster may still add."""
    return real_number("BONEAGE_WAIT_SECONDS", WAIT_SECONDS, "seconds")


def wait_for(resource: str, count: float, flag: str) -> None:
    """Wait until the cluster has so much of a resource: at once where it is there, or no autoscaler watches the cluster.

    Asks the autoscaler for it and says what is waited for. Raises `UsageError` if it refuses, and after `BONEAGE_WAIT_SECONDS`.
    """
    import ray

    def present() -> float:
        return float(ray.cluster_resources().get(resource, 0))

    if present() >= count or not autoscaler.is_there():
        return
    bound = patience()
    request = autoscaler.Request([{resource: 1}] * int(count))
    request.send()
    started = said = time.monotonic()
    say(
        f"{flag}: waiting up to {bound:g} s for {count:g} {resource}; the cluster has {present():g} now, its autoscaler is asked"
    )
    try:
        while present() < count:
            now = time.monotonic()
            if request.answer() == "refused":
                raise UsageError(
                    f"{flag}: the cluster has {present():g} {resource}, and its autoscaler cannot make it {count:g}: ask for "
                    "less, or see its node types and their largest numbers"
                )
            if now - started > bound:
                raise UsageError(
                    f"{flag}: the cluster has {present():g} {resource} and did not get {count:g} within {bound:g} s "
                    "(BONEAGE_WAIT_SECONDS); `ray status` on the head says what the autoscaler waits for"
                )
            if now - said > SAY_EVERY:
                said = now
                say(f"still waiting for {count:g} {resource}, {present():g} so far, {now - started:.0f} s")
            request.renew()
            time.sleep(1.0)
    finally:
        request.withdraw()  # the work itself is the demand from here on
