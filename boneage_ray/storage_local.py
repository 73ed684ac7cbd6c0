"""Local paths, for storage.py only. Errors leave here as the operating system raises them."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path


def absolute(path: str) -> Path:
    """The absolute path, links kept as they are; "~/" is the home folder."""
    found = Path(path)
    if found.parts[:1] == ("~",):
        found = found.expanduser()
    return found.absolute()


def list_files(path: Path) -> Iterator[tuple[str, int]]:
    """(name, bytes) of the files below a folder, or of the file `path` itself; names are relative to it."""
    if path.is_dir():
        return _walk(path, "", ())
    return iter([("", path.stat().st_size)])


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, int]]:
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        # The order that S3 has: by the bytes of the whole name, so "a.png" stands before "a/b.png".
        names = sorted((entry.name + "/" * entry.is_dir() for entry in entries), key=os.fsencode)
    for name in names:
        if name.endswith("/"):
            yield from _walk(folder / name, f"{prefix}{name}", (*above, here))
        elif (size := _size(f"{folder}/{name}")) is not None:
            yield f"{prefix}{name}", size


def _size(path: str) -> int | None:
    """Bytes of a file; 0 for a link that leads nowhere, or a file that is gone again; None for pipes and devices."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def delete(path: Path) -> None:
    """Delete a file, a link, or a folder with all below it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
