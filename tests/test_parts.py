"""Parts: deterministic cuts, atomic commits, resume and refusal."""

from __future__ import annotations

import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boneage_ray import parts, storage
from boneage_ray.archives.archive import Input
from boneage_ray.errors import ExitCode, MismatchError

INPUTS = [Input(f"s3://site/{k}.png", str(k), 10.0 * k, "F" if k % 2 else None) for k in range(7)]


def test_cut_keeps_the_order_and_numbers_the_files():
    plan = parts.cut(INPUTS, "results", 3)
    assert [p.target for p in plan] == [f"results/part-0000{k}.parquet" for k in range(3)]
    assert [[i.record_id for i in p.inputs] for p in plan] == [["0", "1", "2"], ["3", "4", "5"], ["6"]]
    assert parts.cut([], "results", 3) == []


def test_a_part_survives_its_way_to_an_actor():
    for part in parts.cut(INPUTS, "train", 4):
        row = part.row()
        assert {type(value) for value in row.values()} == {str}
        assert parts.read_part(row) == part


def test_the_fingerprint_sees_every_input_and_setting():
    plan = parts.cut(INPUTS, "results", 3)
    mark = parts.fingerprint(plan, {"size": 256}, "1.0")
    assert mark == parts.fingerprint(parts.cut(INPUTS, "results", 3), {"size": 256}, "1.0")
    assert len(mark) == 16
    others = [
        parts.fingerprint(plan, {"size": 128}, "1.0"),
        parts.fingerprint(plan, {"size": 256}, "1.1"),
        parts.fingerprint(parts.cut(INPUTS, "results", 4), {"size": 256}, "1.0"),
        parts.fingerprint(parts.cut(INPUTS[:-1], "results", 3), {"size": 256}, "1.0"),
        parts.fingerprint(parts.cut([*INPUTS[:-1], Input("s3://site/6.png", "6")], "results", 3), {"size": 256}, "1.0"),
    ]
    assert len({mark, *others}) == 6


def test_a_committed_part_holds_its_rows_and_its_line(tmp_path):
    out, line = str(tmp_path), {"target": "results/part-00000.parquet", "rows": 2, "rejected": [{"reason": "blank"}]}
    parts.commit(out, line["target"], pa.table({"a": [1, 2]}), line)
    assert parts.committed(out, ["results", "absent"]) == {"results/part-00000.parquet": line}
    assert pq.read_table(tmp_path / line["target"]).column("a").to_pylist() == [1, 2]


def test_only_whole_parts_count(tmp_path):
    parts.commit(str(tmp_path), "results/part-00001.parquet", pa.table({"a": [1]}), {"rows": 1})
    (tmp_path / "results" / ".0123.part").write_bytes(b"half")
    (tmp_path / "results" / "notes.txt").write_text("mine")
    assert list(parts.committed(str(tmp_path), ["results"])) == ["results/part-00001.parquet"]


def test_parts_and_claims_on_s3(s3_bucket):
    out = f"{s3_bucket}/out"
    assert parts.claim(out, "abc", overwrite=False, what="score") is False
    parts.commit(out, "results/part-00000.parquet", pa.table({"a": [1]}), {"rows": 1})
    assert parts.claim(out, "abc", overwrite=False, what="score") is True
    assert parts.committed(out, ["results"]) == {"results/part-00000.parquet": {"rows": 1}}


def test_an_empty_place_is_claimed_and_the_same_run_continues(tmp_path):
    out = str(tmp_path / "new")
    assert parts.claim(out, "abc", overwrite=False, what="score") is False
    assert storage.read_json(f"{out}/{parts.PLAN}") == {"what": "score", "fingerprint": "abc"}
    assert parts.claim(out, "abc", overwrite=False, what="score") is True


@pytest.mark.parametrize(("mark", "what"), [("abd", "score"), ("abc", "prepare")])
def test_another_run_is_refused_and_named(tmp_path, mark, what):
    parts.claim(str(tmp_path), "abc", overwrite=False, what="score")
    with pytest.raises(
        MismatchError, match=rf"another run \(score abc, this is {what} {mark}\).*--overwrite"
    ) as caught:
        parts.claim(str(tmp_path), mark, overwrite=False, what=what)
    assert caught.value.exit_code == ExitCode.MISMATCH


def test_overwrite_deletes_the_earlier_run_but_nothing_else(tmp_path):
    mine, foreign = tmp_path / "mine", tmp_path / "foreign"
    parts.claim(str(mine), "abc", overwrite=False, what="score")
    parts.commit(str(mine), "results/part-00000.parquet", pa.table({"a": [1]}), {})
    assert parts.claim(str(mine), "abd", overwrite=True, what="score") is False
    assert parts.committed(str(mine), ["results"]) == {}
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(MismatchError, match="holds files of something else"):
            parts.claim(str(foreign), "abc", overwrite=overwrite, what="score")
    assert (foreign / "thesis.txt").read_text() == "years of work"


def test_prefetched_keeps_the_order_and_never_runs_far_ahead():
    started, lock, taken = [], threading.Lock(), 0

    def work(k):
        with lock:
            started.append(k)
        time.sleep(0.002 * (k % 3))
        return k * k

    for k, value in enumerate(parts.prefetched(work, range(40), threads=4, ahead=8)):
        assert value == k * k
        taken += 1
        assert len(started) <= taken + 8
    assert taken == 40


def test_an_error_of_prefetched_work_arrives_in_its_place():
    def work(k):
        if k == 3:
            raise ValueError("three")
        return k

    results = parts.prefetched(work, range(10), threads=2, ahead=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_short_parts_come_first_and_no_input_is_lost():
    inputs = [Input(f"{k}.png", str(k)) for k in range(100)]
    plan = parts.cut(inputs, "results", 16, lead=4)
    assert [len(part.inputs) for part in plan] == [4] * 8 + [16] * 4 + [4]
    assert [item for part in plan for item in part.inputs] == inputs
    assert [len(part.inputs) for part in parts.cut(inputs[:6], "results", 16, lead=4)] == [4, 2]
