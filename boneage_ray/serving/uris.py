"""Radiographs that a request names instead of sending: only below the prefixes that the service was started with.

A prefix is a folder of this machine (an absolute path) or of S3. What is asked must begin with it, letter for letter, and go on
after a slash: below `s3://site/hands` is `s3://site/hands/1.png`, and not `s3://site/hands-2/1.png`. Nothing is decoded, so an
encoded dot is a letter of the name. `.`, `..` and empty parts are refused, and a local link must not lead out of the folder.
"""

from __future__ import annotations

import asyncio
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

from boneage_ray import storage
from boneage_ray.decoding.reasons import MEANINGS
from boneage_ray.errors import StorageError, UsageError
from boneage_ray.runtime.runs import say
from boneage_ray.serving.bodies import Room
from boneage_ray.serving.problems import ProblemError, UnavailableError
from boneage_ray.storage.errors import translated

READS_AT_ONCE = 8
_PREFIX = re.compile(r"(s3a?:/)?(/[^/]+)+/?")
_UNPRINTED = re.compile(r"[\x00-\x1f\x7f\\]")


def known_prefixes(prefixes: list[str]) -> tuple[str, ...]:
    """Prefixes that end in a slash. Raises `UsageError` for one that names no folder."""
    for prefix in prefixes:
        if not _PREFIX.fullmatch(prefix) or _is_odd((prefix.partition(":/")[2] or prefix).strip("/")):
            raise UsageError(f"--allow-uri {prefix}: give s3://BUCKET, s3://BUCKET/PREFIX or an absolute path")
    return tuple(f"{prefix.rstrip('/')}/" for prefix in prefixes)


def _is_odd(path: str) -> bool:
    """Whether a path has parts that mean something else than their letters."""
    parts = path.split("/")
    return bool(_UNPRINTED.search(path)) or any(part in ("", ".", "..") for part in parts)


class UriReader:
    """Reads what requests name. `prefixes`: as `known_prefixes` gives them; none means that nothing is read."""

    def __init__(self, prefixes: tuple[str, ...], limit_bytes: int, timeout_s: float) -> None:
        self.prefixes, self.limit_bytes, self.timeout_s = prefixes, limit_bytes, timeout_s
        self._threads = ThreadPoolExecutor(READS_AT_ONCE, "reading")

    async def read(self, uri: str, room: Room) -> bytes:
        """The bytes of a file. Raises 403, 413, 503, and 422 with the reason code of a file that cannot be read."""
        prefix = next((prefix for prefix in self.prefixes if uri.startswith(prefix)), None)
        if prefix is None or _is_odd(uri.removeprefix(prefix)):
            raise _not_allowed()
        reading = asyncio.get_running_loop().run_in_executor(self._threads, self._read, uri, prefix)
        try:
            data = await asyncio.wait_for(reading, self.timeout_s)
        except TimeoutError:
            raise UnavailableError(f"the storage did not answer within {self.timeout_s:g} s; try again") from None
        except StorageError as error:
            raise _unread(error) from None
        room.take(len(data))
        return data

    def _read(self, uri: str, prefix: str) -> bytes:
        if uri.startswith("/"):
            return storage.read_range(_inside(uri, prefix), 0, self.limit_bytes + 1)
        return storage.read_range(uri, 0, self.limit_bytes + 1)


def _inside(path: str, folder: str) -> str:
    """The file behind a local path, whose links stay in the folder. Raises 403, and `StorageError` where there is no file."""
    with translated(path):
        found = Path(path).resolve()
        if not found.is_relative_to(Path(folder).resolve()):
            raise _not_allowed()
        if not stat.S_ISREG(found.stat().st_mode):  # a pipe would be waited for without end
            raise StorageError("not_found", f"{path}: this is no file")
    return str(found)


def _not_allowed() -> ProblemError:
    return ProblemError(
        HTTPStatus.FORBIDDEN, "uri_not_allowed", "this service does not read there; its operator may with --allow-uri"
    )


def _unread(error: StorageError) -> ProblemError:
    """Says no more than the reason code: the text names endpoints and keys, which are for the operator."""
    say("a URI of a request could not be read", detail=str(error))
    if error.reason == "unreadable":
        return UnavailableError("the storage does not answer; try again")
    return ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, error.reason, MEANINGS[error.reason], "read")
