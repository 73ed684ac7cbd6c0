"""Lines of log on stderr: plain for people, or with BONEAGE_LOG=json one JSON object a line for those who collect logs::

    {"time": "2026-11-25T18:40:02.125+00:00", "level": "info", "run": "5f0c9a3be214", "command": "score",
     "message": "score 128 31.4/s", "done": 128}                                              (in one line)

`run` also stands in run.json. What names or describes single inputs is for the plain lines only.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from boneage_ray import storage
from boneage_ray.errors import UsageError

FORMAT = "BONEAGE_LOG"
Level = Literal["debug", "info", "warning", "error", "critical"]

_context: dict[str, str] = {}  # of the run that this process executes


def as_json() -> bool:
    """Whether lines are JSON. Raises `UsageError` for a format that there is not."""
    chosen = os.environ.get(FORMAT) or "text"
    if chosen not in ("text", "json"):
        raise UsageError(f"{FORMAT}={chosen}: text or json is needed")
    return chosen == "json"


def write_line(message: str, level: Level = "info", detail: str = "", **fields: Any) -> None:  # noqa: ANN401  JSON values
    """One line. `detail` follows the message, and `fields` are left out, where lines are plain; for JSON it is the reverse.

    `detail`: what names or describes single inputs. A message that is nothing else gives no JSON line.
    """
    if not as_json():
        print(storage.printable(message + detail), file=sys.stderr, flush=True)  # noqa: T201
    elif message:
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": level, **_context, "message": storage.printable(message), **fields}
        print(json.dumps(line, default=str), file=sys.stderr, flush=True)  # noqa: T201


class _Forward(logging.Handler):
    """What libraries log, as lines of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        level: Any = record.levelname.lower()
        write_line(record.getMessage(), level, logger=record.name)


@contextmanager
def run_lines(run_id: str, command: str) -> Iterator[None]:
    """While it lasts, JSON lines name this run, and what libraries log becomes JSON too."""
    if not as_json():
        yield
        return
    handler = _Forward(logging.WARNING)
    before = dict(_context)
    _context.update(run=run_id, command=command)
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(handler)
        _context.clear()
        _context.update(before)
