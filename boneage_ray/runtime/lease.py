"""One run at a time writes to OUT: a lease, which the driver renews and every worker checks before it commits.

`OUT/lease.json` lives as long as the run::

    {"owner": "9f0c...", "what": "score", "host": "head", "pid": 71, "machine": "...", "started": "...", "beat": 12}

Another run that finds it watches it. If it changes, its owner lives, and the other run is refused. If it does not change for
`BONEAGE_LEASE_SECONDS`, its owner was killed, and the lease is taken over. Only changes count, on the watcher's own clock, so the
clocks of the machines need not agree. The lease of a process that ended on this very machine is taken over at once.

An owner that was only suspended finds its lease gone: its heartbeat ends, and its workers commit nothing more.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneage_ray import storage
from boneage_ray.environment import real_number
from boneage_ray.errors import MismatchError, StorageError

LEASE = "lease.json"
STALE_SECONDS = 60.0
BEATS = 6  # that a lease must miss before it is taken over
SETTLE_SECONDS = 1.0  # after which the last of several writers is known, on a store without conditional writes
SHARED_PLACE = "on several nodes it must be object storage (s3://...) or a path that all of them mount"
_GIVEN_UP = "this run ends; what it has committed is kept"


@dataclass(frozen=True)
class Hold:
    """What a worker knows of its run's lease; one without an owner never refuses."""

    out: str
    owner: str = ""

    def check(self) -> None:
        """Raise `MismatchError` unless this run still holds OUT, as seen from this machine."""
        if problem := self.problem():
            raise MismatchError(f"{self.out}: {problem}; {_GIVEN_UP}")

    def problem(self) -> str | None:
        """Why this run does not hold OUT, as seen from this machine; None if it does."""
        found = _read(storage.join(self.out, LEASE)) if self.owner else None
        if not self.owner or (found and _parsed(found).get("owner") == self.owner):
            return None
        if found is None:
            return f"{platform.node()} does not find the lease that this run keeps there; {SHARED_PLACE}"
        return f"taken over by another run ({_named(found)})"


class _Lease:
    """A lease of this process and what its file holds."""

    def __init__(self, out: str, what: str) -> None:
        self.hold, self.lock = Hold(out, uuid.uuid4().hex), threading.Lock()
        self.uri = storage.join(out, LEASE)
        self.lost = False
        self.value = {"owner": self.hold.owner, "what": what, "host": platform.node(), **_this_process(), "beat": 0}

    def data(self) -> bytes:
        return json.dumps(self.value).encode()

    def renew(self) -> None:
        """Change the file, unless it is no longer this run's."""
        with self.lock:
            found = None if self.lost else _read(self.uri)
            if found is None or _parsed(found).get("owner") != self.hold.owner:
                self.lost = True
                return
            self.value["beat"] += 1
            storage.write_bytes(self.uri, self.data())

    def release(self) -> None:
        with self.lock:
            found = None if self.lost else _read(self.uri)
            self.lost = True
            if found is not None and _parsed(found).get("owner") == self.hold.owner:
                storage.delete_tree(self.uri)


_held: dict[str, _Lease] = {}
_stop = threading.Event()  # of the thread that renews all leases
_stop.set()


def hold(out: str, what: str, say: Callable[[str], None] = lambda _: None) -> Hold:
    """Take the lease of OUT for this process and keep it until `release_all`; a process may take the same one again.

    Waits for a lease that may be stale, and says so. Raises `MismatchError` if a run that lives holds it.
    """
    if out in _held and not _held[out].lost:
        return _held[out].hold
    lease = _Lease(out, what)
    taken_over = False
    end = time.monotonic() + _patience()
    while not storage.write_new(lease.uri, lease.data()):
        found = _read(lease.uri)
        if found is None:  # released meanwhile, or a name that can be neither read nor made, such as a link to nothing
            if time.monotonic() > end:
                raise MismatchError(f"{lease.uri} can be neither read nor written: delete it, or give another --out")
            time.sleep(0.05)
            continue
        if _outlived(lease.uri, found, say):
            storage.write_bytes(lease.uri, lease.data())
            taken_over = True
            break
    if taken_over or not storage.is_exclusive(lease.uri):
        time.sleep(SETTLE_SECONDS)
        lease.hold.check()
    _held[out] = lease
    _start_heart()
    return lease.hold


