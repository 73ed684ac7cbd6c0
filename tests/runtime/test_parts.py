"""Parts: deterministic cuts, atomic commits, resume and refusal."""

from __future__ import annotations

import errno
import json
import threading
import time
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boneage_ray import storage
from boneage_ray.archives.archive import Archive, Input
from boneage_ray.archives.in_parts import LARGE_SIZE, PART_BYTES, ArchiveParts, inputs_of, inputs_within
from boneage_ray.errors import BoneageError, ExitCode, MismatchError, NoUsableInputError, StorageError
from boneage_ray.preparation.prepare import ImageConfig
from boneage_ray.runtime import parts, plan
from boneage_ray.runtime.resources import Resources
from boneage_ray.storage.errors import Guarded, translated
from boneage_ray.storage.repeats import repeats

INPUTS = [
    *(Input(f"s3://site/{k}.png", str(k), 10.0 * k, "F" if k % 2 else None) for k in range(5)),
    Input("s3://site/5.png", "5", vertebral=((1.0, 2.5), (3.0, 4.0)), facial=((0.5, 0.25),), size_bytes=7),
    Input("", "6", problem=("no_image", "the table names it")),
]


class Fixed(Archive):
    """An archive of given inputs; counts how many were taken from it."""

    def __init__(self, inputs):
        self.given, self.taken = inputs, 0

    def inputs(self):
        for item in self.given:
            self.taken += 1
            yield item


def listing(inputs):
    return ArchiveParts(Fixed(inputs), "results")


def work(out, todo):
    """Commits every part of a `Todo`, in this process."""
    for row in todo():
        if "line" in row:
            yield row["line"]
        else:
            part = parts.Part(**row)
            yield parts.commit(out, part, pa.table({"id": [i.record_id for i in inputs_of(part)]}), {"mine": 1})


@pytest.fixture
def complete(tmp_path, monkeypatch):
    """complete(inputs, stop_after) runs a job over them in this process; stops like a killed run on request."""
    monkeypatch.setattr(parts, "offered_cpus", lambda: 2)
    monkeypatch.setattr(parts, "choose_resources", lambda *_: Resources(1, 0.0, 1, 2))

    def run(inputs, stop_after=None, drop=()):
        def lines(todo, _):
            for done, line in enumerate(work(str(tmp_path), todo)):
                if done == stop_after:
                    raise KeyboardInterrupt
                if line.get("target") not in drop:
                    yield line

        return parts.complete(parts.PartsJob("score", str(tmp_path), listing(inputs), ("results",)), lines)

    return run


MANY = [Input(f"{k}.png", str(k)) for k in range(9000)]


def test_short_parts_come_first_and_no_input_is_lost():
    found = list(listing(MANY)())
    assert [part.size for part in found] == [8] * 8 + [64] * 128 + [256] * 2 + [9000 - 64 - 8192 - 512]
    assert [item for part in found for item in inputs_of(part)] == MANY
    assert [part.target for part in found[:2]] == ["results/part-00000.parquet", "results/part-00001.parquet"]
    assert list(listing([])()) == []


def test_parts_are_cut_while_the_archive_is_listed():
    archive = Fixed(MANY)
    found = ArchiveParts(archive, "results")()
    next(found)
    assert archive.taken == 8


def test_inputs_survive_their_way_to_an_actor():
    (part,) = listing(INPUTS)()
    assert inputs_of(parts.Part(**json.loads(json.dumps(asdict(part))))) == INPUTS


def test_the_mark_of_a_part_sees_every_input():
    (part,) = listing(INPUTS)()
    changed = [*INPUTS[:-2], INPUTS[-1]], [*INPUTS[:-1], Input("", "6")], [*INPUTS[1:], INPUTS[0]]
    assert len({part.mark, *(next(listing(inputs)()).mark for inputs in changed)}) == 4
    assert len(part.mark) == 16


def test_the_fingerprint_sees_every_setting():
    marks = {parts.fingerprint("s3://a", {"size": 256}, "1.0"), parts.fingerprint("s3://a", {"size": 128}, "1.0")}
    assert len(marks) == 2
    assert parts.fingerprint("s3://a", {"size": 256}, "1.0") in marks


def test_a_run_is_completed_and_its_lines_are_in_order(complete, tmp_path):
    found = complete(INPUTS)
    (line,) = found.lines
    assert (line["target"], line["size"], line["mine"]) == ("results/part-00000.parquet", 7, 1)
    assert pq.read_table(tmp_path / line["target"]).column("id").to_pylist() == list("0123456")


