"""Compressed tar files, unpacked once on each node, and then read in any order by all of its processes.

The first process that asks for a tar file unpacks it, in a thread and front to back, into an unnamed temporary file in TMPDIR.
The others open the same file through that process (/proc/PID/fd) and read what is there already. A small notice, which the
unpacking process holds locked, says where it is. When that process is killed the lock goes with it, and the next one starts anew.
An unnamed file leaves no remains: the kernel frees it with the last process that has it open, however that ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import tempfile
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

from boneage_ray import storage
from boneage_ray.archives.entry import MEBIBYTE, max_unpacked_bytes
from boneage_ray.archives.tars import UNPACK_ERRORS, unpacked
from boneage_ray.errors import InputProblem, Reason, StorageError
from boneage_ray.storage.errors import translated

_MOST = 64  # open at the same time, each with a few file descriptors
_PAUSES = (0.001, 0.02)  # seconds between two looks at a file that grows
_UNREACHABLE_SECONDS = 5.0  # so long a notice may lead nowhere before a process unpacks for itself

_End = InputProblem | StorageError


class Spool:
    """The unpacked bytes of one file, as far as they are there; thread-safe."""

    def __init__(self, uri: str) -> None:
        self._uri, self._lock = uri, threading.Lock()
        self._notice = _notice_of(uri)
        self._source: _Unpacking | _Shared | None = self._found()

    def read(self, offset: int, size: int) -> bytes:
        """`size` unpacked bytes from `offset` on, waited for. Raises `InputProblem` if there are fewer, and `StorageError`."""
        if offset + size > max_unpacked_bytes():
            need = "raise BONEAGE_MAX_UNPACKED_GB, or unpack the tar file"
            raise InputProblem(
                "read", "too_large", f"the entry ends after {max_unpacked_bytes()} unpacked bytes; {need}"
            )
        pause, longest = _PAUSES
        while True:
            with self._lock:
                if self._source is None or self._source.abandoned():
                    self._source = self._found()
                source = self._source
            end = source.end()  # before the length, which grows no more after it
            if os.fstat(source.copy).st_size >= offset + size:
                return os.pread(source.copy, size, offset)
            if end is not None:
                with self._lock:
                    if self._source is source and source.may_be_tried_again:
                        self._source = None
                raise end
            time.sleep(pause)
            pause = min(2 * pause, longest)

    def _found(self) -> _Unpacking | _Shared:
        """The file that another process of this node unpacks, else one that this process unpacks from now."""
        until = time.monotonic() + _UNREACHABLE_SECONDS
        while self._notice and time.monotonic() < until:
            notice = os.open(self._notice, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if _locked(notice):
                if _is_at(notice, self._notice):
                    return _Unpacking(self._uri, notice, self._notice)
            elif (copy := _opened(told := _told(notice))) is not None:
                return _Shared(copy, notice, told["file"])
            os.close(notice)
            time.sleep(_PAUSES[0])
        return _Unpacking(self._uri)


class _Shared:
    """What another process unpacks; `copy` and `notice` are file descriptors."""

    may_be_tried_again = False

    def __init__(self, copy: int, notice: int, file: list[int]) -> None:
        self.copy, self._notice, self._file = copy, notice, file
        self._end: _End | None = None
        weakref.finalize(self, _close, copy, notice)

    def end(self) -> _End | None:
        """Why there is no more; None while it grows."""
        told = {} if self._end else _told(self._notice)
        if told.get("end") and told["file"] == self._file:
            self._end = _as_error(*told["end"])
        return self._end

    def abandoned(self) -> bool:
        """Whether the process that unpacked is gone before its end, or another one has the notice now."""
        if self.end() is not None:
            return False
        if _locked(self._notice):
            fcntl.flock(self._notice, fcntl.LOCK_UN)
            return self.end() is None  # it may have come to its end meanwhile
        return bool(_told(self._notice).get("file", self._file) != self._file)


@dataclass
class _Progress:
    """What the unpacking thread and the others of its process tell each other."""

    end: _End | None = None
    passing: bool = False
    unwanted: threading.Event = field(default_factory=threading.Event)


class _Unpacking:
    """What a thread of this process unpacks. `notice`: its locked file descriptor; without one no other process knows of it."""

    def __init__(self, uri: str, notice: int | None = None, place: Path | None = None) -> None:
        self._progress = _Progress()
        with translated(tempfile.gettempdir()), tempfile.TemporaryFile(buffering=0) as made:
            self.copy = os.dup(made.fileno())
        if notice is not None:
            about = os.fstat(self.copy)
            _tell(notice, {"pid": os.getpid(), "fd": self.copy, "file": [about.st_dev, about.st_ino]})
        # The thread has descriptors of its own, so that none of another file takes their number while it writes.
        own = os.dup(self.copy), None if notice is None else os.dup(notice)
        weakref.finalize(self, _leave, self._progress, self.copy, notice, place)
        threading.Thread(target=_unpack, args=(uri, *own, self._progress), name="unpacking", daemon=True).start()

    @property
    def may_be_tried_again(self) -> bool:
        """Whether the end is that of a storage which may answer later."""
        return self._progress.passing

    def end(self) -> _End | None:
        """As `_Shared.end`."""
        return self._progress.end

    def abandoned(self) -> bool:
        """Never: this process is here."""
        return False


def _unpack(uri: str, copy: int, notice: int | None, progress: _Progress) -> None:
    """Unpack until the end, the limit, or an error, which is noted."""
    end: _End | None = InputProblem("read", "internal_error", "the tar file could not be unpacked")
    try:
        with storage.open_read(uri) as file:
            end = _copied(unpacked(file), copy, progress)
    except StorageError as error:
        end, progress.passing = error, True
    finally:
        if notice is not None and progress.passing:
            fcntl.flock(notice, fcntl.LOCK_UN)  # another process may try
        elif notice is not None and end is not None:
            _tell(notice, _told(notice) | {"end": _as_plain(end)})
        progress.end = end
        _close(copy, *([] if notice is None else [notice]))


def _copied(stream: BinaryIO, copy: int, progress: _Progress) -> _End | None:
    """Copy what a stream unpacks to; why it ends, or None if nobody wants it any more. Raises `StorageError` of the stream."""
    length, limit = 0, max_unpacked_bytes()
    while length < limit and not progress.unwanted.is_set():
        try:
            # `read1` returns the bytes before damage; `read` would lose them.
            data = stream.read1(MEBIBYTE)  # type: ignore[attr-defined]
        except UNPACK_ERRORS as error:
            reason: Reason = "truncated" if isinstance(error, EOFError) else "unreadable"
            return InputProblem("read", reason, f"the tar file cannot be unpacked up to here: {error}")
        if not data:
            return InputProblem("read", "truncated", "the tar file ends within this entry")
        try:
            with translated(tempfile.gettempdir()):
                length += _written(copy, data, length)
        except StorageError as error:
            return StorageError(error.reason, f"{error}; a tar file is unpacked there: set TMPDIR to a disk with room")
    return InputProblem("read", "too_large", f"only {limit} bytes were unpacked") if length >= limit else None


def _written(copy: int, data: bytes, offset: int) -> int:
    done = 0
    while done < len(data):
        done += os.pwrite(copy, memoryview(data)[done:], offset + done)
    return done


def _notice_of(uri: str) -> Path | None:
    """Where it is said who unpacks this file, as it is now; None where that cannot be shared."""
    folder = _folder()
    version = next((info.version for info in storage.list_files(uri)), None)
    if folder is None or version is None:
        return None
    return folder / hashlib.sha256(f"{uri}\n{version}".encode(errors="surrogateescape")).hexdigest()[:32]


@lru_cache(maxsize=1)
def _folder() -> Path | None:
    """The folder for notices, which only this user may enter; None if another one has taken its name."""
    folder = Path(tempfile.gettempdir(), f"boneage-unpacked-{os.getuid()}")
    with translated(str(folder)):
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        return None
    for left in folder.iterdir():  # by processes that were killed
        with suppress(OSError):
            notice = os.open(left, os.O_RDWR | os.O_CLOEXEC)
            if _locked(notice):
                left.unlink()
            os.close(notice)
    return folder


def _locked(notice: int) -> bool:
    """Lock a notice for this process, unless another one has; the kernel unlocks it when the process ends."""
    try:
        fcntl.flock(notice, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(notice: int, place: Path) -> bool:
    """Whether an open notice is still the one that others find."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(notice), place.stat())
    return False


