"""What an autoscaler may still add to a cluster: it is asked, because Ray tells no driver beforehand.

How far a cluster may grow stands in the configuration of its autoscaler. Ray 2.60 has a call for it that Ray Train and Ray Data
use too (`get_max_resources_from_cluster_config`), but no autoscaler of open-source Ray ever fills it in. So nodes are requested,
and the state of the autoscaler is the answer. Version 2 (KubeRay; elsewhere RAY_enable_autoscaler_v2=1) says what it cannot
satisfy, and then starts none of it. Version 1 starts what it can, and says nothing of the rest.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any, Literal

Answer = Literal["accepted", "refused"]

LOOK_SECONDS, RENEW_SECONDS = 2.0, 30.0
QUIET_SECONDS = 60.0  # so long without a node that is being started, version 1 can start none
_STATUS_OF_VERSION_1 = b"__autoscaling_status"
_PLAIN = "node_"  # what the nodes of `ray start` are called that no configuration describes


def is_there() -> bool:
    """Whether an autoscaler with node types of its own watches the connected cluster. The head of `ray start` alone has none."""
    state = _state()
    if state.HasField("autoscaling_state"):
        return bool(state.autoscaling_state.autoscaler_state_version)
    kinds = _report_of_version_1().get("node_type_mapping") or {}
    return any(not str(kind).startswith(_PLAIN) for kind in kinds.values())


@dataclass
class Request:
    """Bundles, such as {"CPU": 1.0}, that the cluster shall have in all, with those that it has.

    There is one request in a cluster: a later one of anybody replaces it, so it is renewed while it matters.
    """

    bundles: list[dict[str, float]]
    _asked: float = field(default_factory=time.monotonic)
    _renewed: float = 0.0
    _version: int = 0

    def send(self) -> None:
        """Ask the autoscaler, again if it was asked before."""
        from ray.autoscaler.sdk import request_resources

        if not self._renewed:
            self._version = _state().cluster_resource_state.cluster_resource_state_version
        request_resources(bundles=self.bundles)
        self._renewed = time.monotonic()

    def renew(self) -> None:
        """Ask again if the last time was a while ago."""
        if time.monotonic() - self._renewed > RENEW_SECONDS:
            self.send()

    def answer(self) -> Answer | None:
        """What the autoscaler makes of it; None while that cannot be said."""
        state = _state()
        if state.HasField("autoscaling_state"):
            found = state.autoscaling_state
            if found.last_seen_cluster_resource_state_version <= self._version + 1:
                return None  # it has not looked since
            return "refused" if found.infeasible_cluster_resource_constraints else "accepted"
        report = _report_of_version_1()
        if report.get("pending_launches") or report.get("pending_nodes"):
            return "accepted"
        return "refused" if time.monotonic() - self._asked > QUIET_SECONDS else None

    def withdraw(self) -> None:
        """Take the request back."""
        from ray.autoscaler.sdk import request_resources

        request_resources(bundles=[])


@contextmanager
def growing(bundle: dict[str, float], least: int, most: int) -> Iterator[None]:
    """Ask for nodes for `most` bundles while the block runs, or for as many as are not refused; `least` are there."""
    from ray.exceptions import RpcError

    ended = Event()

    def keep_asking() -> None:
        low, high = least, most  # known to be possible, and perhaps possible
        count, request = most, Request([bundle] * most)
        with suppress(RpcError):
            request.send()
        while not ended.wait(LOOK_SECONDS):
            with suppress(RpcError):  # a head that starts again answers at the next look
                answer = request.answer() if low < high else None
                if answer is None:
                    request.renew()
                    continue
                low, high = (count, high) if answer == "accepted" else (low, count - 1)
                count = (low + high + 1) // 2
                request = Request([bundle] * count)
                request.send()
        with suppress(RpcError):
            request.withdraw()

    asking = Thread(target=keep_asking, name="growing", daemon=True)
    asking.start()
    try:
        yield
    finally:
        ended.set()
        asking.join()


def _state() -> Any:  # noqa: ANN401  Ray's protocol messages are not typed
    """The cluster's state as `ray status` reads it. No public call of Ray 2.60 returns it."""
    import ray
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

    reply = GetClusterStatusReply()
    reply.ParseFromString(GcsClient(address=ray.get_runtime_context().gcs_address).get_cluster_status())
    return reply


def _report_of_version_1() -> dict[str, Any]:
    """What version 1 says of its nodes; empty where it does not run."""
    from ray.experimental.internal_kv import _internal_kv_get

    found = _internal_kv_get(_STATUS_OF_VERSION_1)
    report: dict[str, Any] = json.loads(found).get("autoscaler_report", {}) if found else {}
    return report
