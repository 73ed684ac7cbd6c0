"""A part that an update writes anew: copied rows, replaced rows, rows that are gone, and the line that counts them."""

from __future__ import annotations

import pytest

from boneage_ray.archives.archive import Input
from boneage_ray.archives.changes import mark_of
from boneage_ray.archives.updates import PartWork, update_in_words
from boneage_ray.errors import MismatchError
from boneage_ray.records.schema import empty_result, from_table
from boneage_ray.runtime import parts
from boneage_ray.scoring.renewal import Earlier, first_time, update_counts

INPUTS = [Input(f"/films/{k}.png", str(k), version="1") for k in range(5)]
PART = parts.Part("results/part-00003.parquet", "[]", 5)


def row(item, age):
    found = {"status": "scored", "age_months": age, "sex": "F", "stages": {"three": "adult"}, "flags": ["sex_unknown"]}
    return {**empty_result(), "input_uri": item.uri, **found}


@pytest.fixture
def out(tmp_path):
    """An OUT with one part of five rows."""
    scored = first_time(PartWork(INPUTS), [row(item, 10.0 * k) for k, item in enumerate(INPUTS)])
    parts.commit(str(tmp_path), PART, scored.table, scored.line, marks=scored.marks)
    return str(tmp_path)


def again(out, work, rows, body):
    """One renewal as a worker does it; the line that it committed."""
    part = parts.Part(PART.target, body, 0)
    scored = Earlier.read(out, part, work).renewed(work, rows)
    part = parts.Part(PART.target, body, len(scored.table))
    return part, parts.commit(out, part, scored.table, scored.line, marks=scored.marks)


def test_a_part_keeps_replaces_and_drops_rows_in_their_places(out):
    new = Input("/films/1.png", "1", version="2")
    work = PartWork([new], "u1", PART.mark, [1], [0, 3])
    part, line = again(out, work, [row(new, 99.0)], "first")
    earlier = Earlier.read(out, part, PartWork([], "u1", part.mark))
    assert [(r["input_uri"], r["age_months"]) for r in from_table(earlier.table)] == [
        ("/films/1.png", 99.0),
        ("/films/2.png", 20.0),
        ("/films/4.png", 40.0),
    ]
    assert from_table(earlier.table)[1] == row(INPUTS[2], 20.0)
    assert earlier.marks == b"".join(map(mark_of, [new, INPUTS[2], INPUTS[4]]))
    assert (line["size"], line["inputs"], line["scored"], line["flags"]) == (3, 3, 3, {"sex_unknown": 3})
    assert update_counts([line], "u1") == {
        "new": 0,
        "changed": 1,
        "retried": 0,
        "vanished": 2,
        "vanished_inputs": ["/films/0.png", "/films/3.png"],
    }
    assert update_counts([line], "u0")["changed"] == 0


def test_an_interrupted_update_counts_both_of_its_halves_and_the_next_one_its_own(out):
    part, _ = again(out, PartWork([], "u1", PART.mark, [], [0]), [], "first")
    part, line = again(out, PartWork(INPUTS[1:2], "u1", part.mark, [0], [3]), [row(INPUTS[1], 5.0)], "second")
    assert update_counts([line], "u1") == {
        "new": 0,
        "changed": 1,
        "retried": 0,
        "vanished": 2,
        "vanished_inputs": ["/films/0.png", "/films/4.png"],
    }
    _, line = again(out, PartWork([], "u2", part.mark, [], [0, 1, 2]), [], "third")
    assert (line["size"], update_counts([line], "u2")["vanished"], update_counts([line], "u1")["vanished"]) == (0, 3, 0)


def test_a_part_that_is_neither_the_old_nor_the_new_one_is_left_alone(out):
    with pytest.raises(MismatchError, match="changed by another run"):
        Earlier.read(out, parts.Part(PART.target, "x", 5), PartWork([], "u1", "0123"))


def test_a_file_that_the_storage_did_not_hand_out_is_marked_for_another_try(out):
    problems = [("read", "unreadable"), ("read", "not_found"), ("decode", "truncated"), ("read", "too_large")]
    rows = [{**row(INPUTS[0], None), "status": "failed", "step": s, "reason": r} for s, r in problems]
    scored = first_time(PartWork(INPUTS[:4], "u1"), rows)
    states = [scored.marks[k : k + 16] for k in range(0, 64, 16)]
    assert [state == mark_of(item) for state, item in zip(states, INPUTS, strict=False)] == [False, False, True, True]
    assert states[0] == mark_of(INPUTS[0], again=True)
    part, line = again(out, PartWork(INPUTS[:1], "u2", PART.mark, [0], again=1), [row(INPUTS[0], 5.0)], "tried")
    assert (line["changed"], line["retried"], update_counts([line], "u2")["retried"]) == (0, 1, 1)
    assert Earlier.read(out, part, PartWork([], "u2", part.mark)).marks[:16] == mark_of(INPUTS[0])


def test_an_update_is_told_in_words():
    counts = {"new": 1200, "changed": 0, "retried": 3, "vanished": 2}
    (line,) = update_in_words(counts)
    assert line == "update: 1,200 new, 0 changed, 2 vanished, 3 tried again, which could not be read before"
    kept = {"kept": 40, "closed_inputs": ["/films/ward", "/films/x.zip"]}
    _, line = update_in_words(update_counts([], "u1", kept))
    assert line == "update: 40 rows are kept whose files cannot be examined now: /films/ward and 1 more"
