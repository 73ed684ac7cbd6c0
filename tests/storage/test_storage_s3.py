"""S3: requests, credentials, endpoints and failures, against a real server (rclone)."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from s3server import ACCESS_KEY, SECRET_KEY, free_port

from boneage_ray import storage

MEBIBYTE = 2**20


@pytest.fixture
def requests_to(s3_bucket):
    """Counts the requests that really leave for the bucket's server, by the name of the operation."""
    counts = Counter()
    events = storage.locate(s3_bucket).fs.s3.meta.events
    events.register("request-created.s3", lambda operation_name, **_: counts.update([operation_name]))
    return counts


def test_a_listing_asks_for_no_more_pages_than_are_read(s3_bucket, requests_to):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: storage.write_bytes(f"{s3_bucket}/many/{i:04d}", b""), range(1100)))
    requests_to.clear()
    listing = storage.list_files(f"{s3_bucket}/many")
    assert next(listing)[:3] == (f"{s3_bucket}/many/0000", 0, None)
    assert requests_to == {"ListObjectsV2": 1}
    assert [file.uri[-4:] for file in listing] == [f"{i:04d}" for i in range(1, 1100)]
    assert requests_to == {"ListObjectsV2": 2}
    storage.delete_tree(f"{s3_bucket}/many")
    assert requests_to == {"ListObjectsV2": 4, "DeleteObjects": 2, "DeleteObject": 1}
    assert storage.is_empty(s3_bucket)


def test_small_files_cost_one_request_each(s3_bucket, requests_to):
    storage.write_bytes(f"{s3_bucket}/a", b"1")
    assert storage.read_bytes(f"{s3_bucket}/a") == b"1"
    assert requests_to == {"PutObject": 1, "GetObject": 1}


def test_large_files_go_up_in_parts(s3_bucket, requests_to):
    data = os.urandom(MEBIBYTE) * 20
    storage.write_bytes(f"{s3_bucket}/whole", data)
    parts = {"CreateMultipartUpload": 1, "UploadPart": 3, "CompleteMultipartUpload": 1}
    assert requests_to == parts
    requests_to.clear()
    with storage.open_write(f"{s3_bucket}/streamed") as file:
        for start in range(0, len(data), MEBIBYTE):
            file.write(data[start : start + MEBIBYTE])
    assert requests_to == parts
    assert storage.read_bytes(f"{s3_bucket}/whole") == data
    assert storage.sha256(f"{s3_bucket}/streamed") == hashlib.sha256(data).hexdigest()


def test_an_abandoned_upload_is_aborted(s3_bucket, requests_to):
    with pytest.raises(KeyboardInterrupt), storage.open_write(f"{s3_bucket}/f") as file:
        file.write(b"x" * 9 * MEBIBYTE)
        raise KeyboardInterrupt
    assert requests_to == {"CreateMultipartUpload": 1, "UploadPart": 1, "AbortMultipartUpload": 1}
    assert not storage.exists(f"{s3_bucket}/f")


def test_an_empty_bucket_lists_nothing(s3_bucket):
    assert list(storage.list_files(s3_bucket)) == []
    assert storage.exists(s3_bucket)


def test_a_custom_endpoint_turns_the_new_checksums_off(s3_bucket, monkeypatch):
    names = ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")
    assert [os.environ[name] for name in names] == ["when_required", "when_required"]
    config = storage.locate(s3_bucket).fs.s3.meta.config
    assert config.request_checksum_calculation == "when_required"
    assert config.s3["addressing_style"] == "path"
    monkeypatch.setenv(names[0], "when_supported")
    assert storage.locate(s3_bucket).fs.s3.meta.config.request_checksum_calculation == "when_supported"


