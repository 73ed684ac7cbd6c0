"""Common behaviour of all commands: exit codes, `run.json`, progress on stderr, the answer on stdout.

A command is a function that `execute` runs. It fills in counts and results and raises `BoneageError` for errors that the user
can fix. Timing, versions, the record of the run and the exit code are handled here.
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from boneage_ray import __version__, storage
from boneage_ray.errors import BoneageError, ExitCode, UsageError, last_line
from boneage_ray.runtime import lease, log
from boneage_ray.runtime.cluster import disconnect, first_cause

PLAIN_PROGRESS_SECONDS = 30.0
SILENT_SECONDS = 60.0  # without anything new, after which this is said
VERSIONED = ("boneage-ray", "ray", "torch", "torchvision", "timm", "kornia", "pyarrow", "numpy", "s3fs")


@dataclass
class Run:
    """One run of one command, as `run.json` records it."""

    command: str
    json_output: bool = False
    debug: bool = False
    out: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)
    closing: list[str] = field(default_factory=list)
    text: str = ""
    to_continue: str = "run the command again"
    started: float = field(default_factory=time.time)
    id: str = field(default_factory=lambda: secrets.token_hex(6))

    def note(self, **facts: Any) -> None:  # noqa: ANN401  anything JSON can hold
        """Add to the record: recipe, seeds, counts, hashes, devices."""
        self.facts.update(facts)

    def finish(self, answer: dict[str, Any], *closing: str) -> None:
        """Set the answer (a short table, or JSON) and the closing lines: where the results are, and the next command."""
        self.answer, self.closing = answer, list(closing)

    def record(self, code: int, error: str | None) -> dict[str, Any]:
        """The content of run.json."""
        return {
            "command": self.command,
            "run": self.id,
            "arguments": [_without_secrets(text) for text in sys.argv[1:]],
            "exit_code": code,
            "error": error,
            "started": datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self.started, 2),
            "versions": versions(),
            "git": git_hash(),
            "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
            **self.facts,
            "answer": self.answer,
        }


def execute(run: Run, body: Callable[[Run], None]) -> int:
    """Run a command's body, print its answer or its error, leave run.json, and return the exit code."""
    try:
        with log.run_lines(run.id, run.command):
            return _execute(run, body)
    except UsageError as error:  # of the format of these very lines
        print(f"boneage {run.command}: {error}", file=sys.stderr)  # noqa: T201
        return int(error.exit_code)


def _execute(run: Run, body: Callable[[Run], None]) -> int:
    code, message, cause = int(ExitCode.OK), None, None
    if log.as_json():
        log.write_line("started", version=__version__)
    try:
        body(run)
    except KeyboardInterrupt:
        code, message = int(ExitCode.INTERRUPTED), f"interrupted; finished work is kept: {run.to_continue}"
    except Exception as error:  # noqa: BLE001  the outermost handler: an exit code and one line, or a traceback on demand
        cause = first_cause(error)
        code = int(cause.exit_code) if isinstance(cause, BoneageError) else int(ExitCode.INTERNAL)
        message = str(cause) if isinstance(cause, BoneageError) else f"internal error: {_summary(cause)}"
        if run.debug:
            log.write_line("", detail="".join(traceback.format_exception(error)).rstrip())
    if run.answer or run.text:
        _print_answer(run)
    if message:
        _say_error(run, code, message, cause)
    _save_record(run, code, message)
    if log.as_json():
        log.write_line("finished", exit_code=code, seconds=round(time.time() - run.started, 2))
    disconnect()
    lease.release_all()  # after Ray's workers have ended
    return code


def _say_error(run: Run, code: int, message: str, cause: BaseException | None) -> None:
    """The error for a person; a JSON line of an internal error gives only its kind and place, for its text may quote an input."""
    if code == ExitCode.INTERNAL and cause is not None and log.as_json():
        frames = traceback.extract_tb(cause.__traceback__)
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else None
        text = "its text is in run.json" if run.out else f"{log.FORMAT}=text shows its text, which may quote inputs"
        log.write_line(f"internal error; {text}", "error", kind=type(cause).__name__, where=where)
    else:
        log.write_line(f"boneage {run.command}: {message}", "warning" if code == ExitCode.INTERRUPTED else "error")


