"""The lease on OUT: one run writes, a killed one is followed at once or after a stated time, a superseded one writes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from boneage_ray import storage
from boneage_ray.errors import ExitCode, MismatchError
from boneage_ray.runtime import lease, parts, runs

PATIENCE = 0.9
HOLDER = """
import sys, time
from boneage_ray.runtime import parts
parts.claim(sys.argv[1], "abc", False, "score")
print("held", flush=True)
time.sleep(100)
"""


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setenv("BONEAGE_LEASE_SECONDS", str(PATIENCE))
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.05)


def of_another_machine(out, beat=3):
    """What a run on another machine left or renews in OUT."""
    values = {"owner": "theirs", "what": "score", "host": "far", "pid": 7, "machine": "x", "started": "1", "beat": beat}
    storage.write_json(f"{out}/{lease.LEASE}", values)


@pytest.fixture
def places(tmp_path, request):
    """OUT on disk, or on S3 (a server that ignores or knows conditions, whichever it is)."""
    return str(tmp_path / "out") if request.param == "disk" else f"{request.getfixturevalue('s3_bucket')}/out"


def test_one_of_many_writers_creates_the_file(tmp_path):
    uri = str(tmp_path / "new" / "lease.json")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda k: storage.write_new(uri, str(k).encode()), range(40)))
    assert made.count(True) == 1
    assert storage.read_text(uri) == str(made.index(True))


@pytest.mark.parametrize("places", ["disk", "s3"], indirect=True)
def test_a_lease_is_renewed_kept_by_its_process_and_released(places):
    hold = lease.hold(places, "score")
    assert lease.hold(places, "score") == hold == lease.holding(places)
    first = storage.read_json(f"{places}/lease.json")
    assert (first["what"], first["pid"], first["owner"]) == ("score", os.getpid(), hold.owner)
    time.sleep(0.8)
    assert storage.read_json(f"{places}/lease.json")["beat"] > first["beat"]
    hold.check()
    assert not storage.write_new(f"{places}/lease.json", b"{}")
    lease.release_all()
    assert storage.is_empty(places)
    assert lease.holding(places) == lease.Hold(places)


def test_a_run_that_lives_is_never_joined_and_one_that_was_killed_here_is_followed_at_once(
    tmp_path, capsys, monkeypatch
):
    out = str(tmp_path / "out")
    environment = {**os.environ, "BONEAGE_LEASE_SECONDS": "6"}
    with subprocess.Popen([sys.executable, "-c", HOLDER, out], stdout=subprocess.PIPE, env=environment) as holder:
        assert holder.stdout.readline() == b"held\n"
        monkeypatch.setenv("BONEAGE_LEASE_SECONDS", "6")
        with pytest.raises(
            MismatchError, match=f"being written by another run .boneage score, process {holder.pid} on"
        ) as found:
            parts.claim(out, "abc", False, "score")
        assert found.value.exit_code == ExitCode.MISMATCH
        assert "watching for up to 6 s" in capsys.readouterr().err
        holder.send_signal(signal.SIGKILL)
    started = time.monotonic()
    assert parts.claim(out, "abc", False, "score") is True
    assert time.monotonic() - started < 6
    assert storage.read_json(f"{out}/lease.json")["pid"] == os.getpid()


@pytest.mark.parametrize("places", ["disk", "s3"], indirect=True)
def test_a_lease_of_another_machine_is_taken_over_when_it_stands_still(places, capsys):
    of_another_machine(places)
    started = time.monotonic()
    hold = lease.hold(places, "score", print)
    assert time.monotonic() - started >= PATIENCE
    assert "process 7 on far" in capsys.readouterr().out
    hold.check()


def test_a_lease_of_another_machine_that_moves_is_respected(tmp_path):
    of_another_machine(tmp_path)
    threading.Timer(PATIENCE / 2, of_another_machine, (tmp_path, 4)).start()
    with pytest.raises(MismatchError, match=r"process 7 on far.*wait for its end or stop it"):
        lease.hold(str(tmp_path), "score")


def test_a_lease_that_is_released_meanwhile_is_free(tmp_path):
    of_another_machine(tmp_path)
    threading.Timer(PATIENCE / 2, (tmp_path / lease.LEASE).unlink).start()
    lease.hold(str(tmp_path), "score").check()


@pytest.mark.parametrize("torn", [b"", b'{"owner": "the', b"[]", b'{"pid": "x"}'])
def test_a_torn_lease_becomes_stale_like_any_other(tmp_path, torn):
    (tmp_path / lease.LEASE).write_bytes(torn)
    lease.hold(str(tmp_path), "score").check()


def test_a_superseded_run_commits_nothing_and_leaves_the_lease_of_the_other(tmp_path):
    out = str(tmp_path)
    hold, table = lease.hold(out, "score"), pa.table({"a": [1]})
    first, second = (parts.Part(f"results/part-0000{k}.parquet", "[]", 1, hold.owner) for k in range(2))
    parts.commit(out, first, table, {})
    of_another_machine(out)
    with pytest.raises(MismatchError, match=r"taken over by another run .*process 7 on far.*this run ends"):
        parts.commit(out, second, table, {})
    time.sleep(2 * PATIENCE / lease.BEATS + 0.1)
    lease.release_all()
    assert list(parts.committed(out, "results")) == [first.target]
    assert json.loads((tmp_path / lease.LEASE).read_text())["owner"] == "theirs"


def test_a_worker_that_sees_another_place_refuses_before_it_writes(tmp_path):
    hold = lease.hold(str(tmp_path / "shared"), "score")
    elsewhere = str(tmp_path / "of-this-node-alone")
    with pytest.raises(MismatchError, match=r"does not find the lease .*object storage \(s3://...\)"):
        parts.commit(elsewhere, parts.Part("results/part-00000.parquet", "[]", 1, hold.owner), pa.table({"a": [1]}), {})
    assert not (tmp_path / "of-this-node-alone").exists()


def test_overwriting_keeps_the_lease_and_a_claim_that_was_killed_at_its_start_can_be_given_again(tmp_path):
    out = str(tmp_path)
    (tmp_path / lease.LEASE).write_bytes(b"")
    assert parts.claim(out, "abc", False, "score") is False
    storage.write_text(f"{out}/results/old", "old")
    assert parts.claim(out, "abd", True, "score") is False
    lease.holding(out).check()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["lease.json", "plan.json"]


def test_a_second_hold_of_a_process_is_renewed_too(tmp_path):
    for k in range(20):  # the thread of the one before may be about to end
        lease.hold(str(tmp_path / str(k)), "score")
        if k < 19:
            lease.release_all()
    file = tmp_path / "19" / lease.LEASE
    before = json.loads(file.read_text())["beat"]
    time.sleep(2 * PATIENCE / lease.BEATS + 0.3)
    assert json.loads(file.read_text())["beat"] > before
    lease.release_all()


@pytest.mark.parametrize("places", ["disk", "s3"], indirect=True)
def test_overwriting_never_lets_go_of_the_lease_and_deletes_nothing_of_a_successor(places, monkeypatch):
    lease.hold(places, "score")
    storage.write_text(f"{places}/results/old.parquet", "old")
    deleted = storage.delete_tree
    entered = []

    def watched(uri):
        deleted(uri)
        entered.append(storage.write_new(f"{places}/{lease.LEASE}", b"mine"))

    monkeypatch.setattr(storage, "delete_tree", watched)
    lease.clear(places)
    assert entered == [False]
    monkeypatch.setattr(storage, "delete_tree", deleted)
    assert [info.uri.rpartition("/")[2] for info in storage.list_files(places)] == [lease.LEASE]
    of_another_machine(places)
    storage.write_text(f"{places}/results/new.parquet", "new")
    with pytest.raises(MismatchError, match="taken over by another run"):
        lease.clear(places)
    assert storage.read_text(f"{places}/results/new.parquet") == "new"
    lease.release_all()


def test_a_run_that_lost_its_lease_leaves_the_other_runs_record(tmp_path, capsys):
    out = str(tmp_path / "out")

    def body(run):
        lease.hold(out, "score")
        run.out = out
        of_another_machine(out)
        storage.write_json(f"{out}/run.json", {"run": "theirs"})
        lease.holding(out).check()

    assert runs.execute(runs.Run("score"), body) == ExitCode.MISMATCH
    assert storage.read_json(f"{out}/run.json") == {"run": "theirs"}
    assert "run.json was not written" in capsys.readouterr().err


def test_a_lease_that_can_neither_be_read_nor_made_is_no_endless_wait(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / lease.LEASE).symlink_to("/nowhere/at/all")
    with pytest.raises(MismatchError, match="can be neither read nor written"):
        lease.hold(str(tmp_path / "out"), "score")
