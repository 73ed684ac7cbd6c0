"""Ends processes that tests have started."""

from __future__ import annotations

import contextlib

import psutil


def kill_tree(process):
    """Kill a started process and all that it started: told to end, a node of Ray drains for 30 s first."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    process.wait()
