"""The bytes of an input: a file, or an entry of a zip or tar file."""

from __future__ import annotations

from boneage_ray import storage
from boneage_ray.archives.archive import Input
from boneage_ray.archives.entry import max_input_bytes, split_entry, too_large
from boneage_ray.archives.listing import find_entry
from boneage_ray.archives.spool import spool_of
from boneage_ray.archives.sums import read_as_listed
from boneage_ray.archives.zips import read_zip_entry
from boneage_ray.errors import InputProblem, StorageError


def read_input(item: Input) -> bytes | InputProblem:
    """The bytes of an input, or its problem: of step list if found by listing, else of step read. Thread-safe.

    The storage has retried transient errors. At most `max_input_bytes()` and one are read or unpacked.
    """
    if item.problem:
        return InputProblem("list", *item.problem)
    if (item.size_bytes is not None) and (known := too_large(item.size_bytes)):
        return InputProblem("read", *known)
    try:
        split = split_entry(item.uri)
        return _file(item) if split is None else _entry(*split, item.position)
    except StorageError as error:
        return InputProblem("read", error.reason, str(error))
    except InputProblem as problem:
        return problem


def _file(item: Input) -> bytes:
    if item.size_bytes is not None:
        return read_as_listed(item.uri, item.version)
    data = storage.read_range(item.uri, 0, max_input_bytes() + 1)
    if problem := too_large(len(data)):
        raise InputProblem("read", *problem)
    return data


def _entry(archive: str, name: str, position: str | None) -> bytes:
    position = position or _position(archive, name)
    if position.startswith("zip "):
        return read_zip_entry(archive, position)
    offset, size = map(int, position.split()[1:])
    if problem := too_large(size):
        raise InputProblem("read", *problem)
    if position.startswith("packed "):
        return spool_of(archive).read(offset, size)
    data = storage.read_range(archive, offset, size)
    if len(data) < size:
        raise InputProblem("read", "truncated", "the tar file ends within this entry")
    return data


def _position(archive: str, name: str) -> str:
    entry = find_entry(archive, name)
    if entry is None:
        raise InputProblem("read", "not_found", f"{archive} has no entry with this name")
    if entry.problem:
        raise InputProblem("read", *entry.problem)
    return entry.position