def test_without_an_endpoint_aws_itself_is_meant(s3_environment, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    client = storage.locate("s3://bucket").fs.s3
    assert client.meta.endpoint_url == "https://s3.eu-central-1.amazonaws.com"
    assert "AWS_REQUEST_CHECKSUM_CALCULATION" not in os.environ
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:2")
    assert storage.locate("s3://bucket").fs.s3.meta.endpoint_url == "http://127.0.0.1:2"


def test_a_profile_serves_when_no_keys_are_set(s3_bucket, tmp_path, monkeypatch, refusal):
    storage.write_bytes(f"{s3_bucket}/a", b"1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    keys = f"[clinic]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    (tmp_path / "credentials").write_text(keys)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "clinic")
    assert storage.read_bytes(f"{s3_bucket}/a") == b"1"
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert refusal(storage.read_bytes, f"{s3_bucket}/a")[1].endswith("no such profile; check AWS_PROFILE")


ACTIONS = {
    "read": storage.read_bytes,
    "write": lambda uri: storage.write_bytes(uri, b"1"),
    "stream": storage.sha256,
    "list": lambda uri: list(storage.list_files(uri)),
    "exists": storage.exists,
}


@pytest.mark.parametrize("action", ACTIONS)
def test_wrong_keys(action, s3_bucket, s3_server, monkeypatch, refusal):
    uri = f"{s3_bucket}/a"
    where = f"{uri} (endpoint {s3_server.endpoint}): "
    # A HEAD request is answered without a body, so it cannot say which half is wrong.
    silent = action in ("stream", "exists")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    reason, message = refusal(ACTIONS[action], uri)
    assert reason == "permission_denied"
    assert message.startswith(where + ("access denied" if silent else "the secret key is wrong"))
    assert "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in message
    assert "another-secret" not in message
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    reason, message = refusal(ACTIONS[action], uri)
    assert message.startswith(where + ("access denied" if silent else "the access key is unknown to the server"))


@pytest.mark.parametrize("action", ACTIONS)
def test_no_keys(action, s3_environment, monkeypatch, refusal):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    reason, message = refusal(ACTIONS[action], "s3://bucket/a")
    assert reason == "permission_denied"
    assert message.endswith(
        "the credentials are incomplete; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)"
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert refusal(ACTIONS[action], "s3://bucket/a") == (
        "permission_denied",
        f"s3://bucket/a (endpoint {s3_environment.endpoint}): no credentials were found; "
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)",
    )


@pytest.mark.parametrize("action", ["read", "write", "list"])
def test_wrong_bucket(action, s3_environment, refusal):
    assert refusal(ACTIONS[action], "s3://nobody-has-this/a") == (
        "not_found",
        f"s3://nobody-has-this/a (endpoint {s3_environment.endpoint}): there is no such bucket; check its name",
    )
    assert not storage.exists("s3://nobody-has-this")


def test_missing_object_and_missing_name(s3_bucket, s3_server, refusal):
    assert refusal(storage.read_bytes, f"{s3_bucket}/a") == (
        "not_found",
        f"{s3_bucket}/a (endpoint {s3_server.endpoint}): there is no such object",
    )
    assert refusal(storage.write_bytes, s3_bucket, b"")[1].endswith("is a bucket; add the name of an object")
    assert refusal(storage.locate, "s3://")[1] == "s3://: the bucket is missing; write s3://bucket/prefix"


def test_refused_connection_is_reported_soon(s3_environment, monkeypatch, refusal):
    endpoint = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    start = time.monotonic()
    assert refusal(storage.read_bytes, "s3://bucket/a") == (
        "unreadable",
        f"s3://bucket/a (endpoint {endpoint}): no connection (refused, or no such host); check AWS_ENDPOINT_URL",
    )
    assert time.monotonic() - start < 25  # given up at once, not after the 30 s that a silent server gets


@pytest.mark.parametrize("action", ["write", "list", "exists"])
def test_refused_connection_is_never_an_answer(action, s3_environment, monkeypatch, refusal):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert "no connection" in refusal(ACTIONS[action], "s3://bucket/a")[1]


@pytest.mark.parametrize("endpoint", ["minio:9000", "localhost", "ftp://a", "http://me:hush@localhost:9000"])
def test_an_endpoint_that_is_no_server(endpoint, s3_environment, monkeypatch, refusal):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    message = refusal(storage.read_bytes, "s3://bucket/a")[1]
    assert message.startswith("AWS_ENDPOINT_URL must be http://host:port or https://host")
    assert "hush" not in message


class UnsteadyServer(BaseHTTPRequestHandler):
    """Answers a read with one failure after the other, and then with the object."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        failure = self.server.failures.pop(0) if self.server.failures else None
        self.send_response(503 if failure == "busy" else 200)
        self.send_header("Content-Length", "0" if failure == "busy" else "6")
        self.end_headers()
        self.wfile.write({"busy": b"", "broken": b"who"}.get(failure, b"whole!"))
        self.close_connection = failure is not None

    def log_message(self, format, *args):
        pass


def test_transient_failures_are_retried_and_half_a_transfer_is_no_file(s3_environment, monkeypatch, refusal):
    with ThreadingHTTPServer(("127.0.0.1", 0), UnsteadyServer) as server:
        server.failures = ["busy", "broken", "busy"]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        assert storage.read_bytes("s3://bucket/a") == b"whole!"
        assert server.failures == []
        server.failures = ["broken"] * 20
        assert refusal(storage.read_bytes, "s3://bucket/a")[0] == "unreadable"
        server.shutdown()
        thread.join()


def _read_into(uri, queue):
    queue.put(storage.read_bytes(uri))


# Python 3.12 warns of a fork beside threads; that is what this test is about.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_makes_its_own_connection(s3_bucket):
    storage.write_bytes(f"{s3_bucket}/a", b"1")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_read_into, args=(f"{s3_bucket}/a", queue))
    process.start()
    assert queue.get(timeout=20) == b"1"
    process.join(20)
    assert process.exitcode == 0
    start = time.monotonic()
    assert storage.read_bytes(f"{s3_bucket}/a") == b"1"
    assert time.monotonic() - start < 25  # not disturbed: a request that hangs is given up after 30 s
