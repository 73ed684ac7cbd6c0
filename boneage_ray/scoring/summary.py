"""The balance sheet of a scoring run: every input is scored, rejected or failed, and the counts prove it.

The line of one part, as `part_counts` makes it from the part's result rows::

    {"inputs": 64, "scored": 61, "rejected": 1, "failed": 2, "bytes": 15728640,
     "reasons": {"truncated": 2, "blank": 1},        one for every row that was not scored
     "flags": {"sex_unknown": 7},                    soft warnings; a row may have several
     "ages": {"8-10 y": 30, "10-12 y": 31},          scored rows, by predicted age
     "sexes": {"F": 30, "M": 24, "unknown": 7},      scored rows
     "cvm_stages": {"CS3": 12, "CS4": 20}}           scored rows that have a cervical stage

with what the part cost (costs.py) and, in a part that an update wrote, what that update did (renewal.py).

`summary.json` holds the sum of all lines in the same form, with `slowest`, the inputs that took longest, `distribution`, counts
of ages, stages and certainty (tally.py), `tables`: what was read from the metadata, and what became of it, and after an update
`update`: its counts of new, changed and vanished inputs, and the URIs of the latter (renewal.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from boneage_ray.anatomy.growth import AGE_BINS, age_bin
from boneage_ray.errors import BoneageError, StrictError
from boneage_ray.records.schema import Row

FEWEST = 64  # inputs, before a run is called hopeless
STATUSES = ("scored", "rejected", "failed")
_TABLES = ("reasons", "flags", "ages", "sexes", "cvm_stages")
_SEXES = ("F", "M", "unknown")


def part_counts(rows: list[Row]) -> dict[str, Any]:
    """The line of one part; see above. A row with no known status counts as an input only, so that the sum shows it."""
    statuses = Counter(row["status"] for row in rows)
    scored = [row for row in rows if row["status"] == "scored"]
    return {
        "inputs": len(rows),
        **{status: statuses[status] for status in STATUSES},
        "bytes": sum(row["input_bytes"] or 0 for row in rows),
        "reasons": dict(Counter(row["reason"] for row in rows if row["status"] in ("rejected", "failed"))),
        "flags": dict(Counter(flag for row in rows for flag in row["flags"])),
        "ages": dict(Counter(age_bin(row["age_months"]) for row in scored if row["age_months"] is not None)),
        "sexes": dict(Counter(row["sex"] or "unknown" for row in scored)),
        "cvm_stages": dict(Counter(row["cvm_stage"] for row in scored if row["cvm_stage"] is not None)),
    }


def add_up(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of the parts' lines; other keys of a line are left out.

    Reasons and flags come with the most frequent first, ages from young to old. Raises `BoneageError` if the inputs are
    not the sum of scored, rejected and failed, or if a row that was not scored gave no reason.
    """
    totals = dict.fromkeys(("inputs", *STATUSES, "bytes"), 0)
    tables: dict[str, Counter[str]] = {name: Counter() for name in _TABLES}
    for line in lines:
        for key in totals:
            totals[key] += line.get(key, 0) if key == "bytes" else line[key]
        for name, table in tables.items():
            table.update(line.get(name, {}))  # a part may be older than the table
    _check(totals, tables["reasons"])
    return {
        **totals,
        "reasons": _by_count(tables["reasons"]),
        "flags": _by_count(tables["flags"]),
        "ages": {name: tables["ages"][name] for name in AGE_BINS if name in tables["ages"]},
        "sexes": {name: tables["sexes"][name] for name in _SEXES if name in tables["sexes"]},
        "cvm_stages": dict(sorted(tables["cvm_stages"].items())),
    }


def balance(summary: Mapping[str, Any], update: bool) -> dict[str, Any]:
    """What `boneage score` answers; after an update with what it did."""
    answer = {name: summary[name] for name in ("inputs", *STATUSES, "reasons")}
    done = summary.get("update", {}) if update else {}
    answer |= {name: done[name] for name in ("new", "changed", "vanished") if name in done}
    return answer | {name: done[name] for name in ("retried", "kept") if done.get(name)}


def watched(lines: Iterable[dict[str, Any]], share: float | None) -> Iterator[dict[str, Any]]:
    """The lines of parts as they come. Raises `StrictError` once more than this share of at least `FEWEST` inputs has failed."""
    inputs = failed = 0
    reasons: Counter[str] = Counter()
    for line in lines:
        yield line
        inputs, failed = inputs + line.get("inputs", 0), failed + line.get("failed", 0)
        reasons.update(line.get("reasons", {}))
        if "listed" not in line and inputs >= FEWEST:
            check_failures({"inputs": inputs, "failed": failed, "reasons": reasons}, share, "so far")


def check_failures(counts: Mapping[str, Any], share: float | None, when: str = "in all") -> None:
    """Raise `StrictError` if more than this share of the inputs failed; `counts`: inputs, failed, reasons."""
    inputs, failed = counts["inputs"], counts["failed"]
    if share is None or failed <= share * inputs:
        return
    reasons = ", ".join(f"{reason} {count}" for reason, count in _by_count(Counter(counts["reasons"])).items())
    raise StrictError(
        f"--max-failures {share:g}: {failed} of {inputs} inputs failed {when} ({reasons}, rejected ones included); what is "
        "committed is kept"
    )


def check_strict(summary: Mapping[str, Any], strict: bool, out: str) -> None:
    """Raise `StrictError`, with `--strict`, if any input was rejected or failed."""
    lost = summary["rejected"] + summary["failed"]
    if strict and lost:
        raise StrictError(f"{lost} of {summary['inputs']} inputs were rejected or failed, see {out}/report.html")


def _check(totals: Mapping[str, int], reasons: Counter[str]) -> None:
    scored, rejected, failed = (totals[status] for status in STATUSES)
    if totals["inputs"] != scored + rejected + failed:
        fault = f"{totals['inputs']} inputs, but {scored} scored + {rejected} rejected + {failed} failed"
    elif reasons.total() != rejected + failed:
        fault = f"{rejected} rejected + {failed} failed, but {reasons.total()} reasons"
    else:
        return
    raise BoneageError(f"the balance sheet does not add up: {fault}; this is a fault of boneage, not of the inputs")


def _by_count(table: Counter[str]) -> dict[str, int]:
    return dict(sorted(table.items(), key=lambda item: (-item[1], item[0])))
