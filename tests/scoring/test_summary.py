"""Counts of a scoring run, and the page made from them."""

import json
import re

import pytest

from boneage_ray.errors import BoneageError
from boneage_ray.records.schema import empty_result
from boneage_ray.scoring.report import score_page
from boneage_ray.scoring.summary import add_up, part_counts


def row(status, **values):
    return empty_result() | {"input_uri": "s3://hands/a.png", "status": status} | values


def scored(age, sex="F", flags=()):
    return row("scored", age_months=age, sex=sex, flags=list(flags))


def failed(reason, status="failed", **values):
    return row(status, step="decode", reason=reason, message="why", **values)


ROWS = [
    scored(100.0),
    scored(101.0, "M", ["spacing_unknown"]),
    scored(-1.0, None, ["sex_unknown", "out_of_age_range"]),
    failed("truncated", sex="F"),
    failed("blank", "rejected", flags=["sex_unknown"]),
]
LINE = {
    "inputs": 5,
    "scored": 3,
    "rejected": 1,
    "failed": 1,
    "reasons": {"truncated": 1, "blank": 1},
    "flags": {"spacing_unknown": 1, "sex_unknown": 2, "out_of_age_range": 1},
    "ages": {"8-10 y": 2, "below 0 y": 1},
    "sexes": {"F": 1, "M": 1, "unknown": 1},
}


def test_counts_of_a_part():
    assert part_counts(ROWS) == LINE
    assert json.loads(json.dumps(LINE)) == LINE


def test_ages_and_sexes_count_scored_rows_only():
    line = part_counts(ROWS)
    assert sum(line["ages"].values()) == sum(line["sexes"].values()) == line["scored"]


def test_lines_add_up_in_a_readable_order():
    other = part_counts([failed("truncated"), failed("truncated"), scored(30.0, None)])
    found = add_up([{"target": "results/part-0.parquet", **LINE}, other])
    assert found == {
        "inputs": 8,
        "scored": 4,
        "rejected": 1,
        "failed": 3,
        "reasons": {"truncated": 3, "blank": 1},
        "flags": {"sex_unknown": 2, "out_of_age_range": 1, "spacing_unknown": 1},
        "ages": {"below 0 y": 1, "2-4 y": 1, "8-10 y": 2},
        "sexes": {"F": 1, "M": 1, "unknown": 2},
    }
    assert list(found["reasons"]) == ["truncated", "blank"]
    assert list(found["flags"]) == ["sex_unknown", "out_of_age_range", "spacing_unknown"]
    assert list(found["ages"]) == ["below 0 y", "2-4 y", "8-10 y"]
    assert list(found["sexes"]) == ["F", "M", "unknown"]


def test_no_part_adds_up_to_nothing():
    empty = add_up([])
    assert empty == part_counts([])
    assert empty["inputs"] == 0


def test_a_row_without_a_status_makes_the_sum_wrong():
    with pytest.raises(BoneageError, match=r"does not add up: 2 inputs, but 1 scored \+ 0 rejected \+ 0 failed"):
        add_up([part_counts([scored(100.0), row(None)])])


@pytest.mark.parametrize("key", ["inputs", "scored", "rejected", "failed"])
def test_a_count_that_is_one_off_is_found(key):
    with pytest.raises(BoneageError, match="balance sheet does not add up"):
        add_up([LINE, {**LINE, key: LINE[key] + 1}])


def test_a_missing_reason_is_found():
    with pytest.raises(BoneageError, match="1 rejected \\+ 1 failed, but 1 reasons"):
        add_up([{**LINE, "reasons": {"blank": 1}}])


def score(rows, problems=None):
    problems = [r for r in rows if r["status"] != "scored"] if problems is None else problems
    return score_page(add_up([part_counts(rows)]), problems, {"Model": "m"}, "boneage score A --model M --out O")


def status_of(page):
    return re.search(r'<div class="status (\w+)".*?<strong>(.*?)</strong>', page, re.DOTALL).groups()


def test_score_page_shows_the_balance_sheet_and_every_problem():
    page = score(ROWS)
    assert status_of(page) == ("caution", "2 of 5 inputs have no age")
    assert "All 5 inputs are accounted for: 3 scored, 1 rejected, 1 failed." in page
    assert '<td class="text">truncated</td>' in page
    assert "the file ends too early" in page
    assert "All of them." in page
    assert page.count("<code>boneage score A --model M --out O</code>") == 3


def test_score_page_says_when_problems_are_left_out():
    assert "The first 1 of 2." in score(ROWS, [ROWS[3]])


def test_score_page_of_a_clean_run_is_good_and_has_no_problem_list():
    page = score(ROWS[:3])
    assert status_of(page) == ("good", "Every input was scored")
    assert "Inputs that were not scored" not in page


def test_score_page_of_a_run_without_any_score_is_bad():
    page = score(ROWS[3:])
    assert status_of(page) == ("bad", "Nothing was scored")
    assert "Predicted ages" not in page


def test_score_page_shows_no_more_of_a_row_than_the_problem():
    leaky = failed("truncated", study_uid="1.2.840.99", input_sha256="5ec7e7") | {"message": "</script><b>&"}
    page = score([leaky])
    assert "1.2.840.99" not in page
    assert "5ec7e7" not in page
    assert "&lt;/script&gt;&lt;b&gt;&amp;" in page


def test_score_page_embeds_the_summary():
    page = score(ROWS)
    embedded = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert embedded["summary"] == add_up([LINE])
    assert embedded["command"] == "boneage score A --model M --out O"


def test_two_hundred_long_problems_stay_small():
    rows = [failed("truncated", input_uri=f"s3://hands/{'folder/' * 20}{k}.png") for k in range(200)]
    assert len(score(rows).encode()) < 300_000
