"""Counts over the committed parts, the least certain inputs, and what parts cost."""

from __future__ import annotations

import csv
import io
import json

import pytest

from boneage_ray.errors import UsageError
from boneage_ray.findings.task_findings import findings_of
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.phantoms.png import encode_gray_png
from boneage_ray.preparation.prepare import ImageConfig
from boneage_ray.recipes import find_recipe
from boneage_ray.records.schema import empty_result, result_schema, to_table
from boneage_ray.runtime import parts
from boneage_ray.scoring import tally as tally_module
from boneage_ray.scoring.costs import part_costs, summed, with_earlier
from boneage_ray.scoring.report import ShownRows, score_page
from boneage_ray.scoring.summary import add_up, part_counts
from boneage_ray.scoring.tally import tally, work_list_csv

HANDS, HEADS = findings_of(find_recipe("demo")), findings_of(find_recipe("cephalogram-light"))


def hand(name, age, low=None, high=None, **values):
    given = {"age_months": age, "age_low_months": low, "age_high_months": high, "model": "hands", "sex": "F"}
    stages = {"three": "child" if age < 144 else "adolescent"}
    return empty_result() | {"input_uri": name, "status": "scored", "stages": stages} | given | values


def head(name, stage, of_stage, flags=()):
    found = {"cvm_stage": stage, "cvm_probabilities": {stage: of_stage} if stage else None, "flags": list(flags)}
    return empty_result() | {"input_uri": name, "status": "scored", "model": "heads", "sex": "M"} | found


def refused(name):
    return empty_result() | {
        "input_uri": name,
        "status": "rejected",
        "step": "quality",
        "reason": "blank",
        "message": "why",
    }


def committed(out, *rows_of_parts):
    """Parts of rows in OUT; their lines, as the driver has them."""
    lines = []
    for number, rows in enumerate(rows_of_parts):
        part = parts.Part(f"results/part-{number:05d}.parquet", "[]", len(rows))
        seconds = [float(number) + k for k in range(len(rows))]
        line = part_counts(rows) | part_costs(
            {"seconds": {"read": 1.5}, "decoder_deaths": 1, "repeats": {"requests": 2, "commits": 1}},
            number == 0,
            rows,
            seconds,
        )
        lines.append(parts.without_large(parts.commit(str(out), part, to_table(rows, result_schema()), line)))
    return lines


FIRST = [
    hand("a", 100.0, 80.0, 121.0),
    refused("b"),
    hand("=c", 150.0, sex=None, flags=["sex_unknown"], age_spread_months=13.0),
]
SECOND = [head("d", "CS3", 0.4), head("e", "CS3", 0.9), head("f", None, 0.0, ["cvm_not_measurable"]), refused("g")]


@pytest.fixture
def found(tmp_path):
    return tally(str(tmp_path), committed(tmp_path, FIRST, SECOND), {"hands": HANDS, "heads": HEADS})


def test_all_parts_are_counted_by_sex_stage_width_and_certainty(found):
    assert found.as_json() == {
        "ages_by_sex": {"8-10 y": {"F": 1}, "12-14 y": {"unknown": 1}},
        "stages_by_sex": {
            "cervical": {"CS3": {"M": 2}},
            "three": {"child": {"F": 1}, "adolescent": {"unknown": 1}},
        },
        "interval_widths": {"36-48": 1},
        "certain": 2,
        "uncertain": 3,
        "because": {"cvm_not_measurable": 1, "members_disagree": 1, "sex_unknown": 1, "stage_undecided": 1},
    }
    assert [row["input_uri"] for row in found.problems] == ["b", "g"]


def test_the_least_certain_of_each_model_come_first_and_are_a_table_for_a_spreadsheet(found):
    least = found.least_certain()
    assert [(row["input_uri"], row["because"]) for row in least] == [
        ("=c", ["sex_unknown", "members_disagree"]),
        ("a", []),
        ("f", ["cvm_not_measurable"]),
        ("d", ["stage_undecided"]),
        ("e", []),
    ]
    lines = list(csv.DictReader(io.StringIO(work_list_csv(least).removeprefix("\ufeff"))))
    assert [line["input_uri"] for line in lines] == ["'=c", "a", "f", "d", "e"]
    assert (lines[0]["because"], lines[1]["doubt"], lines[3]["doubt"]) == (
        "sex_unknown members_disagree",
        "41.0",
        "0.6",
    )


