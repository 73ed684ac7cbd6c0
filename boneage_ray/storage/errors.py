"""Storage failures as readable messages; the only place where foreign errors become StorageErrors."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from boneage_ray.errors import Reason, StorageError
from boneage_ray.storage import outage, s3

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_KEYS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_NO_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)"
_REGION = "the bucket is in another region; set AWS_REGION to it"

_Cause = tuple[Reason, str]

# By the error code of the server's answer. The answer to a HEAD request has no body, so its code is only a number.
_BY_CODE: dict[str, _Cause] = {
    "NoSuchBucket": ("not_found", "there is no such bucket; check its name"),
    "NoSuchKey": ("not_found", "there is no such object"),
    "404": ("not_found", "there is no such object or bucket"),
    "InvalidAccessKeyId": ("permission_denied", f"the access key is unknown to the server; {_KEYS}"),
    "SignatureDoesNotMatch": ("permission_denied", f"the secret key is wrong; {_KEYS}"),
    "AccessDenied": ("permission_denied", f"access denied; {_KEYS}, and the permissions of this key"),
    "403": ("permission_denied", f"access denied; {_KEYS}, and the permissions of this key"),
    "ExpiredToken": ("permission_denied", "the session token has expired; renew AWS_SESSION_TOKEN"),
    "InvalidToken": ("permission_denied", "the session token is not valid; renew or unset AWS_SESSION_TOKEN"),
    "RequestTimeTooSkewed": ("permission_denied", "this machine's clock is wrong; set it"),
    "PermanentRedirect": ("unreadable", _REGION),
    "AuthorizationHeaderMalformed": ("unreadable", _REGION),
    "301": ("unreadable", _REGION),
}
# By the name of the error's class or of a base class, so that botocore is not imported for local paths.
_BY_CLASS: dict[str, _Cause] = {
    "NoCredentialsError": ("permission_denied", f"no credentials were found; {_NO_KEYS}"),
    "PartialCredentialsError": ("permission_denied", f"the credentials are incomplete; {_NO_KEYS}"),
    "ProfileNotFound": ("permission_denied", "there is no such profile; check AWS_PROFILE"),
    "EndpointConnectionError": (
        "unreadable",
        "no connection (refused, or no such host); check AWS_ENDPOINT_URL",
    ),
    "ConnectTimeoutError": (
        "unreadable",
        "no connection within the time limit; check AWS_ENDPOINT_URL and the network",
    ),
    "SSLError": ("unreadable", "no secure connection; check the endpoint's certificate and AWS_CA_BUNDLE"),
    "ReadTimeoutError": ("unreadable", "the server did not answer in time; try again"),
    "ResponseParserError": (
        "unreadable",
        "the server's answer is broken off or no answer of S3; check AWS_ENDPOINT_URL",
    ),
    "FileNotFoundError": ("not_found", "there is no such file or folder"),
    "NotADirectoryError": ("not_found", "a part of this path is a file, not a folder"),
    "FileExistsError": ("unreadable", "there is a file where a folder is needed"),
    "IsADirectoryError": ("unreadable", "this is a folder, not a file"),
    "PermissionError": ("permission_denied", "access denied; check the permissions of this path"),
    "TimeoutError": ("unreadable", "the storage did not answer in time; try again"),
}
# A path with one of these errors does not exist.
ABSENT = (errno.ELOOP, errno.ENAMETOOLONG)
_BY_ERRNO: dict[int | None, _Cause] = {
    errno.ELOOP: ("not_found", "this link leads to itself"),
    errno.ENAMETOOLONG: ("not_found", "this file name is too long"),
    errno.ENOSPC: ("unreadable", "no space is left on the device"),
    errno.EROFS: ("permission_denied", "the file system is read-only"),
}


def storage_exceptions() -> tuple[type[Exception], ...]:
    """The errors of the storage libraries that are loaded; others cannot occur."""
    kinds: list[type[Exception]] = [OSError]
    if "s3fs" in sys.modules:
        from aiohttp import ClientError as TransferError
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
        from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

        kinds += [BotoCoreError, ClientError, TransferError, ResponseParserError]
    return tuple(kinds)


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Turn storage errors of the body into a StorageError that names `uri`."""
    try:
        yield
    except storage_exceptions() as error:
        reason, cause = _explain(error)
        raise StorageError(reason, f"{_where(uri, error)}: {cause}") from error


def _where(uri: str, error: Exception) -> str:
    if uri.startswith(("s3://", "s3a://")):
        return f"{uri} (endpoint {s3.endpoint_name()})"
    file = error.filename if isinstance(error, OSError) else None
    # For a folder, name the file in it that failed.
    return file if isinstance(file, str) and file.startswith(f"{uri}/") else uri


def _explain(error: Exception) -> _Cause:
    # s3fs raises an OSError; its cause holds the server's own message, which is more precise.
    for link in [error.__cause__, error]:
        code = outage.error_code(link)
        if code in _BY_CODE:
            return _BY_CODE[code]
        if isinstance(link, OSError) and link.errno in _BY_ERRNO:
            return _BY_ERRNO[link.errno]
        for kind in type(link).__mro__:
            if kind.__name__ in _BY_CLASS:
                return _BY_CLASS[kind.__name__]
    return "unreadable", " ".join(f"{type(error).__name__}: {error}".split())


class Guarded(io.RawIOBase):
    """A file whose errors name `uri`. The opener of the file closes it."""

    def __init__(self, file: BinaryIO, uri: str) -> None:
        self._file, self._uri = file, uri

    def readable(self) -> bool:
        return self._file.readable()

    def writable(self) -> bool:
        return self._file.writable()

    def seekable(self) -> bool:
        return self._file.readable()

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with translated(self._uri):
            return self._file.seek(offset, whence)

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        with translated(self._uri):
            data = self._file.read(len(view))
        view[: len(data)] = data
        return len(data)

    def write(self, data: ReadableBuffer) -> int:
        with translated(self._uri):
            return self._file.write(data)
