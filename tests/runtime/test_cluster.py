"""Decisions that need no Ray, and failures of workers; the rest is tested end to end in pipelines/."""

from __future__ import annotations

import os
import pickle
import signal
import time
from functools import partial

import pytest
import ray
from s3server import free_port

from boneage_ray.errors import BoneageError, ExitCode, MismatchError, StorageError, UsageError
from boneage_ray.runtime import address
from boneage_ray.runtime.cluster import Failure, PartLostError, Resources, connect, first_cause, joins, run_parts
from boneage_ray.training.driver import resources_per_worker


@pytest.mark.parametrize("text", ["abc", "0", "-2", "1.5"])
def test_a_wrong_number_of_cpus_is_refused(text, monkeypatch):
    monkeypatch.setenv("BONEAGE_CPUS", text)
    with pytest.raises(UsageError, match=f"BONEAGE_CPUS={text}"):
        connect()


def test_asked_cpus_mean_a_ray_of_ones_own(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.delenv("BONEAGE_CPUS", raising=False)
    assert joins()
    monkeypatch.setenv("BONEAGE_CPUS", "2")
    assert not joins()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("nonsense", "HOST:PORT is needed"),
        ("10.0.0.1:1x", "HOST:PORT is needed"),
        ("ray://10.0.0.1:10001", "a command joins a cluster from inside"),
        ("http://10.0.0.1:8265", "`boneage submit --address"),
    ],
)
def test_an_address_that_cannot_be_joined_is_refused_with_the_way_to_mend_it(asked, said, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # another test may have left Ray running
    monkeypatch.setenv("RAY_ADDRESS", asked)
    monkeypatch.delenv("BONEAGE_CPUS", raising=False)
    with pytest.raises(UsageError, match=said):
        connect()


def test_where_nothing_listens_a_command_ends_with_the_reason(monkeypatch, capsys):
    port = free_port()
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    monkeypatch.delenv("BONEAGE_CPUS", raising=False)
    monkeypatch.setattr(address, "REACH_SECONDS", 0.5)
    with pytest.raises(
        UsageError, match=f"no Ray answers at 127.0.0.1:{port}, as RAY_ADDRESS says: Connection refused"
    ):
        connect()
    assert f"waiting up to 0.5 s for Ray at 127.0.0.1:{port}" in capsys.readouterr().err


def test_local_means_a_ray_of_ones_own(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.delenv("BONEAGE_CPUS", raising=False)
    assert not joins()


@pytest.mark.parametrize(("cpus", "workers"), [(1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 4), (16, 2)])
def test_training_leaves_a_quarter_of_the_cpus_to_reads(cpus, workers):
    each = resources_per_worker(cpus, workers, gpu=False)["CPU"]
    assert each * workers <= 0.75 * cpus
    assert each <= 1.0


def test_a_failure_arrives_with_its_message_and_exit_code():
    error = Failure.of(MismatchError("another run")).as_error()
    assert (str(error), error.exit_code) == ("another run", ExitCode.MISMATCH)
    unknown = Failure.of(ZeroDivisionError("z")).as_error()
    assert str(unknown) == "internal error in a worker: ZeroDivisionError: z"
    assert unknown.exit_code == ExitCode.INTERNAL


def test_the_first_boneage_error_in_a_chain_is_the_cause():
    inner = StorageError("not_found", "no such bucket")
    outer = RuntimeError("task failed")
    outer.__cause__ = inner
    assert first_cause(outer) is inner
    assert isinstance(first_cause(inner), BoneageError)


def test_storage_errors_survive_the_way_back_from_a_worker():
    again = pickle.loads(pickle.dumps(StorageError("not_found", "s3://b/k: no such key")))
    assert (again.reason, str(again)) == ("not_found", "s3://b/k: no such key")


def rows_of(folder, count, fail_at=None):
    """A source of rows that notes in `folder` how many rows it has yielded."""
    for k in range(count):
        if k == fail_at:
            raise MismatchError("the listing broke off")
        (folder / f"listed-{k}").touch()
        yield {"number": k}
    yield {"line": {"listed": count}}


class Doubler:
    """Doubles a number, and notes how far the listing was at the first one."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, row):
        if row["number"] == 13:
            raise ZeroDivisionError("thirteen")
        return {"number": row["number"], "double": 2 * row["number"]}


@pytest.mark.ray
def test_every_part_is_done_once_and_other_lines_pass_through(local_ray, tmp_path):
    rows = partial(rows_of, tmp_path, 12)
    found = list(run_parts(rows, Doubler, {"folder": tmp_path}, Resources(2, 0.0, 1, 8)))
    assert [line for line in found if "listed" in line] == [{"listed": 12}]
    numbers = sorted((line for line in found if "number" in line), key=lambda line: line["number"])
    assert numbers == [{"number": k, "double": 2 * k} for k in range(12)]


def endless(folder):
    """Lists for longer than any test waits."""
    for k in range(100_000):
        time.sleep(0.02)
        yield {"number": k % 10}


@pytest.mark.ray
def test_work_starts_before_the_listing_ends(local_ray, tmp_path):
    lines = run_parts(partial(endless, tmp_path), Doubler, {"folder": tmp_path}, Resources(1, 0.0, 1, 8))
    assert [next(lines)["double"] for _ in range(3)] == [0, 2, 4]
    lines.close()


@pytest.mark.ray
@pytest.mark.parametrize(
    ("count", "fail_at", "message"), [(20, None, "ZeroDivisionError: thirteen"), (9, 5, "the listing broke off")]
)
def test_what_fails_in_a_worker_or_in_the_listing_ends_the_run_with_its_own_message(
    local_ray, tmp_path, count, fail_at, message
):
    rows = partial(rows_of, tmp_path, count, fail_at)
    with pytest.raises(BoneageError, match=message):
        list(run_parts(rows, Doubler, {"folder": tmp_path}, Resources(1, 0.0, 1, 8)))


class Mortal:
    """A worker that is killed at one number, each time."""

    def __call__(self, row):
        if row["number"] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"number": row["number"]}


@pytest.mark.ray
def test_a_part_that_kills_its_worker_each_time_is_given_up_and_no_other(local_ray, tmp_path):
    rows = partial(rows_of, tmp_path, 9)
    found = list(run_parts(rows, Mortal, {}, Resources(2, 0.0, 1, 8)))
    assert {line["number"] for line in found if "number" in line} <= set(range(9)) - {3}
    assert len(found) >= 8  # one that waited behind it may have gone with it
    assert {"listed": 9} in found


class Hopeless:
    """A worker that gives one part up."""

    def __call__(self, row):
        if row["number"] == 3:
            raise PartLostError
        return {"number": row["number"]}


@pytest.mark.ray
def test_a_part_that_is_given_up_has_no_line_and_ends_nothing(local_ray, tmp_path):
    found = list(run_parts(partial(rows_of, tmp_path, 9), Hopeless, {}, Resources(2, 0.0, 1, 8)))
    assert sorted(line["number"] for line in found if "number" in line) == [0, 1, 2, 4, 5, 6, 7, 8]
    assert {"listed": 9} in found
