"""Numbers from environment variables. An empty variable counts as not set; an invalid one raises an error."""

from __future__ import annotations

import math
import os

from boneage_ray.errors import UsageError


def whole_number(variable: str, default: int, what: str, least: int = 1) -> int:
    """A whole number of `what` (words for the message). Raises `UsageError` for anything else."""
    text = os.environ.get(variable, "")
    if not text:
        return default
    value = _number(text) if text.isdecimal() else math.nan
    if not least <= value < math.inf:
        raise _useless(variable, text, f"a whole number of {what}, {least} or more, is needed")
    return int(text)


def real_number(variable: str, default: float, what: str, most: float | None = None) -> float:
    """A finite number of `what` above 0 and at most `most`. Raises `UsageError` for anything else."""
    text = os.environ.get(variable, "")
    if not text:
        return default
    value = _number(text)
    if not 0 < value < math.inf or (most is not None and value > most):
        need = "above 0" if most is None else f"from above 0 to {most:g}"
        raise _useless(variable, text, f"a number of {what} {need} is needed")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _useless(variable: str, text: str, need: str) -> UsageError:
    return UsageError(f"{variable}={text}: {need}")
