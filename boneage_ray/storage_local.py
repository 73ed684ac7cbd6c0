"""Local paths, for storage.py only. Errors leave here as the operating system raises them."""

from __future__ import annotations

import os
import shutil
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
        ordered = sorted(entries, key=lambda entry: os.fsencode(entry.name + "/" * entry.is_dir()))
    for entry in ordered:
        name = prefix + entry.name
        if entry.is_dir():
            yield from _walk(Path(entry.path), f"{name}/", (*above, here))
        elif entry.is_file():
            yield name, entry.stat().st_size
        elif entry.is_symlink():
            yield name, 0


def delete(path: Path) -> None:
    """Delete a file, a link, or a folder with all below it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
