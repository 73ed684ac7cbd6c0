"""The `boneage` commands with their flags. Heavy imports wait until a command runs.

`app.py` is what they share; `pipeline.py`: data, training, results; `tools.py`: all others.
"""

from __future__ import annotations

import os
import shlex
import sys

from boneage_ray.cli import pipeline, tools  # noqa: F401  each of their functions is a command of `app`
from boneage_ray.cli.app import app, check_words

__all__ = ["app", "check_words", "main"]


def main(argv: list[str] | None = None) -> int:
    """The console script; returns the exit code (see errors.ExitCode)."""
    arguments = sys.argv[1:] if argv is None else argv
    os.environ.setdefault("BONEAGE_COMMAND", shlex.join(["boneage", *arguments]))
    try:
        app(args=arguments, prog_name="boneage")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    return 0
