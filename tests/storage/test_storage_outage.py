"""S3 that is busy, breaks off, or is away for a while: the same bytes and the same listing, or an error, never less."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pytest
from s3proxy import proxy_of
from s3server import free_port, serve_s3

from boneage_ray import storage
from boneage_ray.archives import sums
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.read import read_input
from boneage_ray.runtime import parts
from boneage_ray.runtime.pages import read_pages
from boneage_ray.storage import outage, s3
from boneage_ray.storage.repeats import repeats


@pytest.fixture
def unsteady(s3_server, s3_bucket, monkeypatch):
    """A proxy in front of the test server, and a bucket with 30 objects."""
    for k in range(30):
        storage.write_bytes(f"{s3_bucket}/films/{k:02d}.png", b"%d" % k * 500)
    with proxy_of(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
        monkeypatch.setattr(outage, "PAUSES", (0.05, 0.1, 0.2))
        assert len(list(storage.list_files(f"{s3_bucket}/films"))) == 30
        yield proxy, s3_bucket


def first(count, failure, method):
    """The first requests of a method fail."""
    left = [failure] * count
    return lambda asked, path: left.pop() if left and asked == method else None


@pytest.mark.parametrize("failure", ["busy", "broken", "slow"])
def test_a_failure_that_passes_changes_nothing(unsteady, failure):
    proxy, bucket = unsteady
    proxy.fails = first(3, failure, "GET")
    listed = list(storage.list_files(f"{bucket}/films"))
    assert [info.size for info in listed] == [len(b"%d" % k) * 500 for k in range(30)]
    proxy.fails = first(2, failure, "GET")
    assert storage.read_bytes(f"{bucket}/films/07.png") == b"7" * 500
    proxy.fails = first(2, failure, "GET")
    assert storage.read_range(f"{bucket}/films/12.png", 2, 4) == b"1212"
    proxy.fails = first(2, failure, "PUT")
    storage.write_bytes(f"{bucket}/out/part", b"whole" * 100)
    proxy.fails = lambda method, path: None
    assert storage.read_bytes(f"{bucket}/out/part") == b"whole" * 100
    assert sum(found == failure for _, _, found in proxy.seen) == (4 if failure == "slow" else 9)


def test_every_kind_of_request_waits_for_a_busy_server(unsteady, monkeypatch):
    proxy, bucket = unsteady
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert storage.exists(f"{bucket}/films/00.png")  # a connection with these settings has answered

    def busy_first(request):
        before = repeats().get("requests", 0)
        left = ["busy"] * 3  # s3fs itself tries some kinds three times and others once
        proxy.fails = lambda method, path: left.pop() if left else None
        answer = request()
        assert left == []
        assert repeats()["requests"] > before
        return answer

    def read_stream():
        with storage.open_read(f"{bucket}/films/07.png") as stream:
            return stream.read()

    def write_stream():
        with storage.open_write(f"{bucket}/out/stream") as stream:
            stream.write(b"streamed")

    assert busy_first(lambda: storage.exists(f"{bucket}/films/00.png"))
    assert not busy_first(lambda: storage.exists(f"{bucket}/films/30.png"))
    assert len(busy_first(lambda: storage.list_folder(f"{bucket}/films"))) == 30
    assert busy_first(read_stream) == b"7" * 500
    busy_first(write_stream)
    assert storage.read_bytes(f"{bucket}/out/stream") == b"streamed"
    busy_first(lambda: storage.delete_tree(f"{bucket}/out"))
    assert storage.is_empty(f"{bucket}/out")


@pytest.mark.parametrize("failure", ["busy", "broken"])
def test_a_failure_that_stays_is_an_error_and_never_a_short_answer(unsteady, failure, refusal, monkeypatch):
    proxy, bucket = unsteady
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert len(list(storage.list_files(f"{bucket}/films"))) == 30
    proxy.fails = lambda method, path: failure
    assert refusal(lambda: list(storage.list_files(f"{bucket}/films")))[0] == "unreadable"
    assert refusal(storage.read_bytes, f"{bucket}/films/07.png")[0] == "unreadable"


def test_a_server_that_is_away_for_a_while_is_waited_for(s3_environment, tmp_path, monkeypatch, refusal):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(outage, "PAUSES", (0.2, 0.5, 6.0))
    port, folder = free_port(), tmp_path / "buckets"
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    started = time.monotonic()
    assert "no connection" in refusal(storage.read_bytes, "s3://films/a")[1]
    assert time.monotonic() - started < 6  # it has never answered: a wrong address is not waited for
    with serve_s3(folder, port):
        storage.locate("s3://films").fs.call_s3("create_bucket", Bucket="films")
        storage.write_bytes("s3://films/a", b"1")
    stopped = threading.Event()

    def come_back():
        time.sleep(2)
        with serve_s3(folder, port):
            stopped.wait()

    server = threading.Thread(target=come_back)
    server.start()
    try:
        assert storage.read_bytes("s3://films/a") == b"1"
        storage.write_bytes("s3://films/b", b"22")
        assert [info.size for info in storage.list_files("s3://films")] == [1, 2]
    finally:
        stopped.set()
        server.join()
    monkeypatch.setattr(outage, "PAUSES", (0.1, 0.1, 0.1))
    assert "no connection" in refusal(storage.read_bytes, "s3://films/a")[1]
    monkeypatch.setattr(outage, "PAUSES", (60.0,))
    started = time.monotonic()
    assert "no connection" in refusal(storage.read_bytes, "s3://films/a")[1]
    assert time.monotonic() - started < 30  # the last one was waited for in vain


def test_the_folders_of_consoles_are_no_files(s3_environment):
    keys = [("p/", 0), ("p/a/", 0), ("p/a/1.png", 3), ("p/a/b/", 0), ("p/empty.png", 0)]

    class Listing:
        def call_s3(self, name, **request):
            return {
                "Contents": [{"Key": key, "Size": size, "ETag": f'"{key}"'} for key, size in keys],
                "IsTruncated": False,
            }

    assert list(s3.list_objects(Listing(), "bucket/p")) == [
        ("a/1.png", 3, '"p/a/1.png"'),
        ("empty.png", 0, '"p/empty.png"'),
    ]


def test_a_worker_that_starts_during_an_outage_waits_as_its_driver_does(unsteady, refusal, monkeypatch):
    proxy, bucket = unsteady
    monkeypatch.setattr(outage, "answered", set())  # as in a new process
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.fails = lambda method, path: "busy"
    asked = [len(proxy.seen)]
    assert refusal(storage.read_bytes, f"{bucket}/films/07.png")[0] == "unreadable"
    asked.append(len(proxy.seen))
    s3.expect_answers()
    assert refusal(storage.read_bytes, f"{bucket}/films/07.png")[0] == "unreadable"
    assert len(proxy.seen) - asked[1] == 4 * (asked[1] - asked[0])


@pytest.fixture
def no_sums_are_known(monkeypatch):
    monkeypatch.setattr(sums, "_with_sums", set())
    monkeypatch.setattr(sums, "_unlike", Counter())


def film(bucket, number):
    """An object as an archive lists it."""
    return next(item for item in FilesArchive(f"{bucket}/films").inputs() if item.uri.endswith(f"/{number:02d}.png"))


@pytest.mark.usefixtures("no_sums_are_known")
def test_an_input_with_wrong_bytes_of_the_right_length_is_read_again_or_has_a_row(unsteady):
    proxy, bucket = unsteady
    item = film(bucket, 17)
    assert len(item.version.strip('"')) == 32
    proxy.fails = first(1, "wrong", "GET")
    assert read_input(item) == b"17" * 500
    proxy.fails = lambda method, path: "wrong" if method == "GET" else None
    problem = read_input(item)
    assert (problem.step, problem.reason) == ("read", "unreadable")
    assert "other bytes each time" in problem.message


@pytest.mark.usefixtures("no_sums_are_known")
def test_etags_that_are_no_sums_refuse_nothing_and_cost_some_more_reads(unsteady):
    proxy, bucket = unsteady
    item = replace(film(bucket, 17), version='"' + "0" * 32 + '"')
    proxy.seen.clear()
    assert [read_input(item) for _ in range(10)] == [b"17" * 500] * 10
    assert len(proxy.seen) == 8 * 2 + 2
    assert read_input(replace(item, version='"0123-4"')) == b"17" * 500
    # Where sums were seen, an object that was replaced since it was listed does not end the checks.
    sums._unlike.clear()
    assert read_input(film(bucket, 18)) == b"18" * 500
    read_input(item)
    assert not sums._unlike


def test_committed_rows_with_wrong_bytes_are_read_again_or_are_an_error(unsteady, refusal):
    proxy, bucket = unsteady
    table = pa.table({"age": list(range(5000)), "image": [os.urandom(40) for _ in range(5000)]})
    parts.commit(f"{bucket}/out", parts.Part("part-0.parquet", "[]", 5000), table, {})
    uri = f"{bucket}/out/part-0.parquet"
    proxy.fails = first(1, "wrong", "GET")
    assert read_pages(uri).equals(table)
    proxy.fails = lambda method, path: "wrong" if method == "GET" else None
    assert refusal(read_pages, uri)[0] == "unreadable"
