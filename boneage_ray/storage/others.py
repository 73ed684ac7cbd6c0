"""Storage that is neither a local path nor S3, by what all filesystems of fsspec can do; for facade.py only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from boneage_ray.storage.local import Listed

# What these filesystems call the version of a file, the most exact first.
_VERSIONS = ("ETag", "etag", "md5Hash", "md5", "mtime", "last_modified", "LastModified", "updated", "created")


def found_files(fs: AbstractFileSystem, path: str) -> Iterator[Listed]:
    """(name, bytes, no problem, version) of the files below a folder, or of `path` itself; names are relative to it."""
    fs.invalidate_cache()
    found: dict[str, dict[str, Any]] = fs.find(path, detail=True)
    if not found:
        fs.info(path)  # raises FileNotFoundError unless it is an empty folder
    for name in sorted(found, key=str.encode):
        told = (str(found[name][key]) for key in _VERSIONS if found[name].get(key) is not None)
        yield name[len(path) :].lstrip("/"), int(found[name]["size"]), None, next(told, None)
