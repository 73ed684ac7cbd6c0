"""Seeded, stratified splits."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from boneage_ray.errors import UsageError
from boneage_ray.preparation.split import (
    Assignment,
    Case,
    SplitConfig,
    read_splits,
    split_cases,
    split_warnings,
    write_splits,
)


def split_records(given, seed, **config):
    return split_cases([Case(*case) for case in given], SplitConfig(seed=seed, **config)).splits


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


def test_every_stratum_has_the_same_shares():
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


def test_shares_can_be_60_20_20():
    assert Counter(split_records(cases(1000), 0, shares="60/20/20")) == {"train": 600, "val": 200, "test": 200}


@pytest.mark.parametrize("stratify", [("source",), ("three",), ("four", "sex"), ("source", "age")])
def test_every_stratum_asked_for_has_the_same_shares(stratify):
    rng = random.Random(5)
    given = [
        Case(str(k), float(rng.randint(1, 228)), rng.choice(["F", "M"]), rng.choice(["site-a", "site-b", None]))
        for k in range(1500)
    ]
    found = split_cases(given, SplitConfig(stratify=stratify)).splits
    strata = {}
    for case, split in zip(given, found, strict=True):
        three = "child" if case.age_months < 144 else "adolescent" if case.age_months <= 216 else "adult"
        four = min(int(case.age_months // 60), 3)
        known = {"source": case.source, "three": three, "four": four, "sex": case.sex, "age": case.age_months // 24}
        strata.setdefault(tuple(known[name] for name in stratify), Counter())[split] += 1
    for counts in strata.values():
        assert abs(counts["train"] - 0.70 * counts.total()) <= 1.5
        assert abs(counts["test"] - 0.15 * counts.total()) <= 1.5


def test_a_patient_and_an_exact_copy_are_in_one_split_also_through_each_other():
    given = [Case(str(k), 100.0, "F", same=(f"patient {k // 3}", f"pixels {k}")) for k in range(300)]
    given += [Case("copy", 100.0, "F", same=("pixels 7",)), Case("again", 50.0, "M", same=("pixels 7", "patient 40"))]
    found = split_cases(given, SplitConfig())
    sides = {}
    for case, split, group in zip(given, found.splits, found.groups, strict=True):
        sides.setdefault(group, set()).add(split)
        for mark in case.same:
            sides.setdefault(mark, set()).add(split)
    assert {len(splits) for splits in sides.values()} == {1}
    assert found.groups[7] == found.groups[300] == found.groups[301] == found.groups[120]
    assert found.leaks == 0
    counts = Counter(found.splits)
    assert abs(counts["train"] - 211) <= 6
    assert abs(counts["val"] - 45) <= 6


def test_the_published_split_is_kept_and_its_leaks_are_counted():
    given = [
        Case("a", same=("patient 1",), published="train"),
        Case("b", same=("patient 1",), published="test"),
        Case("c", same=("patient 2",), published="val"),
    ]
    assert split_cases(given, SplitConfig(shares="published")) == Assignment(["train", "test", "val"], [0, 0, 1], 1)
    with pytest.raises(UsageError, match="1 of 4 records"):
        split_cases([*given, Case("d")], SplitConfig(shares="published"))


def test_a_written_split_can_be_reused():
    given = [Case(str(k), float(k), "F", input_uri=f"s3://a/{k}.png") for k in range(40)]
    given.append(Case("7", 7.0, "M", input_uri="s3://b/7.png"))  # the same stem in another folder
    first = split_cases(given, SplitConfig(seed=3))
    text = write_splits(given, first)
    assert text.splitlines()[0] == "record_id,split,group,input_uri"
    again = split_cases(given, SplitConfig(seed=99), read_splits(text, "splits.csv"))
    assert again.splits == first.splits
    with pytest.raises(UsageError, match="the split table lacks 1 of 42 records"):
        split_cases([*given, Case("new")], SplitConfig(), read_splits(text, "splits.csv"))


def test_a_split_table_may_come_from_a_spreadsheet():
    text = "\ufeffrecord_id;split\n1;Train\n2;validation\n3; TEST \n"
    assert read_splits(text, "splits.csv").splits == {"1": "train", "2": "val", "3": "test"}


def test_rows_of_a_split_table_that_match_no_record_are_counted():
    given = [Case(str(k), 1.0, "F", input_uri=f"s3://a/{k}.png") for k in range(3)]
    text = write_splits(given, split_cases(given, SplitConfig()))
    assert read_splits(text, "splits.csv").idle(given) == []
    moved = [Case(case.record_id, input_uri=f"/elsewhere/{case.record_id}.png") for case in given]
    assert read_splits(text, "splits.csv").idle(moved) == []
    assert read_splits(text, "splits.csv").idle(given[:1]) == ["1", "2"]
    again = f"{text}2,train,9,s3://b/2.png\n,val,9,s3://b/unknown.png\nold,test,9,\n"
    assert read_splits(again, "splits.csv").idle(given) == ["2", "", "old"]
    assert read_splits("record_id,split\ns3://a/1.png,test\n7,val\n", "splits.csv").idle(given) == ["7"]


def test_one_id_for_all_patients_is_reported():
    given = [Case(str(k), 100.0, "F", same=("patient 0",)) for k in range(30)]
    found = split_warnings(split_cases(given, SplitConfig()))
    assert found == [
        "30 of 30 records count as one patient or as copies; is one patient id shared by many?",
        "there is no record in val and test",
    ]
    assert split_warnings(split_cases([Case(str(k)) for k in range(30)], SplitConfig())) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,split\n1,train\n", "record_id and split"),
        ("record_id,split\n1,exam\n", "'exam'"),
        ("record_id,split\n1\n", "''"),
    ],
)
def test_a_table_that_is_no_split_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        read_splits(text, "splits.csv")


def test_everything_may_be_test():
    given = [Case(str(k), 10.0 * k, "F") for k in range(20)]
    found = split_cases(given, SplitConfig(shares="test"))
    assert Counter(found.splits) == {"test": 20}
    assert split_warnings(found) == ["there is no record in train and val"]
    assert split_warnings(found, all_test=True) == []