def _tell(notice: int, values: dict[str, Any]) -> None:
    data = json.dumps(values).encode()
    os.ftruncate(notice, os.pwrite(notice, data, 0))


def _told(notice: int) -> dict[str, Any]:
    """What a notice says; nothing while it is being written."""
    try:
        values: dict[str, Any] = json.loads(os.pread(notice, 2**16, 0))
    except ValueError:
        return {}
    return values


def _opened(told: dict[str, Any]) -> int | None:
    """The file that a notice tells of, opened; None if it is not there, or another one has its number."""
    try:
        copy = os.open(f"/proc/{int(told['pid'])}/fd/{int(told['fd'])}", os.O_RDONLY | os.O_CLOEXEC)
    except (KeyError, OSError):
        return None
    about = os.fstat(copy)
    if [about.st_dev, about.st_ino] == told["file"]:
        return copy
    os.close(copy)
    return None


def _as_plain(end: _End) -> tuple[Literal["storage", "read"], Reason, str]:
    return ("storage", end.reason, str(end)) if isinstance(end, StorageError) else ("read", end.reason, end.message)


def _as_error(kind: str, reason: Reason, message: str) -> _End:
    return StorageError(reason, message) if kind == "storage" else InputProblem("read", reason, message)


def _leave(progress: _Progress, copy: int, notice: int | None, place: Path | None) -> None:
    """What nobody in this process needs any more is unpacked no further."""
    progress.unwanted.set()
    if place is not None and not progress.passing:
        place.unlink(missing_ok=True)  # while it is locked: whoever opened it sees that it is not this one any more
    _close(copy, *([] if notice is None else [notice]))


def _close(*descriptors: int) -> None:
    for each in descriptors:
        os.close(each)


@lru_cache(maxsize=_MOST)
def _spool(process: int, uri: str) -> Spool:
    return Spool(uri)


_opening = threading.Lock()


def spool_of(uri: str) -> Spool:
    """The spool of a compressed tar file in this process."""
    with _opening:  # otherwise two threads would open it twice
        return _spool(os.getpid(), uri)
