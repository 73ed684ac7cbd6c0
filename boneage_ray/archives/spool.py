"""Compressed tar files, unpacked once per process as far as needed, and then read in any order.

They are unpacked into TMPDIR, with room for the unpacked files of each process.
"""

from __future__ import annotations

import io
import os
import tempfile
import threading
import weakref
from contextlib import ExitStack
from functools import lru_cache
from typing import cast

from boneage_ray import storage
from boneage_ray.archives.entry import MEBIBYTE, max_unpacked_bytes
from boneage_ray.archives.tars import UNPACK_ERRORS, unpacked
from boneage_ray.errors import InputProblem, Reason
from boneage_ray.storage.errors import translated

_MOST = 64  # open at the same time, each with two file descriptors


class Spool:
    """The unpacked bytes of one file, in an unnamed temporary file that grows as needed; thread-safe."""

    def __init__(self, uri: str) -> None:
        self._uri, self._lock, self._length = uri, threading.Lock(), 0
        with ExitStack() as stack:
            file = stack.enter_context(storage.open_read(uri))
            self._stream = cast(io.BufferedReader, unpacked(file))
            with translated(tempfile.gettempdir()):
                self._copy = stack.enter_context(tempfile.TemporaryFile(buffering=0))
            # Both files are closed however this object ends.
            weakref.finalize(self, stack.pop_all().close)

    def read(self, offset: int, size: int) -> bytes:
        """`size` unpacked bytes from `offset` on. Raises `InputProblem` if there are fewer."""
        with self._lock:
            self._grow(offset + size)
        if self._length < offset + size:
            raise InputProblem("read", "truncated", "the tar file ends within this entry")
        return os.pread(self._copy.fileno(), size, offset)

    def _grow(self, length: int) -> None:
        if length > max_unpacked_bytes():
            need = "raise BONEAGE_MAX_UNPACKED_GB, or unpack the tar file"
            raise InputProblem(
                "read", "too_large", f"the entry ends after {max_unpacked_bytes()} unpacked bytes; {need}"
            )
        while self._length < length:
            try:
                # `read1` returns the bytes before damage; `read` would lose them.
                data = self._stream.read1(MEBIBYTE)
            except UNPACK_ERRORS as error:
                reason: Reason = "truncated" if isinstance(error, EOFError) else "unreadable"
                raise InputProblem("read", reason, f"the tar file cannot be unpacked up to here: {error}") from error
            if not data:
                return
            with translated(tempfile.gettempdir()):
                self._copy.write(data)
            self._length += len(data)


@lru_cache(maxsize=_MOST)
def _spool(process: int, uri: str) -> Spool:
    return Spool(uri)


_opening = threading.Lock()


def spool_of(uri: str) -> Spool:
    """The spool of a compressed tar file in this process."""
    with _opening:  # otherwise two threads would open it twice
        return _spool(os.getpid(), uri)
