"""Fixtures for all tests."""

from __future__ import annotations

import os
import sys
import uuid
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace

# Before anything imports Ray, which reads these once.
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "180", "WANDB_MODE": "offline"}
os.environ["HF_HUB_OFFLINE"] = "1"  # what needs the hub fails at once
# Before anything imports torch or OpenCV: processes that share the cores would only wait for each other's threads, and spin.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "OPENCV_FOR_THREADS_NUM": "1"}
# Read by the C library when a worker starts: memory that one model leaves is the next one's, not the kernel's to clear again.
os.environ |= {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30)}

import orthanc
import pytest
from s3server import SECRET_KEY, serve_s3

from boneage_ray import storage
from boneage_ray.errors import ExitCode, StorageError
from boneage_ray.runtime import lease
from boneage_ray.storage import s3


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One worker a core, at most four, for the whole suite; named files run in this process, because a worker takes seconds to
    start. `-n` decides otherwise."""
    named = config.args_source is config.ArgsSource.ARGS
    return 0 if named else min(4, len(os.sched_getaffinity(0)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file goes to one worker, so that its fixtures are made once; so do all tests that share the session's Ray."""
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    class WholeFiles(LoadGroupScheduling):
        def _split_scope(self, nodeid):
            return super()._split_scope(nodeid).partition("::")[0]

    return WholeFiles(config, log)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """Tests that start a Ray of their own name their group themselves."""
    for item in items:
        if item.get_closest_marker("ray") and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group("ray"))


@pytest.fixture(autouse=True)
def no_lease_is_left():
    """A test that claims a place without the console around it ends like a command: without a lease."""
    yield
    lease.release_all()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """A running S3 server: `endpoint`, and `environment`, the AWS_* variables that reach it."""
    from botocore.loaders import JSONFileLoader

    with serve_s3(tmp_path_factory.mktemp("s3") / "buckets") as server, pytest.MonkeyPatch.context() as patch:
        # Every test makes connections of its own, and each would parse the same megabytes of what AWS offers.
        load = cache(JSONFileLoader().load_file)
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: load(path))
        yield server


@pytest.fixture
def s3_environment(s3_server, monkeypatch):
    """Point the AWS_* variables to the test server; changes end with the test."""
    storage_sets = ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")
    for name in storage_sets:
        monkeypatch.setenv(name, "")  # only a patched variable is restored
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    yield s3_server
    lease.release_all()
    s3.close_all()


@pytest.fixture
def s3_bucket(s3_environment):
    """The URI of a new, empty bucket."""
    uri = f"s3://bucket-{uuid.uuid4().hex[:12]}"
    location = storage.locate(uri)
    location.fs.call_s3("create_bucket", Bucket=location.path)
    return uri


@pytest.fixture
def one_thread():
    """One thread, so that sums have one order and equal runs are equal to the last bit."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def real_data():
    """The folder of real radiographs; skips without it."""
    folder = Path(os.environ.get("BONEAGE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.exists():
        pytest.skip(f"no real radiographs at {folder} (BONEAGE_TEST_DATA)")
    return folder


@pytest.fixture
def refusal():
    """refusal(action, *arguments) is the (reason, message) of the StorageError that the action must raise."""

    def catch(action, *arguments):
        with pytest.raises(StorageError) as caught:
            action(*arguments)
        assert caught.value.exit_code == ExitCode.USAGE
        assert SECRET_KEY not in str(caught.value)
        return caught.value.reason, str(caught.value)

    return catch


@pytest.fixture
def recorded(monkeypatch):
    """What metrics record, without a Ray: (name, value, *values of the labels) in order; a sum of counters by name and labels."""
    from boneage_ray.runtime import metrics

    class Records(list):
        def totals(self):
            sums = Counter()
            for name, value, *labels in self:
                sums[name, *labels] += value
            return dict(sums)

    records = Records()

    def instrument(metric):
        def record(value, tags):
            records.append((metric.name, value, *tags.values()))

        return SimpleNamespace(inc=record, set=record, observe=record)

    monkeypatch.setattr(metrics.Metric, "_instrument", instrument)
    return records


@pytest.fixture(scope="session")
def local_ray(s3_server):
    """One Ray for the whole session: four logical CPUs on however many there are. Its workers reach S3 and PACS."""
    import ray

    from boneage_ray.runtime import cluster, runs

    with pytest.MonkeyPatch.context() as patch:
        reach_pacs = {"BONEAGE_DICOMWEB_USER": orthanc.USER, "BONEAGE_DICOMWEB_PASSWORD": orthanc.PASSWORD}
        for name, value in {**s3_server.environment, **reach_pacs}.items():
            patch.setenv(name, value)
        patch.setenv("RAY_metrics_report_interval_ms", "2000")  # tests that scrape the metrics ports wait for it
        # Ray's workers find what tests hand to them, also where the driver is a worker of pytest-xdist.
        ours = [path for path in sys.path if path.startswith(str(Path(__file__).parent))]
        patch.setenv("PYTHONPATH", os.pathsep.join([*ours, os.environ.get("PYTHONPATH", "")]))
        cpus = cluster.connect(num_cpus=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "disconnect", lambda: None)  # it outlives the commands that tests run in this process
        yield cpus
    ray.shutdown()


def pytest_make_parametrize_id(val):
    """Bytes are no names: a compressed file holds the time, and workers of pytest-xdist must collect the same ids."""
    return f"{len(val)} bytes" if isinstance(val, bytes) and len(val) > 16 else None
