"""S3 and compatible storage (Ceph, MinIO, rclone ...): connection from AWS_* variables, list, delete.

For facade.py only. `path` is always "bucket/key", as in s3fs. Errors are those of s3fs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from boneage_ray.errors import StorageError
from boneage_ray.storage import outage

if TYPE_CHECKING:
    from s3fs import S3FileSystem

PART_BYTES = 8 * 2**20  # one part of a multi-part upload, and the read-ahead of a stream

_ATTEMPTS = 4  # for a request to an unreachable or busy server: pauses of 7 s at most
_TRANSFER_ATTEMPTS = 3  # around that, for a transfer that was interrupted or throttled
_ENDPOINT = re.compile(r"https?://[^/@\s:]+(:\d+)?(/[^@\s]*)?|https?://\[[0-9a-fA-F:]+\](:\d+)?/?")
# Many servers other than AWS refuse the checksums that botocore adds by default. The variables are for pyarrow's
# own client and child processes, the client's options for an instance that is unpickled elsewhere.
_CHECKSUMS = (
    ("request_checksum_calculation", "AWS_REQUEST_CHECKSUM_CALCULATION"),
    ("response_checksum_validation", "AWS_RESPONSE_CHECKSUM_VALIDATION"),
)


@dataclass(frozen=True)
class _Settings:
    """The settings of one connection; the secrets stay out of tracebacks."""

    endpoint: str | None
    region: str | None
    profile: str | None
    attempts: int
    checksums: tuple[tuple[str, str], ...]
    key: str | None = field(repr=False)
    secret: str | None = field(repr=False)
    token: str | None = field(repr=False)


def _variable(*names: str) -> str | None:
    """The value of the first of these environment variables that is set and not empty."""
    return next((value for name in names if (value := os.environ.get(name))), None)


def endpoint() -> str | None:
    """The custom endpoint, or None for AWS itself."""
    return _variable("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def endpoint_name() -> str:
    """The endpoint for a message, without a password."""
    url = endpoint()
    if url is None:
        return f"AWS S3, region {_variable('AWS_REGION', 'AWS_DEFAULT_REGION') or 'not set'}"
    return re.sub(r"//[^/]*@", "//", url)


def filesystem() -> S3FileSystem:
    """The s3fs filesystem for the present environment; cheap, without a request.

    Without a key in the environment botocore searches AWS_PROFILE, shared files, web identity and the role of
    the machine. Sets the two checksum variables if there is a custom endpoint and they are not set.
    """
    url = endpoint()
    if url is not None and not _ENDPOINT.fullmatch(url):
        need = "AWS_ENDPOINT_URL must be http://host:port or https://host, without a user or password"
        raise StorageError("unreadable", f"{need}; it is {endpoint_name()}")
    checksums = [(option, os.environ.setdefault(name, "when_required")) for option, name in _CHECKSUMS if url]
    key, secret = _variable("AWS_ACCESS_KEY_ID"), _variable("AWS_SECRET_ACCESS_KEY")
    settings = _Settings(
        endpoint=url,
        region=_variable("AWS_REGION", "AWS_DEFAULT_REGION") or ("us-east-1" if url else None),
        profile=None if key or secret else _variable("AWS_PROFILE"),
        attempts=int(_variable("AWS_MAX_ATTEMPTS") or _ATTEMPTS),
        checksums=tuple(checksums),
        key=key,
        secret=secret,
        token=_variable("AWS_SESSION_TOKEN") if key else None,
    )
    return _connect(os.getpid(), settings)


@cache
def _connect(process: int, settings: _Settings) -> S3FileSystem:
    # This cache, not that of s3fs: a forked child must make its own connections, but never close those that it
    # inherited. Closing takes the sockets out of the epoll that it shares with its parent, which then hangs.
    from boneage_ray.storage.patient_s3 import PatientS3FileSystem

    config: dict[str, Any] = {
        "retries": {"mode": "standard", "total_max_attempts": settings.attempts},
        "connect_timeout": 3,
        "read_timeout": 30,
        "max_pool_connections": 64,
        **({"s3": {"addressing_style": "path"}} if settings.endpoint else {}),
        **dict(settings.checksums),
    }
    fs = PatientS3FileSystem(
        key=settings.key,
        secret=settings.secret,
        token=settings.token,
        endpoint_url=settings.endpoint,
        client_kwargs={"region_name": settings.region} if settings.region else {},
        config_kwargs=config,
        default_block_size=PART_BYTES,
        fixed_upload_size=True,  # some servers require all parts but the last to have one size
        use_listings_cache=False,
        skip_instance_cache=True,
        **({"profile": settings.profile} if settings.profile else {}),
    )
    fs.retries = _TRANSFER_ATTEMPTS
    return fs


def close_all() -> None:
    """Forget all connections; each is closed when it is no longer used."""
    _connect.cache_clear()


def expect_answers() -> None:
    """Treat the endpoint as one that has answered before: for workers, whose driver has listed and written there.

    A worker that starts during an outage would take the endpoint for a wrong one otherwise.
    """
    outage.answered.add(endpoint() or "")


def _pages(fs: S3FileSystem, path: str) -> Iterator[list[dict[str, Any]]]:
    """The objects below a prefix, page by page, in the byte order of their keys."""
    bucket, _, key = path.partition("/")
    request = {"Bucket": bucket, "Prefix": f"{key}/" if key else ""}
    while True:
        page = fs.call_s3("list_objects_v2", **request)
        yield page.get("Contents", [])
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def list_objects(fs: S3FileSystem, path: str) -> Iterator[tuple[str, int, str | None]]:
    """(name, bytes, ETag) of the objects below a prefix, or of the one at `path`; the name is relative to `path`.

    Empty folder objects are left out. Raises FileNotFoundError if nothing is there, not for an empty bucket.
    """
    start = len(path.partition("/")[2]) + 1 if "/" in path else 0
    nothing = True
    for page in _pages(fs, path):
        for item in page:
            nothing = False
            if item["Size"] or not item["Key"].endswith("/"):
                yield item["Key"][start:], item["Size"], item.get("ETag")
    if nothing and start:
        info = fs.info(path)
        yield "", info["size"], info.get("ETag")


def read_whole_object(fs: S3FileSystem, path: str) -> bytes:
    """One whole object in one request: without `max_concurrency` s3fs requests its size first, a second round trip."""
    return bytes(fs.cat_file(path, max_concurrency=1))


def write_whole_object(fs: S3FileSystem, path: str, data: bytes) -> None:
    """Write or replace one object; it appears whole."""
    fs.pipe_file(path, data, chunksize=PART_BYTES)


def read_object_range(fs: S3FileSystem, path: str, start: int, length: int) -> bytes:
    """Bytes of one object in one request; none beyond its end, where S3 returns an error."""
    if length == 0:
        return b""
    try:
        data: bytes = fs.cat_file(path, start=start, end=start + length)
    except OSError as error:
        if outage.error_code(error.__cause__) in ("InvalidRange", "416"):
            return b""
        raise
    return data


def delete_objects(fs: S3FileSystem, path: str) -> None:
    """Delete all objects below a prefix, and the object at `path` itself."""
    bucket, _, key = path.partition("/")
    for page in _pages(fs, path):
        if page:
            keys = [{"Key": item["Key"]} for item in page]
            answer = fs.call_s3("delete_objects", Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
            for refused in answer.get("Errors", []):
                raise PermissionError(f"{refused.get('Key')} was not deleted: {refused.get('Message')}")
    fs.call_s3("delete_object", Bucket=bucket, Key=key)