def _without_secrets(text: str) -> str:
    """The text without users and passwords of URIs."""
    return re.sub(r"//[^/@\s]+@", "//***@", text)


def _save_record(run: Run, code: int, message: str | None) -> None:
    """Write run.json, but not into an OUT that was refused or taken over: that one belongs to another run."""
    if run.out is None:
        return
    try:
        lease.holding(run.out).check()
        storage.write_json(storage.join(run.out, "run.json"), run.record(code, message))
    except BoneageError as error:
        say(f"boneage {run.command}: run.json was not written: {error}")


def _print_answer(run: Run) -> None:
    if run.text:
        print(run.text, end="")  # noqa: T201
        return
    if run.json_output:
        print(json.dumps(run.answer, indent=1, default=str))  # noqa: T201
    else:
        width = max(len(str(key)) for key in run.answer)
        for key, value in run.answer.items():
            print(f"{key:<{width}}  {_shown(value)}")  # noqa: T201
    for line in run.closing:
        if run.json_output:
            say(line)
        else:
            print(storage.printable(line))  # noqa: T201


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items()) or "none"
    return str(value)


def _summary(error: BaseException) -> str:
    return f"{type(error).__name__}: {last_line(str(error))} (--debug shows where)"


def say(message: str, detail: str = "", **fields: Any) -> None:  # noqa: ANN401  anything JSON can hold
    """One line of log on stderr; `detail` is what names or describes single inputs (see log.py)."""
    log.write_line(message, detail=detail, **fields)


class ProgressLine:
    """A bar on a terminal, a plain line every 30 s otherwise; always on stderr."""

    def __init__(self, title: str, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.title, self.total, self.done, self.text = title, total, 0, ""
        self.started = self.last = self.changed = time.monotonic()
        self._ended = threading.Event()
        console = Console(stderr=True)
        columns = (
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self._bar = (
            RichProgress(*columns, console=console, transient=True)
            if console.is_terminal and not log.as_json()
            else None
        )
        self._task = self._bar.add_task(title, total=total, text="") if self._bar else None

    def update(self, done: int, text: str = "") -> None:
        """Set how much is done; `text` is shown after it."""
        if (done, text) != (self.done, self.text):
            self.changed = time.monotonic()
        self.done, self.text = done, text
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=self.total, completed=done, text=text)
        elif time.monotonic() - self.last >= PLAIN_PROGRESS_SECONDS:
            self.last = time.monotonic()
            say(self._line(), done=self.done, total=self.total)

    def _line(self) -> str:
        of = f"/{self.total}" if self.total is not None else ""
        rate = self.done / max(time.monotonic() - self.started, 1e-9)
        return f"{self.title} {self.done}{of} {self.text or f'{rate:.1f}/s'}"

    def __enter__(self) -> ProgressLine:
        if self._bar:
            self._bar.start()
        else:
            threading.Thread(target=self._watch, name="progress", daemon=True).start()
        return self

    def _watch(self) -> None:
        """Say that nothing comes, too: who waits must know that it is still being waited for."""
        while not self._ended.wait(1.0):
            still = time.monotonic() - self.changed
            if min(still, time.monotonic() - self.last) >= SILENT_SECONDS:
                self.last = time.monotonic()
                say(f"{self._line()}; nothing new for {still:.0f} s", done=self.done, total=self.total)

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._bar:
            self._bar.stop()


@contextmanager
def timed(run: Run, name: str) -> Iterator[None]:
    """Add the seconds of a block to the run's timings."""
    start = time.monotonic()
    yield
    run.facts.setdefault("timings", {})[name] = round(time.monotonic() - start, 2)


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a result."""
    found = {"python": platform.python_version(), "boneage-ray": __version__}
    for name in VERSIONED[1:]:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def git_hash() -> str | None:
    """Commit of a development checkout; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    answer = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None
