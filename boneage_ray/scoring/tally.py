"""What the result rows say as a whole: ages, stages, widths of intervals, how sure they are, and the least certain.

One pass over the committed parts. Of each only the columns that are counted are read, a part at a time, and no row is kept but
the least certain and the first that were not scored: memory does not grow with the archive.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappush, heappushpop
from itertools import accumulate
from typing import Any

import pyarrow as pa

from boneage_ray import storage
from boneage_ray.anatomy.growth import AGE_BINS, SCHEMES, age_bin
from boneage_ray.findings.task_findings import Doubt, TaskFindings
from boneage_ray.records.schema import Row, from_table
from boneage_ray.runtime import parts
from boneage_ray.runtime.pages import read_pages
from boneage_ray.scoring.costs import slowest_in

LEAST_CERTAIN, SHOWN_PROBLEMS = 50, 200
WIDTH_STEP, WIDEST = 12, 84  # months, of the bins of interval widths
WORK_LIST = "work-list.csv"
_COUNTED = (
    *("input_uri", "status", "sex", "age_months", "age_spread_months", "age_low_months", "age_high_months", "stages"),
    *("cvm_stage", "cvm_probabilities", "flags", "model"),
)
_OF_PROBLEM = ("step", "reason", "message")
_NOTHING: Row = {**dict.fromkeys((*_COUNTED, *_OF_PROBLEM)), "flags": []}  # a part may be older than a column
_LISTED = (
    *("input_uri", "model", "sex", "age_months", "age_low_months", "age_high_months", "age_spread_months"),
    *("cvm_stage", "doubt", "because", "flags"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _table() -> defaultdict[str, Counter[str]]:
    return defaultdict(Counter)


@dataclass
class Tally:
    """Counts of result rows, as `summary.json` has them, and the few rows that are shown; `findings`: by the names of models."""

    findings: Mapping[str, TaskFindings]
    ages: defaultdict[str, Counter[str]] = field(default_factory=_table)  # bin -> sex -> rows
    stages: defaultdict[str, defaultdict[str, Counter[str]]] = field(default_factory=lambda: defaultdict(_table))
    widths: Counter[str] = field(default_factory=Counter)
    sure: Counter[str] = field(default_factory=Counter)
    because: Counter[str] = field(default_factory=Counter)
    problems: list[Row] = field(default_factory=list)
    slowest: list[dict[str, Any]] = field(default_factory=list)
    _least: defaultdict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))  # model -> heap
    _number: int = 0

    def add(self, row: Row) -> None:
        """Count one row."""
        if row["status"] != "scored":
            if len(self.problems) < SHOWN_PROBLEMS:
                self.problems.append(row)
            return
        sex = row["sex"] or "unknown"
        if row["age_months"] is not None:
            self.ages[age_bin(row["age_months"])][sex] += 1
        named = {**(row["stages"] or {}), **({"cervical": row["cvm_stage"]} if row["cvm_stage"] else {})}
        for scheme, stage in named.items():
            self.stages[scheme][stage][sex] += 1
        if row["age_low_months"] is not None and row["age_high_months"] is not None:
            self.widths[width_bin(row["age_high_months"] - row["age_low_months"])] += 1
        findings = self.findings.get(row["model"])
        if findings and (doubt := findings.doubt(row)):
            self._weigh(row, doubt)

    def _weigh(self, row: Row, doubt: Doubt) -> None:
        self.sure["uncertain" if doubt.because else "certain"] += 1
        self.because.update(doubt.because)
        self._number += 1
        # Rows without a reason come after all that have one; of equals the first stays.
        entry = (len(doubt.because), doubt.value, -self._number, row, doubt)
        heap = self._least[row["model"]]
        if len(heap) < LEAST_CERTAIN:
            heappush(heap, entry)
        else:
            heappushpop(heap, entry)

    def least_certain(self) -> list[Row]:
        """The rows to look at first, of each model the least certain on top, with `doubt` and `because`."""
        chosen: list[Row] = []
        for heap in self._least.values():
            worst_first = sorted(heap, key=lambda entry: entry[:3], reverse=True)
            chosen += [
                row | {"doubt": round(doubt.value, 3), "because": list(doubt.because)}
                for *_, row, doubt in worst_first
                if doubt.because or doubt.value
            ]
        return chosen

    def as_json(self) -> dict[str, Any]:
        """The counts, in the order in which people read them."""
        return {
            "ages_by_sex": {name: dict(self.ages[name]) for name in AGE_BINS if name in self.ages},
            "stages_by_sex": {
                scheme: {
                    stage: dict(self.stages[scheme][stage]) for stage in ordered_stages(scheme, self.stages[scheme])
                }
                for scheme in sorted(self.stages)
            },
            "interval_widths": {name: self.widths[name] for name in width_bins() if name in self.widths},
            "certain": self.sure["certain"],
            "uncertain": self.sure["uncertain"],
            "because": dict(sorted(self.because.items(), key=lambda item: (-item[1], item[0]))),
        }


def ordered_stages(scheme: str, stages: Iterable[str]) -> list[str]:
    """Stages of growth in the order of their scheme, others by their names."""
    known = {name: k for k, name in enumerate(SCHEMES[scheme].classes)} if scheme in SCHEMES else {}
    return sorted(stages, key=lambda stage: (known.get(stage, len(known)), stage))


def width_bin(months: float) -> str:
    """The bin of an interval's width.

    >>> width_bin(41.0), width_bin(84.0)
    ('36-48', '84 and over')
    """
    names = width_bins()
    return names[min(int(max(months, 0.0) // WIDTH_STEP), len(names) - 1)]


def width_bins() -> list[str]:
    """The bins of widths in months, narrow first."""
    return [*(f"{start}-{start + WIDTH_STEP}" for start in range(0, WIDEST, WIDTH_STEP)), f"{WIDEST} and over"]


def tally(out: str, lines: Sequence[Mapping[str, Any]], findings: Mapping[str, TaskFindings]) -> Tally:
    """Count the rows of all parts, given by their lines."""
    found = Tally(findings)
    for table, slowest in parts.prefetched(partial(_read, out), _wanted(lines), threads=8, ahead=16):
        found.slowest = slowest_in([*found.slowest, *slowest])
        for row in from_table(table):
            found.add(_NOTHING | row)
    return found


def _wanted(lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """(target, columns) of each part: why inputs were not scored is read only for as many as are shown."""
    before = accumulate((line["inputs"] - line["scored"] for line in lines), initial=0)
    for line, shown in zip(lines, before, strict=False):
        more = _OF_PROBLEM if line["scored"] < line["inputs"] and shown < SHOWN_PROBLEMS else ()
        yield line["target"], [*_COUNTED, *more]


def _read(out: str, wanted: tuple[str, list[str]]) -> tuple[pa.Table, list[dict[str, Any]]]:
    target, columns = wanted
    table = read_pages(storage.join(out, target), columns)
    return table, json.loads(table.schema.metadata[parts.LINE]).get("slowest", [])


def work_list_csv(rows: Iterable[Row]) -> str:
    """The least certain inputs for a spreadsheet; text that a spreadsheet would take for a formula begins with an apostrophe."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(_LISTED)
    for row in rows:
        cells = {**row, "because": " ".join(row["because"]), "flags": " ".join(row["flags"])}
        writer.writerow([_cell(cells[name]) for name in _LISTED])
    return "\ufeff" + buffer.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float):
        return round(value, 3)
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
