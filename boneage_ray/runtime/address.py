"""Where the cluster is that a command joins, and whether anything answers there.

Ray itself would try for a quarter of an hour, without a word.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boneage_ray.errors import UsageError
from boneage_ray.runtime import log

REACH_SECONDS = 30.0
_FILE = "/tmp/ray/ray_current_cluster"  # written by `ray start`, removed by `ray stop`
_TRIES = "RAY_gcs_server_port_wait_time_s"  # seconds of a head's wait, and tries of a driver


def address_to_join() -> str:
    """HOST:PORT of the cluster that this machine belongs to, as RAY_ADDRESS or `ray start` say; empty without one."""
    asked = os.environ.get("RAY_ADDRESS", "")
    if asked not in ("", "auto"):
        return "" if asked == "local" else asked
    try:
        return Path(_FILE).read_text().strip()
    except OSError:
        return ""


def check_reachable(address: str) -> None:
    """Raise `UsageError` unless something listens at HOST:PORT within half a minute."""
    host, _, port = address.rpartition(":")
    if "://" in address:
        fix = "give HOST:6379 on a machine of the cluster, or hand the job over with `boneage submit --address http://HOST:8265`"
        raise UsageError(f"RAY_ADDRESS={address}: a command joins a cluster from inside; {fix}")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise UsageError(f"RAY_ADDRESS={address}: HOST:PORT is needed, such as 10.0.0.1:6379")
    until, said = time.monotonic() + REACH_SECONDS, False
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                where = "as RAY_ADDRESS says" if os.environ.get("RAY_ADDRESS") else f"as {_FILE} says"
                raise UsageError(
                    f"no Ray answers at {address}, {where}: {error.strerror or error}; start it, or give BONEAGE_CPUS=N for a "
                    "Ray of this command's own"
                ) from None
        if not said:
            log.write_line(f"waiting up to {REACH_SECONDS:g} s for Ray at {address}")
            said = True
        time.sleep(1)


@contextmanager
def joined_soon(joining: bool) -> Iterator[None]:
    """Let Ray try twice, 40 s each, to join what listens there; as it is it tries twenty times."""
    if not joining or _TRIES in os.environ:
        yield
        return
    os.environ[_TRIES] = "2"
    try:
        yield
    except (RuntimeError, ConnectionError) as error:
        raise UsageError(
            f"what listens at {address_to_join()} is no Ray that can be joined: {' '.join(str(error).split())}"
        ) from error
    finally:
        os.environ.pop(_TRIES, None)
