"""A real Ray cluster of several nodes on one machine: the head, and nodes that live in namespaces of their own.

Each further node has its own processes, its own mounts and an address of its own, so it can see other files than the head and can
be switched off like a machine. It needs root; `available` says why not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from processes import kill_tree
from s3server import free_port

PATIENCE_S = 400
_RAY = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", "--num-cpus=1")
_NAMESPACE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": str(PATIENCE_S),
    # A node that is switched off is noticed in seconds.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "5",
}


def available():
    """None, or why nodes with mounts of their own cannot be made here."""
    try:
        made = subprocess.run([*_NAMESPACE, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "there is no program unshare"
    return made.stderr.strip() if made.returncode else None


def marks():
    """What marks a module of tests that start nodes."""
    return [
        pytest.mark.ray,
        pytest.mark.slow,
        pytest.mark.xdist_group("ray-of-its-own"),
        pytest.mark.skipif(available() is not None, reason=f"nodes of their own need namespaces: {available()}"),
    ]


class Nodes:
    """A running head; `add` starts further nodes of one CPU. All end with the block of `real_nodes`."""

    def __init__(self, stack, folder, port):
        self.stack, self.folder, self.port, self.count = stack, folder, port, 1

    @property
    def environment(self):
        """What a command needs to join."""
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "BONEAGE_CPUS"))}
        return plain | _ENVIRONMENT | {"RAY_ADDRESS": f"{_own_address(self.folder)}:{self.port}"}

    def add(self, prepare="true"):
        """Start a node once `prepare` has run in its namespace; the process whose end is that of the node."""
        self.count += 1
        join = [*_RAY, f"--address={self.environment['RAY_ADDRESS']}", f"--node-ip-address=127.0.0.{self.count}"]
        command = ["sh", "-c", f'{prepare} && exec "$@"', "node", *join, "--object-store-memory=150000000"]
        return self.stack.enter_context(_started([*_NAMESPACE, *command], self.folder / f"node-{self.count}.log"))


@contextmanager
def real_nodes():
    """A head with one CPU; it and all its nodes end with the block."""
    port, client = free_port(), free_port()
    with ExitStack() as stack:
        # Sockets lie in it, and their paths must be short.
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-n-", dir="/tmp", ignore_cleanup_errors=True))
        )
        places = (
            f"--temp-dir={folder}/ray",
            f"--port={port}",
            "--include-dashboard=false",
            f"--ray-client-server-port={client}",
        )
        head = [*_RAY, "--head", "--node-ip-address=127.0.0.1", "--object-store-memory=150000000", *places]
        stack.enter_context(_started(head, folder / "head.log"))
        yield Nodes(stack, folder, port)


@contextmanager
def _started(command, log):
    """Run a node until the block ends; returns once Ray says that it runs."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, env={**os.environ, **_ENVIRONMENT}, stdout=file, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + PATIENCE_S
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield process
    finally:
        kill_tree(process)


def _own_address(folder):
    """The address of the head, as it names itself."""
    text = (folder / "head.log").read_text()
    return text.split("--address='")[1].split(":")[0]
