"""Local paths, for facade.py only. Errors are those of the operating system."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from boneage_ray.errors import Reason

ListingProblem = tuple[Reason, str]


class Listed(NamedTuple):
    """One listed file, as `facade.FileInfo` has it, with its name for its URI."""

    name: str
    size: int
    problem: ListingProblem | None = None
    version: str | None = None
    closed: bool = False


_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_DEEPEST = 200
_DEEP: ListingProblem = "unreadable", f"this folder is {_DEEPEST} folders deep and is not listed; move it further up"
# Why a subfolder cannot be listed although the rest can; other errors end the listing.
_DENIED: ListingProblem = "permission_denied", "this folder cannot be listed: access denied; check its permissions"
_CLOSED: dict[int | None, ListingProblem] = {
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.ENOENT: ("not_found", "this folder was removed during the listing"),
    errno.ENAMETOOLONG: ("unreadable", "this folder cannot be listed: its path is too long; move it further up"),
}


def absolute_path(path: str) -> Path:
    """The absolute path with links unresolved; "~/" is the home folder."""
    found = Path(path)
    if found.parts[:1] == ("~",):
        found = found.expanduser()
    return found.absolute()


def local_files(path: Path) -> Iterator[Listed]:
    """The files below a folder, or `path` itself; names are relative to it, versions are times in nanoseconds.

    A file that cannot be examined, such as a link to itself, is closed and counts 0 bytes; reading it raises the reason.
    """
    if path.is_dir():
        return _walk(path, "", ())
    return iter([_measured("", path.stat())])


def local_folder(path: Path) -> list[tuple[str, int]]:
    """(name, bytes) of the files and links to files directly in a folder."""
    with os.scandir(path) as entries:
        return [(entry.name, entry.stat().st_size) for entry in entries if _is_file(entry)]


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[Listed]:
    if len(above) == _DEEPEST:
        yield Listed(prefix.rstrip("/"), 0, _DEEP, closed=True)
        return
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        names = _names(folder) if here not in above else []
    except OSError as error:
        if not above or error.errno not in _CLOSED:
            raise
        yield Listed(prefix.rstrip("/"), 0, _CLOSED[error.errno], closed=True)
        return
    for name in names:
        if name.endswith("/"):
            yield from _walk(folder / name, f"{prefix}{name}", (*above, here))
        else:
            yield _state(f"{prefix}{name}", f"{folder}/{name}")


def _names(folder: Path) -> list[str]:
    """Names in the order of S3: by the bytes of the whole name, so "a.png" comes before "a/b.png"."""
    with os.scandir(folder) as entries:
        return sorted((entry.name + "/" * _is_folder(entry) for entry in entries), key=os.fsencode)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder without access
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _state(name: str, path: str) -> Listed:
    try:
        return _measured(name, Path(path).stat())
    except OSError:
        return Listed(name, 0, closed=True)


def _measured(name: str, status: os.stat_result) -> Listed:
    if stat.S_ISREG(status.st_mode):
        return Listed(name, status.st_size, version=str(status.st_mtime_ns))
    kind = next((kind for holds, kind in _KINDS if holds(status.st_mode)), "something else")
    return Listed(name, 0, ("unsupported_format", f"{kind}, not a file"))


def delete(path: Path) -> None:
    """Delete a file, a link, or a folder with its content."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
