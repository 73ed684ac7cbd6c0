"""The split into training, validation and test: seeded, stratified, with a patient and exact copies in one split.

split_cases([Case("1377", 180.0, "F"), ...], SplitConfig(seed=7)).splits    ["train", ...]
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from boneage_ray.anatomy.growth import Sex, stage_of
from boneage_ray.errors import UsageError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
AGE_BIN_MONTHS = 24.0
TABLE_COLUMNS = ("record_id", "split", "group", "input_uri")
_WORDS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
_SHARES: dict[str, tuple[float, float, float]] = {
    "70/15/15": (0.70, 0.15, 0.15),
    "60/20/20": (0.60, 0.20, 0.20),
    "test": (0.0, 0.0, 1.0),
}


class SplitConfig(BaseModel):
    """Shares of train, val and test, and the strata to balance.

    `published`: the split of the archive itself; `test`: everything, to evaluate or calibrate a model that is there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shares: Literal["70/15/15", "60/20/20", "published", "test"] = "70/15/15"
    stratify: tuple[Literal["sex", "age", "three", "four", "source"], ...] = ("sex", "age")
    seed: int = 0


@dataclass(frozen=True)
class Case:
    """The values that decide the split of a record. `same`: keys that records in one split share (patient, pixels)."""

    record_id: str
    age_months: float | None = None
    sex: Sex | None = None
    source: str | None = None
    same: tuple[str, ...] = ()
    published: Split | None = None
    input_uri: str = ""


@dataclass(frozen=True)
class Assignment:
    """For each case, in the given order, its split and group number; `leaks`: number of groups in several splits.

    Only a published or reused split can leak, and an update whose new image shows that two old groups are one.
    """

    splits: list[Split]
    groups: list[int]
    leaks: int


@dataclass(frozen=True)
class SplitTable:
    """A split to reuse.

    `splits`: record id -> split, unless rows of one id disagree, and URI -> split. `rows`: (record id, URI or "") as read.
    """

    splits: Mapping[str, Split]
    rows: tuple[tuple[str, str], ...]

    def of(self, case: Case) -> Split | None:
        """The split of a case by its URI, else by its id."""
        return self.splits.get(case.input_uri) or self.splits.get(case.record_id)

    def idle(self, cases: Iterable[Case]) -> list[str]:
        """The ids of rows that match no case."""
        used = {case.input_uri if case.input_uri in self.splits else case.record_id for case in cases}
        return [name for name, uri in self.rows if used.isdisjoint((name, uri))]


def split_cases(
    cases: Sequence[Case],
    config: SplitConfig,
    given: SplitTable | None = None,
    kept: Sequence[Split | None] | None = None,
) -> Assignment:
    """Assign every case by ids and seed, independent of the order. `given`, from `read_splits`, takes precedence.

    `kept`: the split of each case that has one already, and stays there; None of a new one. Raises `UsageError` if a given or the
    published split lacks a case.
    """
    groups = _groups(cases)
    had = kept or [None] * len(cases)
    if given is not None:
        splits = [was or given.of(case) for case, was in zip(cases, had, strict=True)]
        return _checked(cases, splits, groups, "the split table lacks")
    if config.shares == "published":
        splits = [was or case.published for case, was in zip(cases, had, strict=True)]
        return _checked(
            cases, splits, groups, "split.shares=published, but neither labels nor folders name a split for"
        )
    return _checked(cases, _drawn(cases, groups, config, had), groups, "no split was drawn for")


def _drawn(
    cases: Sequence[Case], groups: list[int], config: SplitConfig, had: Sequence[Split | None]
) -> list[Split | None]:
    """Splits with the same shares in every stratum.

    Groups are ordered by stratum and, inside it, by a seeded hash. Each goes to the split that is furthest behind its share; one
    with members that have a split already goes there, where most of them are.
    """
    shares = dict(zip(SPLITS, _SHARES[config.shares], strict=True))
    members: dict[int, list[int]] = defaultdict(list)
    hashes = [_hash(case.record_id, config.seed) for case in cases]
    for i in sorted(range(len(cases)), key=lambda i: (hashes[i], cases[i].input_uri)):
        members[groups[i]].append(i)
    order = sorted(members.values(), key=lambda found: (_stratum(cases[found[0]], config), hashes[found[0]]))
    chosen: list[Split | None] = list(had)
    counts: Counter[Split] = Counter(split for split in had if split)
    done = counts.total()
    for found in order:
        free = [i for i in found if had[i] is None]
        done += len(free)
        of_group = Counter(split for i in found if (split := had[i]))
        drawn_to = of_group or {name: shares[name] * done - counts[name] for name in SPLITS}
        goes_to = max(SPLITS, key=drawn_to.__getitem__)
        counts[goes_to] += len(free)
        for i in free:
            chosen[i] = goes_to
    return chosen


