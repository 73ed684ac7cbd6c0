"""Which record is for training, validation or test: seeded, and stratified by sex and age."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from boneage_ray.anatomy.growth import Sex

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
FRACTIONS: dict[Split, float] = {"train": 0.70, "val": 0.15, "test": 0.15}
AGE_BIN_MONTHS = 24.0


def split_records(cases: Sequence[tuple[str, float | None, Sex | None]], seed: int) -> list[Split]:
    """A split for each case (record id, age in months, sex); depends on the ids and the seed, not on their order.

    Cases are ordered by stratum (sex, two-year age bin) and, inside it, by a seeded hash; each then goes to the split
    that is furthest behind its share, so that every stratum and the whole are divided 70/15/15.
    """
    order = sorted(range(len(cases)), key=lambda i: (*_stratum(cases[i]), _hash(cases[i][0], seed)))
    counts: Counter[Split] = Counter()
    chosen: list[Split] = ["train"] * len(cases)
    for done, i in enumerate(order, start=1):
        behind = max(SPLITS, key=lambda name: FRACTIONS[name] * done - counts[name])
        counts[behind] += 1
        chosen[i] = behind
    return chosen


def _stratum(case: tuple[str, float | None, Sex | None]) -> tuple[str, int]:
    _, age, sex = case
    return sex or "", -1 if age is None else int(age // AGE_BIN_MONTHS)


def _hash(record_id: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{record_id}".encode(errors="surrogateescape")).hexdigest()