def test_a_killed_run_continues_and_does_nothing_twice(complete, tmp_path, capsys):
    inputs = MANY[:400]
    with pytest.raises(KeyboardInterrupt):
        complete(inputs, stop_after=5)
    first = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()}
    assert len(first) == 6
    again = complete(inputs)
    assert "6 parts are done already; continuing" in capsys.readouterr().err
    assert sum(line["size"] for line in again.lines) == 400
    assert {name: (tmp_path / "results" / name).stat().st_mtime_ns for name in first} == first
    assert complete(inputs) == again


@pytest.mark.parametrize("changed", [MANY[1:400], MANY[:399], MANY[:401], MANY[:10]])
def test_a_changed_archive_is_reported(complete, changed):
    complete(MANY[:400])
    with pytest.raises(MismatchError, match="the archive has changed since this run began"):
        complete(changed)


def test_an_archive_that_only_grew_new_parts_continues(complete):
    whole = [8] * 8 + [64] * 2
    complete(MANY[: sum(whole)])
    assert [line["size"] for line in complete(MANY[: sum(whole) + 3]).lines] == [*whole, 3]


def test_a_part_that_is_lost_each_time_is_tried_carefully_and_then_named(complete, capsys):
    with pytest.raises(
        BoneageError, match="70 inputs in 9 parts were listed, but 62 in 8 are committed; the workers of 1 parts"
    ):
        complete(MANY[:70], drop=["results/part-00003.parquet"])
    assert capsys.readouterr().err.count("their inputs are tried one by one") == 1 + parts.CAREFUL_ROUNDS


def test_only_parts_that_were_lost_are_worked_on_again_and_carefully(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "offered_cpus", lambda: 2)
    monkeypatch.setattr(parts, "choose_resources", lambda *_: Resources(1, 0.0, 1, 2))
    rounds = []

    def lines(todo, _):
        rows = list(todo())
        rounds.append([(row["target"][-10:-8], row["careful"]) for row in rows if "line" not in row])
        lost = {0: "03", 1: "03", 2: ""}[len(rounds) - 1]
        yield from (
            line for line in work(str(tmp_path), lambda: rows) if not lost or lost not in line.get("target", "")
        )

    found = parts.complete(parts.PartsJob("score", str(tmp_path), listing(MANY[:40]), ("results",)), lines)
    assert sum(line["size"] for line in found.lines) == 40
    assert rounds == [[(f"{k:02d}", False) for k in range(5)], [("03", True)], [("03", True)]]


def test_lost_parts_are_tried_again_by_workers_that_share_no_predictor(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "offered_cpus", lambda: 2)
    chosen = []
    monkeypatch.setattr(parts, "choose_resources", lambda *how: chosen.append(how[1:]) or Resources(1, 0.0, 1, 2))

    def lines(todo, _):
        lost = "part-00003" if len(chosen) == 1 else "none"
        yield from (line for line in work(str(tmp_path), todo) if lost not in line.get("target", ""))

    job = parts.PartsJob("score", str(tmp_path), listing(MANY[:40]), ("results",), True, two_stages=True)
    assert sum(line["size"] for line in parts.complete(job, lines).lines) == 40
    assert chosen == [(True, True), (True, False)]


def test_a_commit_that_fails_for_a_while_ends_no_run(tmp_path, monkeypatch):
    pauses, fails = [], [True, True]
    write = storage.write_bytes

    def sometimes(uri, data):
        if fails and fails.pop():
            raise StorageError("unreadable", f"{uri}: 503 SlowDown")
        write(uri, data)

    monkeypatch.setattr(storage, "write_bytes", sometimes)
    monkeypatch.setattr(parts.time, "sleep", pauses.append)
    before = repeats().get("commits", 0)
    line = parts.commit(str(tmp_path), one(), pa.table({"a": [1, 2]}), {})
    assert pauses == [1.0, 5.0]
    assert repeats()["commits"] - before == 2
    assert parts.committed(str(tmp_path), "results") == {one().target: line}
    fails += [True] * 4
    with pytest.raises(StorageError, match="503 SlowDown"):
        parts.commit(str(tmp_path), one(), pa.table({"a": [1, 2]}), {})
    assert pauses == [1.0, 5.0, *parts.COMMIT_PAUSES]