def _stratum(case: Case, config: SplitConfig) -> tuple[str | int, ...]:
    age = case.age_months
    known: dict[str, str | int] = {
        "sex": case.sex or "",
        "age": -1 if age is None else int(age // AGE_BIN_MONTHS),
        "three": "" if age is None else stage_of(age, "three"),
        "four": "" if age is None else stage_of(age, "four"),
        "source": case.source or "",
    }
    return tuple(known[name] for name in config.stratify)


def _groups(cases: Sequence[Case]) -> list[int]:
    """Group numbers in the order of first appearance; cases with a common key are in one group."""
    parent = list(range(len(cases)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str, int] = {}
    for i, case in enumerate(cases):
        for mark in case.same:
            parent[root(i)] = root(first.setdefault(mark, i))
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(i), len(numbers)) for i in range(len(cases))]


def _checked(cases: Sequence[Case], splits: Sequence[Split | None], groups: list[int], what: str) -> Assignment:
    missing = [case.record_id for case, split in zip(cases, splits, strict=True) if split is None]
    if missing:
        raise UsageError(f"{what} {len(missing)} of {len(cases)} records ({', '.join(missing[:3])}, ...)")
    known = [split for split in splits if split is not None]
    sides: dict[int, set[str]] = defaultdict(set)
    for group, split in zip(groups, known, strict=True):
        sides[group].add(split)
    return Assignment(known, groups, sum(len(found) > 1 for found in sides.values()))


def split_warnings(assignment: Assignment, all_test: bool = False) -> list[str]:
    """Warnings about a split: an empty split, or a patient with a fifth of all records, which is probably a shared id.

    `all_test`: everything was to go into the test split.
    """
    total, found = len(assignment.splits), []
    largest = max(Counter(assignment.groups).values(), default=0)
    if largest > max(10, total / 5):
        found.append(
            f"{largest} of {total} records count as one patient or as copies; is one patient id shared by many?"
        )
    empty = [] if all_test else [name for name in SPLITS if name not in assignment.splits]
    if empty and total:
        found.append(f"there is no record in {' and '.join(empty)}")
    return found


def write_splits(cases: Iterable[Case], assignment: Assignment) -> str:
    """The split as CSV text that `read_splits` reads; groups are numbers, never patients."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(TABLE_COLUMNS)
    for case, split, group in zip(cases, assignment.splits, assignment.groups, strict=True):
        rows.writerow([case.record_id, split, group, case.input_uri])
    return text.getvalue()


def read_splits(text: str, origin: str) -> SplitTable:
    """A split table from its CSV text; `origin` names it in messages. Raises `UsageError`."""
    found: dict[str, Split] = {}
    listed: list[tuple[str, str]] = []
    repeated: set[str] = set()
    by_uri: dict[str, Split] = {}
    text = text.removeprefix("\ufeff")  # spreadsheets write it, and semicolons
    delimiter = ";" if ";" in text.partition("\n")[0] else ","
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    if not {"record_id", "split"} <= set(rows.fieldnames or ()):
        raise UsageError(f"{origin}: columns record_id and split are needed; found {rows.fieldnames}")
    for row in rows:
        said = (row["split"] or "").strip().lower()
        split = next((name for name, words in _WORDS.items() if said in words), None)
        if split is None:
            raise UsageError(f"{origin}: split {said!r} of {row['record_id']}: one of {', '.join(SPLITS)} is needed")
        listed.append((row["record_id"], row.get("input_uri") or ""))
        if found.setdefault(row["record_id"], split) != split:
            repeated.add(row["record_id"])
        if row.get("input_uri"):
            by_uri[row["input_uri"]] = split
    once = {name: split for name, split in found.items() if name not in repeated}
    return SplitTable(once | by_uri, tuple(listed))


def _hash(record_id: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{record_id}".encode(errors="surrogateescape")).hexdigest()
