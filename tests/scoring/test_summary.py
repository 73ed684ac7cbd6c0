"""Counts of a scoring run, and the page made from them."""

import json
import re

import pytest

from boneage_ray.errors import BoneageError, StrictError
from boneage_ray.findings.task_findings import findings_of
from boneage_ray.recipes import find_recipe
from boneage_ray.records.schema import empty_result
from boneage_ray.scoring.report import ShownRows, score_page
from boneage_ray.scoring.summary import add_up, balance, check_failures, part_counts, watched

AGES, LANDMARKS = (findings_of(find_recipe(name)) for name in ("demo", "cephalogram-light"))


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
    "bytes": 0,
    "reasons": {"truncated": 1, "blank": 1},
    "flags": {"spacing_unknown": 1, "sex_unknown": 2, "out_of_age_range": 1},
    "ages": {"8-10 y": 2, "below 0 y": 1},
    "sexes": {"F": 1, "M": 1, "unknown": 1},
    "cvm_stages": {},
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
        "bytes": 0,
        "reasons": {"truncated": 3, "blank": 1},
        "flags": {"sex_unknown": 2, "out_of_age_range": 1, "spacing_unknown": 1},
        "ages": {"below 0 y": 1, "2-4 y": 1, "8-10 y": 2},
        "sexes": {"F": 1, "M": 1, "unknown": 2},
        "cvm_stages": {},
    }
    assert list(found["reasons"]) == ["truncated", "blank"]
    assert list(found["flags"]) == ["sex_unknown", "out_of_age_range", "spacing_unknown"]
    assert list(found["ages"]) == ["below 0 y", "2-4 y", "8-10 y"]
    assert list(found["sexes"]) == ["F", "M", "unknown"]


def head(stage, **values):
    return row("scored", cvm_stage=stage, flags=[] if stage else ["cvm_not_measurable"], **values)


HEADS = [head("CS4"), head("CS2"), head("CS4"), head(None), failed("out_of_distribution", "rejected")]


def test_stages_of_cephalograms_are_counted_and_have_no_age():
    line = part_counts(HEADS)
    assert line["cvm_stages"] == {"CS4": 2, "CS2": 1}
    assert (line["scored"], line["ages"], line["sexes"]) == (4, {}, {"unknown": 4})
    both = add_up([line, part_counts([head("CS1"), head("CS4")])])
    assert both["cvm_stages"] == {"CS1": 1, "CS2": 1, "CS4": 3}
    assert list(both["cvm_stages"]) == ["CS1", "CS2", "CS4"]


def test_a_part_from_before_there_were_stages_adds_up():
    older = {name: value for name, value in LINE.items() if name != "cvm_stages"}
    assert add_up([older, part_counts(HEADS)])["cvm_stages"] == {"CS2": 1, "CS4": 2}


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
    return score_page(
        add_up([part_counts(rows)]), ShownRows(problems), {"Model": "m"}, "boneage score A --model M --out O", AGES
    )


def test_score_page_of_cephalograms_tells_their_stages():
    command = "boneage score A --model M --out O"
    page = score_page(add_up([part_counts(HEADS)]), ShownRows([HEADS[-1]]), {"Model": "m"}, command, LANDMARKS)
    assert "<h1>Cephalograms</h1>" in page
    assert status_of(page) == ("caution", "1 of 5 inputs have no landmarks")
    assert "Cervical stages" in page
    assert "1 scored inputs have no stage, see the flags." in page
    rows = re.findall(r'<td class="text">(CS\d)</td>\s*<td[^>]*>(.*?)</td>\s*<td[^>]*>(.*?)</td>', page)
    assert rows == [("CS2", "1", "33.3%"), ("CS4", "2", "66.7%")]
    assert "Predicted ages" not in page


def test_score_page_without_stages_has_no_such_section():
    assert "Cervical stages" not in score(ROWS)
    all_staged = score_page(add_up([part_counts(HEADS[:3])]), ShownRows(), {}, "c", LANDMARKS)
    assert "have no stage" not in all_staged


def status_of(page):
    return re.search(r'<div class="status (\w+)".*?<strong>(.*?)</strong>', page, re.DOTALL).groups()


@pytest.mark.parametrize(("unknown", "known", "said"), [(2, 1, "caution"), (1, 1, "good"), (0, 3, "good")])
def test_ages_without_a_sex_for_more_than_half_of_the_inputs_are_a_caution(unknown, known, said):
    page = score([scored(100.0, None)] * unknown + [scored(100.0)] * known)
    assert status_of(page)[0] == said
    assert ("The sex of 2 of 3 scored inputs is unknown" in page) == (said == "caution")


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


def test_a_hopeless_run_ends_early_with_its_reasons():
    good = {"target": "a", "inputs": 8, "failed": 1, "reasons": {"truncated": 1}}
    bad = {"target": "b", "inputs": 64, "failed": 40, "reasons": {"truncated": 30, "not_found": 10}}
    assert list(watched([good] * 20, 0.2)) == [good] * 20
    assert list(watched([bad, bad], None)) == [bad, bad]
    came = []
    with pytest.raises(
        StrictError, match=r"--max-failures 0.5: 41 of 72 inputs failed so far \(truncated 31, not_found 10"
    ):
        came.extend(iter(watched([good, bad, good], 0.5)))
    assert list(watched([{**good, "failed": 8}], 0.5))  # too few to call it hopeless


def test_the_share_of_failures_counts_at_the_end_too():
    check_failures({"inputs": 10, "failed": 5, "reasons": {"truncated": 5}}, 0.5)
    with pytest.raises(StrictError, match="5 of 10 inputs failed in all"):
        check_failures({"inputs": 10, "failed": 5, "reasons": {"truncated": 5}}, 0.4)


def test_the_answer_of_an_update_has_its_counts_but_no_names():
    summary = {"inputs": 3, "scored": 2, "rejected": 0, "failed": 1, "reasons": {"truncated": 1}, "ages": {}}
    assert balance(summary, update=True) == {name: summary[name] for name in summary if name != "ages"}
    summary["update"] = {"new": 1, "changed": 0, "vanished": 1, "vanished_inputs": ["/films/a.png"]}
    assert "new" not in balance(summary, update=False)
    assert list(balance(summary, update=True))[-3:] == ["new", "changed", "vanished"]


def test_score_page_says_what_the_last_update_did():
    update = {"new": 1200, "changed": 3, "vanished": 2, "vanished_inputs": ["/a.png", "/b.png"]}
    said = "The last update scored 1,200 new and 3 changed inputs; 2 have vanished"
    summary = add_up([part_counts(ROWS)])
    assert said in score_page({**summary, "update": update}, ShownRows(), {}, "c", AGES)
    assert said not in score_page(summary, ShownRows(), {}, "c", AGES)
