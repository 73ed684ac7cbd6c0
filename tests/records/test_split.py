"""Seeded, stratified splits."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from boneage_ray.records.split import split_records


def cases(count):
    rng = random.Random(1)
    return [(str(k), float(rng.randint(1, 228)), rng.choice(["F", "M", None])) for k in range(count)]


def test_the_split_depends_on_ids_and_seed_not_on_the_order():
    given = cases(300)
    chosen = dict(zip([c[0] for c in given], split_records(given, 7), strict=True))
    shuffled = random.Random(2).sample(given, len(given))
    assert dict(zip([c[0] for c in shuffled], split_records(shuffled, 7), strict=True)) == chosen


def test_golden_choice():
    given = [(str(k), 10.0 * k, "M") for k in range(1, 15)]
    assert " ".join(split_records(given, 0)) == (
        "train train train val train train test val train train train train train test"
    )


def test_another_seed_is_another_split():
    given = cases(300)
    assert split_records(given, 0) != split_records(given, 1)


def test_shares_are_70_15_15():
    assert Counter(split_records(cases(1000), 0)) == {"train": 700, "val": 150, "test": 150}


def test_every_stratum_is_divided_alike():
    given = cases(3000)
    strata = {}
    for (_, age, sex), split in zip(given, split_records(given, 3), strict=True):
        strata.setdefault((sex, int(age // 24)), Counter())[split] += 1
    for counts in strata.values():
        total = counts.total()
        assert abs(counts["train"] - 0.70 * total) <= 1.5
        assert abs(counts["val"] - 0.15 * total) <= 1.5
        assert abs(counts["test"] - 0.15 * total) <= 1.5


@pytest.mark.parametrize(("count", "least"), [(1, {"train"}), (3, {"train", "val"}), (7, {"train", "val", "test"})])
def test_small_archives_fill_training_first(count, least):
    assert set(split_records(cases(count), 0)) >= least


def test_unknown_ages_and_sexes_are_strata_of_their_own():
    given = [(str(k), None, None) for k in range(100)]
    assert Counter(split_records(given, 0)) == {"train": 70, "val": 15, "test": 15}


def test_no_case_no_split():
    assert split_records([], 0) == []
