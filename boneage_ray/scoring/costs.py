"""What the parts of a run cost: seconds by step, what was tried again, and the slowest inputs.

In the line of a part::

    {"seconds": {"read": 1.2, "decode": 9.0, "wait": 0.4, "predict": 7.5, "write": 0.1},   over all threads of its worker
     "decoder_deaths": 1,                     files that were given to another decoder process
     "repeats": {"requests": 2},              what was asked of the storage again after a pause (storage/repeats.py)
     "careful": false,                        whether its inputs were tried one by one
     "slowest": [{"seconds": 2.1, "input_uri": ..., "input_bytes": ..., "status": ..., "reason": ...}, ...]}

The seconds of writing are those of the part before, for a line is written with its part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from heapq import nlargest
from typing import Any

from boneage_ray.records.schema import Row
from boneage_ray.runtime.metrics import SCORE_STEPS

SLOWEST = 20


def part_costs(
    taken: Mapping[str, Any], careful: bool, rows: Sequence[Row], seconds: Sequence[float]
) -> dict[str, Any]:
    """The costs of a part; `taken` of `ScoreMeter`, `seconds` to read and decode each input."""
    steps = {step: round(spent, 3) for step, spent in taken["seconds"].items()}
    return {**taken, "seconds": steps, "careful": careful, "slowest": _slowest_of(rows, seconds)}


def _slowest_of(rows: Sequence[Row], seconds: Sequence[float]) -> list[dict[str, Any]]:
    longest = nlargest(SLOWEST, zip(seconds, range(len(rows)), strict=True))
    named = ("input_uri", "input_bytes", "status", "reason")
    return [{"seconds": round(spent, 3)} | {name: rows[k][name] for name in named} for spent, k in longest]


def with_earlier(line: Mapping[str, Any], earlier: Mapping[str, Any], gone: Collection[str]) -> dict[str, Any]:
    """The costs of a part that an update wrote anew, with those of the rows that stay; `gone`: inputs of other rows."""
    seconds = Counter(earlier.get("seconds", {}))
    seconds.update(line["seconds"])
    stays = [each for each in earlier.get("slowest", []) if each["input_uri"] not in gone]
    return {
        "seconds": {step: round(spent, 3) for step, spent in seconds.items()},
        "decoder_deaths": earlier.get("decoder_deaths", 0) + line["decoder_deaths"],
        "repeats": dict(Counter(earlier.get("repeats", {})) + Counter(line.get("repeats", {}))),
        "careful": earlier.get("careful", False) or line["careful"],
        "slowest": slowest_in([*stays, *line["slowest"]]),
    }


def slowest_in(inputs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The slowest of several parts."""
    return nlargest(SLOWEST, inputs, key=lambda each: float(each["seconds"]))


def summed(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The seconds by step and what was tried again, over all parts; those of an older version have none."""
    seconds = dict.fromkeys(SCORE_STEPS, 0.0)
    retries = {"decoder_processes": 0, "parts_one_by_one": 0, "requests": 0, "commits": 0}
    for line in lines:
        for step, spent in line.get("seconds", {}).items():
            seconds[step] += spent
        retries["decoder_processes"] += line.get("decoder_deaths", 0)
        retries["parts_one_by_one"] += line.get("careful", False)
        for what, times in line.get("repeats", {}).items():
            retries[what] += times
    return {"seconds": {step: round(spent, 1) for step, spent in seconds.items()}, "retries": retries}
