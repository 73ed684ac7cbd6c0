"""What is decided before Ray is asked; the rest is tested end to end in pipelines/."""

from __future__ import annotations

import pickle

import pytest

from boneage_ray.cluster import Failure, connect, first_cause, joins
from boneage_ray.errors import BoneageError, ExitCode, MismatchError, StorageError, UsageError
from boneage_ray.training.driver import resources_per_worker


@pytest.mark.parametrize("text", ["abc", "0", "-2", "1.5"])
def test_a_wrong_number_of_cpus_is_told(text, monkeypatch):
    monkeypatch.setenv("BONEAGE_CPUS", text)
    with pytest.raises(UsageError, match=f"BONEAGE_CPUS={text}"):
        connect()


def test_asked_cpus_mean_a_ray_of_ones_own(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.delenv("BONEAGE_CPUS", raising=False)
    assert joins()
    monkeypatch.setenv("BONEAGE_CPUS", "2")
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
