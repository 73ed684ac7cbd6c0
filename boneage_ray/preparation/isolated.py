"""Decode in separate processes: a file that crashes, hangs or bloats a decoder costs that file and nothing else.

Decoders are C code that reads whatever an archive holds. `DecoderPool.prepare` returns what `prepare.prepare_image` does, but
works in a child process with limits of memory and time. An answer is JSON and raw pixels (isolated_child), checked here and never
unpickled. A child gets no credentials in its environment and ends with its parent, however that ends. Libraries do not keep these
rules: pebble, loky and concurrent.futures unpickle answers, so that an object from a child runs code in the parent, and their
children inherit credentials; a multiprocessing connection waits for the rest of half an answer without a limit of time.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.environment import real_number
from boneage_ray.errors import BoneageError, InputProblem, Reason, UsageError
from boneage_ray.preparation import isolated_child as child
from boneage_ray.preparation.isolated_child import Answer, Settings
from boneage_ray.preparation.masking import no_mask_file
from boneage_ray.preparation.prepare import ImageConfig, PreparedImage

_START_SECONDS = 120.0  # imports from a cold network disk take their time
_AHEAD = 4  # files that are on their way from storage while others are decoded
_LEAST_MEMORY_MB = 256  # the imports alone take 90
_LARGEST_FILE = 0.4  # of the memory limit; with what a worn process keeps it still fits
_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LANG", "VIRTUAL_ENV", "CONDA_PREFIX")
_ENVIRONMENT_STARTS = ("PYTHON", "LD_", "LC_", "OPENCV_", "ASAN_")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}


@dataclass(frozen=True)
class Limits:
    """Limits for one file: MiB of memory, of which the decoder process itself needs about 90, and seconds."""

    memory_mb: int = 900
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.memory_mb < _LEAST_MEMORY_MB:
            raise UsageError(f"{self.memory_mb} MB are too few for a decoder process; give at least {_LEAST_MEMORY_MB}")
        if not self.seconds > 0:
            raise UsageError(f"the seconds for one file must be more than 0, not {self.seconds:g}")

    @classmethod
    def from_environment(cls) -> Limits:
        """BONEAGE_DECODER_MB and BONEAGE_DECODER_SECONDS, where they are set. Raises `UsageError`."""
        memory_mb = real_number("BONEAGE_DECODER_MB", cls.memory_mb, "MiB")
        return cls(int(memory_mb), real_number("BONEAGE_DECODER_SECONDS", cls.seconds, "seconds"))


@dataclass
class DecoderCounts:
    """Counts of a pool: `files` answered, `seconds` and `deaths` of children at work (those past the time limit too), children
    `replaced` because they kept too much memory, and the largest resident memory that any child reported, in MiB."""

    files: int = 0
    seconds: float = 0.0
    deaths: int = 0
    replaced: int = 0
    peak_mb: float = 0.0


class DecoderPool:
    """Prepare images in `processes` children, shared by all threads that call it. Close it, or use it in a `with` statement.

    `readers`: threads that keep all children at work. `last.seconds`: what the last file of the calling thread took.
    """

    def __init__(
        self,
        config: ImageConfig,
        processes: int = 1,
        limits: Limits | None = None,
        _target: str = "boneage_ray.preparation.prepare:prepare_image",
    ) -> None:
        self.limits = limits or Limits.from_environment()
        self.counts = DecoderCounts()
        self.readers, self.last = processes + _AHEAD, threading.local()
        self._settings = Settings(config=config, memory_mb=self.limits.memory_mb, parent=os.getpid(), target=_target)
        # A child set to end with its parent ends with the *thread* that started it, so one thread starts them all.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="decoder-starter")
        self._children: set[_Child] = set()
        self._lock = threading.Lock()
        self._end = weakref.finalize(self, _close, self._starter, self._children)
        self._idle: queue.LifoQueue[_Child] = queue.LifoQueue()
        for _ in range(processes):
            self._idle.put(self._new_child())  # at once, side by side; nothing waits for them here

    def prepare(self, data: bytes, mask_data: bytes | None = None) -> PreparedImage:
        """Prepare one image as `prepare.prepare_image`; `mask_data` is sent only where the configuration asks for mask files.

        Raises `InputProblem` also for a file that ends its process twice, or exceeds a limit, and `BoneageError` when no decoder
        process can be started.
        """
        files: tuple[bytes, ...] = (data,)
        if self._settings.config.mask == "file":
            if mask_data is None:
                raise no_mask_file()
            files = (data, mask_data)
        if sum(map(len, files)) > _LARGEST_FILE * (self.limits.memory_mb << 20):
            raise _too_large(self.limits)
        try:
            return self._ask(files)
        except _DiedError:  # perhaps not because of this file: the machine may have been short of memory
            pass
        try:
            return self._ask(files)
        except _DiedError as death:
            raise death.problem(self.limits) from None

    def close(self) -> None:
        """End the children, those at work too."""
        self._end()

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, files: tuple[bytes, ...]) -> PreparedImage:
        one = self._idle.get()
        keep, died, started = False, False, time.monotonic()
        try:
            answer, body = one.ask(files, self.limits)
            keep = not answer.worn
        except (_DiedError, InputProblem):
            died = True
            raise
        finally:  # also after Ctrl-C in the midst of an answer, when what comes next belongs to no file
            self._idle.put(one if keep else self._replace(one))
            self.last.seconds = time.monotonic() - started
            with self._lock:
                self.counts.seconds += self.last.seconds
                self.counts.deaths += died
                self.counts.replaced += not keep and not died
        with self._lock:
            self.counts.files += 1
            self.counts.peak_mb = max(self.counts.peak_mb, answer.peak_mb)
        return _prepared_or_problem(answer, body, self._settings.config)

    def _replace(self, one: _Child) -> _Child:
        one.end()
        with self._lock:
            self._children.discard(one)
        return self._new_child()

    def _new_child(self) -> _Child:
        new = _Child(self._starter, self._settings)
        with self._lock:
            self._children.add(new)
        return new


def _close(starter: ThreadPoolExecutor, children: set[_Child]) -> None:
    for one in tuple(children):
        one.end()
    starter.shutdown(wait=False, cancel_futures=True)
    for one in tuple(children):  # those that meanwhile replaced one that was ended at work
        one.end()


class _DiedError(Exception):
    """A child ended in the midst of a file. `code`: its exit code, negative for a signal; None: it only closed its socket."""

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code

    def problem(self, limits: Limits) -> InputProblem:
        if self.code in (child.OUT_OF_MEMORY, -signal.SIGKILL):
            return _too_large(limits)
        reason: Reason = "unreadable" if self.code is not None and self.code < 0 else "internal_error"
        return InputProblem("decode", reason, f"the decoder process ended {_in_words(self.code)} on this file")


class _Child:
    """One decoder process, used by one thread at a time. It starts at once; the first request waits until it is ready."""

    def __init__(self, starter: ThreadPoolExecutor, settings: Settings) -> None:
        self._ready = False
        self._ended = threading.Event()
        self._started: Future[tuple[subprocess.Popen[bytes], socket.socket, IO[bytes]]] | None = None
        try:
            self._started = starter.submit(_start, settings)
        except RuntimeError:  # the pool is closed
            self._ended.set()

    def ask(self, files: tuple[bytes, ...], limits: Limits) -> tuple[Answer, memoryview]:
        """Answer and body. Raises `_DiedError`, `InputProblem` past the time limit, `BoneageError` if it does not start."""
        if self._started is None or self._ended.is_set():
            raise BoneageError("the decoder pool is closed")
        process, line, errors = self._process()
        if not self._ready:
            self._await_start(process, line, errors)
        deadline = time.monotonic() + limits.seconds
        try:
            for data in files:
                _send(line, data, deadline)
            return _receive(line, deadline)
        except TimeoutError:
            raise InputProblem("decode", "unreadable", f"decoding did not end within {limits.seconds:g} s") from None
        except (EOFError, OSError):
            raise _DiedError(_exit_code(process)) from None
        except ValueError as error:  # memory overwritten by a broken file, or a bug
            message = f"the decoder process gave an invalid answer: {type(error).__name__}"
            raise InputProblem("decode", "internal_error", message) from error

    def end(self) -> None:
        """Kill the process; it holds nothing that needs saving."""
        self._ended.set()
        if self._started is None or self._started.cancel():
            return
        try:
            process, line, errors = self._started.result()
        except OSError:  # it never started, which was raised to the caller
            return
        process.kill()
        process.wait()
        line.close()
        errors.close()

    def _process(self) -> tuple[subprocess.Popen[bytes], socket.socket, IO[bytes]]:
        assert self._started is not None
        try:
            return self._started.result()
        except OSError as error:
            raise BoneageError(f"the decoder process cannot be started: {error.strerror}") from error

    def _await_start(self, process: subprocess.Popen[bytes], line: socket.socket, errors: IO[bytes]) -> None:
        try:
            answer, _ = _receive(line, time.monotonic() + _START_SECONDS)
            self._ready = answer.ready
        except TimeoutError:
            raise BoneageError(f"the decoder process was not ready within {_START_SECONDS:g} s") from None
        except (EOFError, OSError, ValueError):
            if self._ended.is_set():
                raise BoneageError("the decoder pool is closed") from None
            code = _exit_code(process)
            errors.seek(0)
            output = errors.read(1 << 20).decode("utf-8", "replace").strip().splitlines()
            cause = output[-1][:300] if output else f"it ended {_in_words(code)}"
            raise BoneageError(f"the decoder process does not start: {cause}") from None


def _start(settings: Settings) -> tuple[subprocess.Popen[bytes], socket.socket, IO[bytes]]:
    ours, theirs = socket.socketpair()
    errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the child
    with theirs:
        # -P: a file named like a module, in the folder where the command was typed, is not imported.
        command = [sys.executable, "-P", "-m", child.__name__, settings.model_dump_json()]
        # A process group of its own: Ctrl-C in a terminal concerns the parent, and it ends its children.
        pipes: dict[str, Any] = {"stdin": theirs, "stdout": theirs, "stderr": errors}
        process = subprocess.Popen(command, **pipes, env=_environment(), process_group=0)
    return process, ours, errors


def _environment() -> dict[str, str]:
    """What a child needs to find its libraries, and no keys or tokens."""
    kept = {k: v for k, v in os.environ.items() if k in _ENVIRONMENT or k.startswith(_ENVIRONMENT_STARTS)}
    package = str(Path(child.__file__).parents[2])
    paths = [package, *kept.get("PYTHONPATH", "").split(os.pathsep)]
    return kept | _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _send(line: socket.socket, data: bytes, deadline: float) -> None:
    line.settimeout(_left(deadline))
    line.sendall(child.FILE_LENGTH.pack(len(data)))
    line.sendall(data)


def _receive(line: socket.socket, deadline: float) -> tuple[Answer, memoryview]:
    """Raises `ValueError` for what cannot be an answer, `EOFError` or `OSError` when the child is gone."""
    (length,) = child.HEADER_LENGTH.unpack(_exactly(line, child.HEADER_LENGTH.size, deadline))
    if length > child.MAX_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes")
    answer = Answer.model_validate_json(bytes(_exactly(line, length, deadline)))
    return answer, _exactly(line, answer.body_bytes, deadline)


def _exactly(line: socket.socket, count: int, deadline: float) -> memoryview:
    buffer = memoryview(bytearray(count))
    at = 0
    while at < count:
        line.settimeout(_left(deadline))
        got = line.recv_into(buffer[at:])
        if not got:
            raise EOFError
        at += got
    return buffer


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _prepared_or_problem(answer: Answer, body: memoryview, config: ImageConfig) -> PreparedImage:
    """The prepared image that an answer holds; raises the `InputProblem` that it holds."""
    if answer.problem is not None:
        fields: dict[str, Any] = dict(answer.problem)
        problem = InputProblem(**fields)
        problem.thumbnail = bytes(body) or None
        raise problem
    size, masked = config.size, config.mask != "none"
    if answer.prepared is None or len(body) != size * size * (1 + masked):
        raise InputProblem("decode", "internal_error", "the decoder process gave neither pixels nor a reason")
    pixels, *masks = np.frombuffer(body, np.uint8).reshape(-1, size, size)
    source = Radiograph(pixels, **dict(answer.prepared.source))
    return PreparedImage(pixels, **(dict(answer.prepared) | {"source": source}), mask=masks[0] if masks else None)


def _too_large(limits: Limits) -> InputProblem:
    fields: dict[str, Any] = dict(child.lacks_memory(limits.memory_mb))
    return InputProblem(**fields)


def _exit_code(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return None


def _in_words(code: int | None) -> str:
    if code is None:
        return "its answers"
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:  # real-time signals have no names
        return f"by signal {-code}"
