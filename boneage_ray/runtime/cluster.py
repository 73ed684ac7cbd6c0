"""Joining or starting Ray, and running a job over many parts.

A part is one small row that describes its work (one block, one call). A task of a quarter of a core lists the parts. One actor
per core with `num_cpus=0.5` does a whole part (fetch, decode, predict, write) and returns one short line. Only such rows and
lines pass through the object store, work starts with the first part that is listed, and one core is enough.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import sys
import threading
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from boneage_ray.environment import whole_number
from boneage_ray.errors import BoneageError, ExitCode
from boneage_ray.runtime import address, autoscaler, log
from boneage_ray.runtime.resources import Resources
from boneage_ray.storage import s3

LISTING_CPUS = 0.25
PART_TRIES = 3
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "600",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}


# Yields the rows of the parts one by one, in a task. The line of a row {"line": {...}} goes to the driver unchanged.
RowSource = Callable[[], Iterator[dict[str, Any]]]

# What runs in an actor: built once from keyword arguments, called once a part with its row; it does the part, commits it
# and returns a JSON-able line for the driver.
PartWorker = Callable[[dict[str, Any]], dict[str, Any]]


def connect(num_cpus: int | None = None) -> float:
    """Join the running cluster (RAY_ADDRESS, that of a Ray job, or one of `ray start`), else start a local one.

    Returns the CPU count. `num_cpus` or BONEAGE_CPUS forces a local Ray with that many CPUs.
    """
    cpus = num_cpus or _asked_cpus()
    joining = num_cpus is None and joins()
    quiet_environment()
    if not joining and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        # A token for this run, only in its environment: by default Ray would leave one in the home folder.
        # Ray reads these variables when it is imported, not later.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    import ray

    if not ray.is_initialized():
        local: dict[str, Any] = {} if joining else {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        debug = bool(os.environ.get("BONEAGE_DEBUG"))
        if joining:
            address.check_reachable(address.address_to_join())
        with _stderr_muted(not debug), _signals_put_off(), address.joined_soon(joining):
            ray.init(log_to_driver=debug, logging_level="INFO" if debug else "ERROR", **local)
        quiet_environment()  # ray.init sets the levels of its loggers again
        if threading.current_thread() is threading.main_thread():
            # Kubernetes and systemd stop a job by SIGTERM: handled like Ctrl-C, without Ray's crash report.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
    return float(ray.cluster_resources().get("CPU", 1.0))


def joins() -> bool:
    """Whether `connect` will join a running cluster."""
    return _asked_cpus() is None and bool(address.address_to_join())


def _asked_cpus() -> int | None:
    return whole_number("BONEAGE_CPUS", 0, "CPUs") or None


@contextmanager
def _signals_put_off() -> Iterator[None]:
    """Put the first SIGINT or SIGTERM off to the end of the block, where it raises KeyboardInterrupt.

    In the middle of `ray.init` Ray's own handler leaves C++ threads that abort the process (exit code 134).
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    from ray._private import utils

    came: list[int] = []

    def note(number: int, _: object) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    before = {name: signal.signal(name, note) for name in (signal.SIGINT, signal.SIGTERM)}
    install = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = install
        for name, handler in before.items():
            signal.signal(name, handler)
    if came:
        raise KeyboardInterrupt


@contextmanager
def _stderr_muted(muted: bool) -> Iterator[None]:
    """Mute file descriptor 2, where Ray's C++ side reports its log level; failures still raise exceptions."""
    if not muted:
        yield
        return
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def disconnect() -> None:
    """Leave the cluster; stop a local one that this process started."""
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


