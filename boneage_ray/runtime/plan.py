"""What `plan.json` in OUT keeps of a run: whose place it is, what decides its results, its device, its last update.

{"what": "score", "fingerprint": "5b1c...", "settings": {"pipeline version": "1", "model": "9f..."},
 "compute": {"device": "cpu", ...}, "update": {"id": "77aa...", "done": true}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boneage_ray import storage
from boneage_ray.runtime.devices import RunDevice

PLAN = "plan.json"


def read_plan(out: str) -> dict[str, Any] | None:
    """The plan of OUT; None where no run has claimed it."""
    plan = storage.join(out, PLAN)
    return dict(storage.read_json(plan)) if storage.exists(plan) else None


def write_plan(out: str, what: str, mark: str, settings: Mapping[str, str] | None) -> None:
    """Begin the plan of a new run."""
    named = {"settings": dict(settings)} if settings else {}
    storage.write_json(storage.join(out, PLAN), {"what": what, "fingerprint": mark} | named)


def difference(held: Mapping[str, str] | None, settings: Mapping[str, str] | None) -> str:
    """What of the settings is another, as "; model was a, is b"; empty where none are known."""
    if not settings:
        return ""
    if not held:
        return "; it is of an earlier version of boneage"
    names = [name for name in {**held, **settings} if held.get(name) != settings.get(name)]
    return "".join(
        f"; {name} was {held.get(name, 'not given')}, is {settings.get(name, 'not given')}" for name in names
    )


def planned_device(out: str) -> RunDevice | None:
    """The device and precision that the plan of OUT keeps; None before they are decided."""
    plan = read_plan(out) or {}
    return RunDevice.from_json(plan["compute"]) if "compute" in plan else None


def plan_device(out: str, compute: RunDevice) -> None:
    """Keep the device and precision of a run in its plan."""
    _add(out, "compute", compute.as_json())


def planned_update(out: str) -> dict[str, Any] | None:
    """The last update of OUT, {"id": hash, "done": whether it came to its end}; None if it was never updated."""
    return (read_plan(out) or {}).get("update")


def plan_update(out: str, mark: str, done: bool) -> None:
    """Keep in the plan of OUT that it is being updated, or was."""
    _add(out, "update", {"id": mark, "done": done})


def _add(out: str, name: str, value: Mapping[str, Any]) -> None:
    storage.write_json(storage.join(out, PLAN), (read_plan(out) or {}) | {name: value})
