"""What became of the rows of an archive's tables: counted part by part, added up, and listed row by row.

The line of one part holds what its inputs say of the tables::

    {"table_rows": {"unmatched": 2, "unused": 1},             rows without a file; rows that contradict others or cannot be read
     "table_notes": [["ghost", "no_image", "metadata without a file"], ...]}

and the sum, `tables` in summary.json and manifest.json, the accounts of the tables beside the counts::

    {"rows": 40, "used": 37, "unmatched": 2, "unused": 1, "notes": {"no_image": 2, "bad_label": 1}, "read": [...]}
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from boneage_ray import storage
from boneage_ray.archives.archive import Input
from boneage_ray.archives.tables import cautions_in_words
from boneage_ray.runtime.runs import say

NOTES = "table_notes.csv"
_SHOWN = 3


def line_of_notes(inputs: Iterable[Input]) -> dict[str, Any]:
    """What the inputs of one part say of the tables; see above."""
    rows: Counter[str] = Counter()
    notes = []
    for item in inputs:
        if item.problem and item.table_rows:
            rows["unmatched" if item.problem[0] == "no_image" else "unused"] += item.table_rows
        if item.problem and not item.uri:
            notes.append([item.record_id, *item.problem])
    return {"table_rows": dict(rows), "table_notes": notes}


def sum_of_notes(lines: Iterable[Mapping[str, Any]], accounts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The counts of all parts with the accounts of the tables; `used` is what is left of all rows."""
    rows: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    for line in lines:
        rows.update(line.get("table_rows", {}))  # a part may be older than the counts
        notes.update(reason for _, reason, _ in line.get("table_notes", []))
    total = sum(account["rows"] for account in accounts)
    lost = {name: rows[name] for name in ("unmatched", "unused")}
    used = total - sum(lost.values())
    return {"rows": total, "used": used, **lost, "notes": dict(notes.most_common()), "read": list(accounts)}


def write_notes(out: str, lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """Write `table_notes.csv` into OUT if there are notes; returns what to say of them: their place, and the first in words."""
    # Without a message the note is only counted (scoring/kept.py).
    notes = [note for line in lines for note in line.get("table_notes", []) if note[2]]
    if not notes:
        return []
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("id", "reason", "message"), *notes])
    place = storage.join(out, NOTES)
    storage.write_bytes(place, text.getvalue().encode("utf-8", "backslashreplace"))
    first = [f"{name}: {message}" for name, _, message in notes[:_SHOWN]]
    return [
        f"notes on what could not be joined or read: {len(notes):,}, in {place}{', the first:' if len(notes) > _SHOWN else ':'}",
        *first,
    ]


def say_rows(out: str, tables: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> None:
    """Say what became of the rows, and write and say the notes; those on single rows are details of the log."""
    for text in rows_in_words(tables):
        say(text)
    for number, text in enumerate(write_notes(out, lines)):
        say("" if number else text, text if number else "")


def rows_in_words(tables: Mapping[str, Any]) -> list[str]:
    """What became of the rows in one line; nothing without a table."""
    if not tables["read"]:
        return []
    used, unmatched, unused = (f"{tables[name]:,}" for name in ("used", "unmatched", "unused"))
    return [f"table rows: {tables['rows']:,} = {used} used + {unmatched} without a file + {unused} not used"]


def caution_of_labels(accounts: Iterable[dict[str, Any]]) -> None:
    """Add the caution that a column of bone ages is not used, for a command that learns nothing from them."""
    for account in accounts:
        if heading := account["columns"].get("age_months"):
            account["caution"] = (
                f"{heading!r} is a bone age, and not used; a chronological age is `age`, in years or with units"
            )


def cautions(accounts: Iterable[Mapping[str, Any]]) -> list[str]:
    """What of the tables must be looked at before their values are relied on."""
    return [line for account in accounts for line in cautions_in_words(account)]
