"""Storage that is neither a local path nor S3, by what all filesystems of fsspec can do; for facade.py only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from boneage_ray.storage.local import Listed

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# What these filesystems call the version of a file, the most exact first.
_VERSIONS = ("ETag", "etag", "md5Hash", "md5", "mtime", "last_modified", "LastModified", "updated", "created")


def found_files(fs: AbstractFileSystem, path: str) -> Iterator[Listed]:
    """The files below a folder, or `path` itself; names are relative to it. A folder that cannot be listed raises its error."""
    fs.invalidate_cache()
    found = _found(fs, path)
    if not found:
        fs.info(path)  # raises FileNotFoundError unless it is an empty folder
    for name in sorted(found, key=str.encode):
        told = (str(found[name][key]) for key in _VERSIONS if found[name].get(key) is not None)
        yield Listed(name[len(path) :].lstrip("/"), int(found[name]["size"]), version=next(told, None))


def _found(fs: AbstractFileSystem, path: str) -> dict[str, dict[str, Any]]:
    """Name -> what is known of it. `find` of fsspec itself, unlike that of an object store, leaves out what it cannot list."""
    from fsspec import AbstractFileSystem
    from fsspec.asyn import AsyncFileSystem

    finds = getattr(type(fs), "_find", type(fs).find)
    if finds not in (AbstractFileSystem.find, AsyncFileSystem._find):
        return dict(fs.find(path, detail=True))
    found: dict[str, dict[str, Any]] = {}
    folders = [path]
    while folders:
        here = folders.pop()
        for info in fs.ls(here, detail=True):
            if info["type"] != "directory":
                found[info["name"]] = info
            elif info["name"].rstrip("/") != here.rstrip("/"):
                folders.append(info["name"])
    return found