def test_the_list_keeps_fifty_and_the_first_of_equals(tmp_path):
    rows = [hand(f"{k:03d}", 100.0, 80.0, 120.0) for k in range(80)]
    least = tally(str(tmp_path), committed(tmp_path, rows[:40], rows[40:]), {"hands": HANDS}).least_certain()
    assert [row["input_uri"] for row in least] == [f"{k:03d}" for k in range(50)]


def test_of_a_part_without_problems_no_messages_are_read(tmp_path, monkeypatch):
    asked = []
    read = tally_module._read
    monkeypatch.setattr(tally_module, "_read", lambda out, wanted: asked.append(wanted[1]) or read(out, wanted))
    tally(str(tmp_path), committed(tmp_path, FIRST[:1], SECOND), {})
    assert ["message" in columns for columns in sorted(asked, key=len)] == [False, True]
    assert all("landmarks" not in columns and "cvm_measurements" not in columns for columns in asked)


def test_costs_add_up_and_the_slowest_of_all_parts_are_named(found, tmp_path):
    lines = committed(tmp_path, FIRST, SECOND)
    assert all("slowest" not in line for line in lines), "the driver holds the lines of all parts"
    assert summed([*lines, {"inputs": 3}]) == {
        "seconds": {"read": 3.0, "decode": 0.0, "wait": 0.0, "predict": 0.0, "write": 0.0},
        "retries": {"decoder_processes": 2, "parts_one_by_one": 1, "requests": 4, "commits": 2},
    }
    assert [(each["input_uri"], each["seconds"]) for each in found.slowest][:3] == [("g", 4.0), ("f", 3.0), ("=c", 2.0)]
    assert found.slowest[0] == {
        "seconds": 4.0,
        "input_uri": "g",
        "input_bytes": None,
        "status": "rejected",
        "reason": "blank",
    }


def test_an_update_keeps_the_costs_of_the_rows_that_stay():
    before = part_costs(
        {"seconds": {"read": 1.0}, "decoder_deaths": 1, "repeats": {"commits": 1}}, True, FIRST, [3.0, 2.0, 1.0]
    )
    now = part_costs(
        {"seconds": {"read": 0.5, "decode": 1.0}, "decoder_deaths": 0, "repeats": {"commits": 2}},
        False,
        [hand("a", 90.0)],
        [0.5],
    )
    merged = with_earlier(now, before, {"a"})
    assert (merged["seconds"], merged["decoder_deaths"], merged["careful"]) == ({"read": 1.5, "decode": 1.0}, 1, True)
    assert merged["repeats"] == {"commits": 3}
    assert [(each["input_uri"], each["seconds"]) for each in merged["slowest"]] == [("b", 2.0), ("=c", 1.0), ("a", 0.5)]
    assert with_earlier(now, {}, set())["slowest"] == now["slowest"], "a part of an older version has no costs"


def test_the_page_shows_distributions_and_the_work_list(found):
    summary = add_up([part_counts(FIRST), part_counts(SECOND)]) | {"distribution": found.as_json()}
    page = score_page(summary, ShownRows(found.problems, found.least_certain()), {}, "boneage score A", HANDS)
    assert "Certain: 2 results, nothing speaks against them. Uncertain: 3" in page
    assert "The 5 least certain" in page
    assert "80 to 121" in page
    assert (
        page.index("Stages by sex")
        < page.index("How certain the results are")
        < page.index("Inputs that were not scored")
    )
    assert "Predicted ages of the 2 scored inputs (1 girls, 1 sex unknown)" in page, "the heads have none"
    assert "Rejected inputs" not in page
    assert json.dumps("members_disagree") in page


def test_rejected_pictures_stand_on_the_page_only_where_they_are_asked_for(tmp_path):
    from boneage_ray.commands.score_report import check_thumbnails
    from boneage_ray.scoring.thumbnails import with_thumbnails

    place = tmp_path / "hand.png"
    place.write_bytes(encode_gray_png(hand_phantom(0, 120, "F", 96).image))
    gone = refused(str(tmp_path / "gone.png"))
    rows = with_thumbnails([gone, refused(str(place)), empty_result() | {"status": "failed"}], ImageConfig(size=64))
    assert [row["input_uri"] for row in rows] == [str(place)]
    summary = add_up([part_counts(rows)])
    page = score_page(summary, ShownRows(rows, (), rows), {}, "boneage score A --thumbnails", HANDS)
    assert "Rejected inputs" in page
    assert "data:image/png;base64," in page
    with pytest.raises(UsageError, match="--thumbnails with --keep hash"):
        check_thumbnails(True, "hash")
