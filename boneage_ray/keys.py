"""What is wrong with the keys of a mapping that a person wrote (YAML, JSON), in words."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from pydantic import ValidationError


def first_wrong(error: ValidationError, known: Sequence[str], hidden: str | None = None) -> str:
    """The first thing that a check found, with the nearest of the known keys; a value below `hidden` is never shown."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    key = ".".join(place)
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] == "value_error":  # of the project's own validators, which never show a value
        return ": ".join([*place, first["msg"].removeprefix("Value error, ")])
    if first["type"] != "extra_forbidden":
        shown = "" if hidden in place else f" = {first['input']!r}"
        return f"{key}{shown}: {first['msg']}"
    near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.5)
    return f"unknown key {key}; " + (f"nearest known: {near[0]}" if near else f"known: {', '.join(known)}")