def quiet_environment() -> None:
    """Turn off usage reports and output over the progress line, unless the user set them."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if not os.environ.get("BONEAGE_DEBUG"):
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        for name in ("ray", "ray.data", "ray.train", "ray.serve"):
            logging.getLogger(name).setLevel(logging.ERROR)


def run_parts(
    rows: RowSource,
    worker: Callable[..., PartWorker],
    arguments: dict[str, Any],
    resources: Resources,
) -> Iterator[dict[str, Any]]:
    """Run every part on a pool of actors and yield each part's line as soon as it is committed.

    The line of a target also says which `worker` did it, as "node/process".
    A part whose actor dies at each of `PART_TRIES`, or which raises `PartLostError`, has no line: who asked for the parts counts
    them.
    """
    import ray.data

    quiet_environment()  # importing ray.data set up its loggers again
    if not os.environ.get("BONEAGE_DEBUG"):
        logging.getLogger("ray.data").setLevel(
            logging.CRITICAL
        )  # it would print a traceback for each part that is lost
    with _parts_context():
        # Not from_arrow: it requests the size of each table in a task of a whole CPU, which a busy single core never grants.
        dataset = (
            ray.data.from_items([{"list": True}], override_num_blocks=1)
            .map_batches(
                _listed, batch_size=None, batch_format="pyarrow", num_cpus=LISTING_CPUS, fn_kwargs={"rows": rows}
            )
            .map_batches(
                _PartActor,
                batch_size=None,
                batch_format="pyarrow",
                compute=_pool(resources),
                num_cpus=resources.cpus_per_actor,
                num_gpus=resources.gpus_per_actor,
                max_task_retries=PART_TRIES - 1,  # without it Ray tries for ever
                fn_constructor_kwargs={"worker": worker, "arguments": arguments, "threads": resources.threads},
            )
        )
    with _growth(resources):
        for row in dataset.iter_rows():
            line: dict[str, Any] = json.loads(row["line"])
            if "failure" in line:
                raise Failure(**line["failure"]).as_error()
            yield line | ({"worker": row["worker"]} if "target" in line else {})


def _pool(resources: Resources) -> Any:  # noqa: ANN401  Ray's types are not checked
    """Explicit sizes: left to itself, a pool on GPUs may stay at one actor (ray-project/ray#59144)."""
    from ray.data import ActorPoolStrategy

    if resources.grows:
        return ActorPoolStrategy(min_size=resources.actors, max_size=resources.most, max_tasks_in_flight_per_actor=2)
    return ActorPoolStrategy(size=resources.actors, max_tasks_in_flight_per_actor=2)


def _growth(resources: Resources) -> AbstractContextManager[None]:
    """Ask the autoscaler for the nodes of the whole pool, which Ray Data would not: its actors leave half of a core idle."""
    if not resources.grows:
        return nullcontext()
    one = {"CPU": 1.0} | ({"GPU": resources.gpus_per_actor} if resources.gpus_per_actor else {})
    return autoscaler.growing(one, resources.actors, resources.most)


@contextmanager
def _parts_context() -> Iterator[None]:
    """Datasets made inside pass on every row at once, where Ray Data collects 128 MB first, and go on without lost parts."""
    from ray.data import DataContext

    context = DataContext.get_current()
    usual = context.target_max_block_size, context.max_errored_blocks
    context.target_max_block_size, context.max_errored_blocks = 1, -1
    try:
        with warnings.catch_warnings():  # Ray 2.60 deprecates the only way to bound the retries of an actor's tasks
            warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
            yield
    finally:
        context.target_max_block_size, context.max_errored_blocks = usual


def _listed(_: pa.Table, rows: RowSource) -> Iterator[pa.Table]:
    """The rows of a source as tables of one row each.

    The listing may be hours ahead of the work, and what waits lies in the memory of the driver: packed it is a sixth as large.
    """
    try:
        for row in rows():
            yield pa.table({"row": [_packed(row)]})
    except Exception as error:  # noqa: BLE001  raised again in the driver
        yield pa.table({"row": [_packed({"line": {"failure": asdict(Failure.of(error))}})]})


def _packed(row: dict[str, Any]) -> bytes:
    return zlib.compress(json.dumps(row).encode(), level=1)


class PartLostError(Exception):
    """A part killed what it asked for help, several times."""


@dataclass(frozen=True)
class Failure:
    """A worker's exception as plain values for the driver, because Ray keeps only the text of a cause."""

    kind: str
    message: str
    exit_code: int
    trace: str

    @staticmethod
    def of(error: BaseException) -> Failure:
        """The failure for a worker's exception."""
        code = error.exit_code if isinstance(error, BoneageError) else ExitCode.INTERNAL
        return Failure(type(error).__name__, str(error), int(code), "".join(traceback.format_exception(error)))

    def as_error(self) -> BoneageError:
        """The exception for the driver; prints the worker's traceback under --debug."""
        if os.environ.get("BONEAGE_DEBUG"):
            log.write_line("", detail=self.trace)
        known = self.exit_code != ExitCode.INTERNAL
        error = BoneageError(self.message if known else f"internal error in a worker: {self.kind}: {self.message}")
        error.exit_code = ExitCode(self.exit_code)
        return error


class _PartActor:
    """Adapts a `PartWorker` to Ray Data: a table in, one JSON line out."""

    def __init__(self, worker: Callable[..., PartWorker], arguments: dict[str, Any], threads: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        import cv2

        cv2.setNumThreads(threads)
        s3.expect_answers()
        # While the first part is still being listed; the first call raises an error of this.
        self.run = ThreadPoolExecutor(1).submit(worker, **arguments)
        self.name = _process_name()

    def __call__(self, part: pa.Table) -> pa.Table:
        try:
            (packed,) = part["row"].to_pylist()
            row = json.loads(zlib.decompress(packed))
            said = json.dumps(row["line"] if "line" in row else self.run.result()(row))
        except PartLostError:
            return pa.table({"line": pa.array([], pa.string()), "worker": pa.array([], pa.string())})
        except Exception as error:  # noqa: BLE001  raised again in the driver
            said = json.dumps({"failure": asdict(Failure.of(error))})
        return pa.table({"line": [said], "worker": [self.name]})


def _process_name() -> str:
    """This process of a cluster, as "node/process"."""
    import ray

    return f"{ray.get_runtime_context().get_node_id()}/{os.getpid()}"


def first_cause(error: BaseException) -> BaseException:
    """The original error of a worker, without Ray's wrapping."""
    seen: BaseException | None = error
    deepest = error
    while seen is not None:
        if isinstance(seen, BoneageError):
            return seen
        deepest = seen
        seen = getattr(seen, "cause", None) or seen.__cause__ or seen.__context__
    return deepest
