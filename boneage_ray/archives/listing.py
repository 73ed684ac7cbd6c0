"""Lazy listing of the files below a folder or prefix, with those inside zip and tar files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from boneage_ray import storage
from boneage_ray.archives.archive import stem_of
from boneage_ray.archives.entry import ArchiveEntry, is_packed, is_system_file, too_large
from boneage_ray.archives.instances import instances_of
from boneage_ray.archives.tars import tar_entries
from boneage_ray.archives.zips import zip_entries
from boneage_ray.errors import InputProblem, Reason, StorageError
from boneage_ray.storage.dicomweb import is_dicomweb


class Found(NamedTuple):
    """One file. `path` is relative to the listed folder, prefix, zip or tar file; `stem` is its name without extension.

    `version`: of its content, as `storage.FileInfo` has it. An entry of a tar file has that of its tar file, one of a zip file
    none, since its position holds a checksum. `closed`: it, or what is in it, cannot be examined now.
    """

    uri: str
    path: str
    stem: str
    size_bytes: int | None
    problem: tuple[Reason, str] | None = None
    position: str | None = None
    version: str | None = None
    closed: bool = False


def files_below(source: str, *but: str) -> Iterator[Found]:
    """Every file below `source`, or `source` itself; a zip or tar file is replaced by its entries, `FILE.zip!/NAME`.

    Of a DICOMweb server every instance that the query of its address finds (instances.py).

    System files (entry.py, `is_system_file`) and files below the folders `but` are left out. Pipes, sockets, devices and
    local folders that cannot be listed have a problem. Lazy, in the byte order of names; entries in the order of their file. A
    zip or tar file that cannot be listed to its end is itself listed with its problem, after the entries that were found.
    Raises `StorageError` if nothing is there.
    """
    source = storage.absolute(source)
    if is_dicomweb(source):
        for uri, problem, version in instances_of(source):
            path = uri[uri.rindex("/studies/") + 1 :]
            yield Found(uri, path, stem_of(uri), None, problem, version=version)
        return
    left_out = tuple(f"{folder}/" for folder in but)
    for info in storage.list_files(source):
        path = info.uri.removeprefix(source).lstrip("/")
        if is_system_file(path) or f"{info.uri}/".startswith(left_out):
            continue
        if info.problem:
            yield _as_a_whole(info, path, *info.problem, closed=info.closed)
        elif is_packed(info.uri):
            yield from _opened(info, path)
        else:
            name = path or info.uri.rsplit("/", 1)[-1]
            problem = too_large(info.size)
            yield Found(info.uri, name, stem_of(info.uri), info.size, problem, None, info.version, info.closed)


def entries(uri: str) -> Iterator[tuple[str, ArchiveEntry]]:
    """(name that is unique in this file, entry) of a zip or tar file; the second "1.png" is named "1.png#2".

    Raises `InputProblem` if it cannot be listed to its end, `StorageError` if it cannot be read.
    """
    times: dict[str, int] = {}
    listed = zip_entries(uri) if uri.lower().endswith(".zip") else tar_entries(uri)
    with closing(listed):  # type: ignore[type-var]  # a generator
        for entry in listed:
            name = entry.name
            while name in times:
                times[entry.name] += 1
                name = f"{entry.name}#{times[entry.name]}"
            times[name] = 1
            yield name, entry


def _opened(info: storage.FileInfo, path: str) -> Iterator[Found]:
    before = f"{path}!/" if path else ""
    try:
        for name, entry in entries(info.uri):
            stem, size = stem_of(entry.name), entry.size_bytes
            version = None if entry.position.startswith("zip ") else info.version
            yield Found(f"{info.uri}!/{name}", before + name, stem, size, entry.problem, entry.position, version)
    except InputProblem as problem:
        yield _as_a_whole(info, path, problem.reason, problem.message)
    except StorageError as error:
        yield _as_a_whole(info, path, error.reason, str(error))


def _as_a_whole(info: storage.FileInfo, path: str, reason: Reason, message: str, closed: bool = True) -> Found:
    name = path or info.uri.rsplit("/", 1)[-1]
    return Found(info.uri, name, stem_of(info.uri), info.size, (reason, message), None, info.version, closed)


def find_entry(archive: str, name: str) -> ArchiveEntry | None:
    """The entry that `files_below` lists as `ARCHIVE!/NAME`; reads the zip or tar file up to it."""
    return next((entry for listed, entry in entries(archive) if listed == name), None)