def holding(out: str) -> Hold:
    """The hold of this process on OUT; one without an owner if it has none."""
    lease = _held.get(out)
    return lease.hold if lease else Hold(out)


def clear(out: str) -> None:
    """Delete everything in OUT but the lease of this process. Raises `MismatchError` if another run has taken it over."""
    lease = _held.get(out)
    if lease is None:
        storage.delete_tree(out)
        return
    with lease.lock:  # it stays where it is: a moment without it would let another run in
        lease.hold.check()
        for name in sorted({info.uri.removeprefix(f"{out}/").partition("/")[0] for info in storage.list_files(out)}):
            if name != LEASE:
                storage.delete_tree(storage.join(out, name))


def release_all() -> None:
    """Delete all leases of this process: at its end, or of a command in it."""
    _stop.set()
    while _held:
        _, lease = _held.popitem()
        with suppress(StorageError):  # the run's own result or error is what counts; the lease will be stale
            lease.release()


def _start_heart() -> None:
    """One thread renews all leases of the process; each has an end of its own, so that none is taken for one that is ending."""
    global _stop  # noqa: PLW0603
    if _stop.is_set():
        _stop = threading.Event()
        threading.Thread(target=_beat, args=(_stop,), name="lease", daemon=True).start()


def _beat(stop: threading.Event) -> None:
    while not stop.wait(_patience() / BEATS):
        for lease in list(_held.values()):
            with suppress(StorageError):  # tried again at the next beat; a lease that stays unreachable becomes stale
                lease.renew()


def _patience() -> float:
    return real_number("BONEAGE_LEASE_SECONDS", STALE_SECONDS, "seconds")


def _outlived(uri: str, found: bytes, say: Callable[[str], None]) -> bool:
    """Watch another run's lease: True if it is stale, False if it was released. Raises `MismatchError` if it is renewed."""
    out, patience = uri.removesuffix(f"/{LEASE}"), _patience()
    if _ended_here(found):
        return True
    say(f"{out} is held by another run ({_named(found)}); watching for up to {patience:g} s whether that run is alive")
    end = time.monotonic() + patience
    while time.monotonic() < end:
        time.sleep(min(1.0, patience / BEATS))
        now = _read(uri)
        if now is None:
            return False
        if now != found:
            raise MismatchError(
                f"{out} is being written by another run ({_named(now)}): wait for its end or stop it, or give another --out"
            )
    say(f"that run shows no sign of life: its lease of {out} is taken over")
    return True


def _read(uri: str) -> bytes | None:
    try:
        return storage.read_bytes(uri)
    except StorageError as error:
        if error.reason != "not_found":
            raise
        return None


def _parsed(data: bytes) -> dict[str, Any]:
    """The values of a lease; none of one that is being written or damaged."""
    try:
        values = json.loads(data)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _named(data: bytes) -> str:
    values = _parsed(data)
    return f"boneage {values.get('what', '?')}, process {values.get('pid', '?')} on {values.get('host', '?')}"


def _this_process() -> dict[str, Any]:
    """What tells later, on the same machine, whether this process still runs; `machine` is empty where that is not known."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    try:
        machine = f"{boot.read_text().strip()} {os.readlink(space)}"  # noqa: PTH115  a name, not a path
    except OSError:
        machine = ""
    return {"pid": os.getpid(), "machine": machine, "started": _start_of(os.getpid())}


def _start_of(pid: int) -> str | None:
    """When a process of this machine started, in ticks since boot; None if it does not run."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]


def _ended_here(data: bytes) -> bool:
    """Whether the owner is a process of this machine that has ended."""
    values = _parsed(data)
    pid, machine = values.get("pid"), values.get("machine")
    known = isinstance(pid, int) and bool(machine) and machine == _this_process()["machine"]
    return known and _start_of(int(pid or 0)) != values.get("started")