def test_a_full_disk_ends_the_run_with_the_reason_and_leaves_whole_parts_only(tmp_path, monkeypatch):
    first = parts.commit(str(tmp_path), one("results/part-00000.parquet"), pa.table({"a": [1, 2]}), {})
    monkeypatch.setattr(parts, "COMMIT_PAUSES", (0.0,))

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Guarded, "write", lambda self, data: _translated(self, full, data))
        with pytest.raises(StorageError, match=r"part-00001.parquet: no space is left on the device"):
            parts.commit(str(tmp_path), one(), pa.table({"a": [1, 2]}), {})
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["part-00000.parquet"]
    again = parts.commit(str(tmp_path), one(), pa.table({"a": [1, 2]}), {})
    assert parts.committed(str(tmp_path), "results") == {first["target"]: first, again["target"]: again}


def _translated(file, action, data):
    with translated(file._uri):
        return action(file, data)


def test_a_part_whose_file_is_not_there_is_missed_although_its_line_came(complete, tmp_path, monkeypatch):
    def vanish(out, part, table, line):
        return {"target": part.target, "mark": part.mark, "size": part.size, **line}

    monkeypatch.setattr(parts, "commit", vanish)
    with pytest.raises(
        BoneageError, match=r"9 of 9 parts that workers reported are not in .*part-00000.*object storage"
    ):
        complete(MANY[:70])


def test_a_finished_run_knows_whether_its_archive_changed(complete):
    marks = complete(INPUTS).marks
    parts.check_unchanged(listing(INPUTS), marks)
    with pytest.raises(MismatchError, match="its listing"):
        parts.check_unchanged(listing(INPUTS[1:]), marks)


def test_an_empty_archive_is_reported_before_anything_is_written():
    parts.check_not_empty(listing(INPUTS), "s3://site")
    with pytest.raises(NoUsableInputError, match="s3://site"):
        parts.check_not_empty(listing([]), "s3://site")


def one(name="results/part-00001.parquet"):
    return parts.Part(name, "[]", 2)


def test_a_committed_part_holds_its_rows_and_its_line(tmp_path):
    line = parts.commit(str(tmp_path), one(), pa.table({"a": [1, 2]}), {"rejected": 1})
    assert line == {"target": one().target, "mark": one().mark, "size": 2, "rejected": 1}
    assert parts.committed(str(tmp_path), "results") == {one().target: line}
    assert parts.committed(str(tmp_path), "absent") == {}
    assert pq.read_table(tmp_path / one().target).column("a").to_pylist() == [1, 2]


def test_only_whole_parts_count(tmp_path):
    parts.commit(str(tmp_path), one(), pa.table({"a": [1]}), {})
    (tmp_path / "results" / ".0123.part").write_bytes(b"half")
    (tmp_path / "results" / "notes.txt").write_text("mine")
    assert list(parts.committed(str(tmp_path), "results")) == [one().target]


def test_parts_and_claims_on_s3(s3_bucket):
    out = f"{s3_bucket}/out"
    assert parts.claim(out, "abc", overwrite=False, what="score") is False
    line = parts.commit(out, one(), pa.table({"a": [1]}), {"rows": 1})
    assert parts.claim(out, "abc", overwrite=False, what="score") is True
    assert parts.committed(out, "results") == {one().target: line}


def test_an_empty_place_is_claimed_and_the_same_run_continues(tmp_path):
    out = str(tmp_path / "new")
    assert parts.claim(out, "abc", overwrite=False, what="score") is False
    assert storage.read_json(f"{out}/{plan.PLAN}") == {"what": "score", "fingerprint": "abc"}
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
    parts.commit(str(mine), one(), pa.table({"a": [1]}), {})
    assert parts.claim(str(mine), "abd", overwrite=True, what="score") is False
    assert parts.committed(str(mine), "results") == {}
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(MismatchError, match="holds files that are not from boneage"):
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


def test_parts_of_large_images_are_short_so_that_none_holds_gigabytes():
    image = ImageConfig(size=2048, mask="file")
    archive = Fixed([Input(f"/films/{k}.png", str(k)) for k in range(100)])
    found = list(ArchiveParts(archive, "cases", most=inputs_within(image.record_bytes))())
    assert {part.size for part in found} == {8, 4}
    assert sum(part.size for part in found) == 100
    assert max(part.size for part in found) * image.record_bytes == PART_BYTES
    assert inputs_within(ImageConfig(size=256, mask="file").record_bytes) == LARGE_SIZE
