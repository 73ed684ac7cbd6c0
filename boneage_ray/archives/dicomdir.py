"""A DICOMDIR as a list of inputs: the files that it references inside its own folder.

Standard: DICOM PS3.10 section 8, PS3.3 annex F.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boneage_ray import storage
from boneage_ray.archives.archive import stem_of
from boneage_ray.archives.entry import is_packed, too_large
from boneage_ray.archives.listing import Found
from boneage_ray.errors import InputProblem, Reason
from boneage_ray.storage.dicomweb import is_dicomweb

# Media Storage Directory Storage, the SOP class of every DICOMDIR in its file meta information.
_SOP_CLASS = b"1.2.840.10008.1.3.10"
_HEAD_BYTES = 1024
_FORBIDDEN = frozenset("/\\:\0")


def is_dicomdir(uri: str) -> bool:
    """Whether a URI is that of a file named DICOMDIR, or with the SOP class of one."""
    name = uri.rstrip("/").rsplit("/", 1)[-1]
    if is_packed(name) or is_dicomweb(uri):
        return False
    only = next(storage.list_files(uri), None)
    if only is None or only.problem or only.uri != storage.absolute(uri):
        return False
    head = storage.read_range(uri, 0, min(_HEAD_BYTES, only.size))
    return name.upper() == "DICOMDIR" or (head[128:132] == b"DICM" and _SOP_CLASS in head)


def dicomdir_files(uri: str) -> Iterator[Found]:
    """The files that a DICOMDIR references, in its order; one that is missing or outside its folder has a problem.

    Names may differ in case, as on mounted CDs. A DICOMDIR that cannot be read is itself listed with its problem.
    """
    folder = uri.rpartition("/")[0]
    try:
        references = _references(uri)
    except InputProblem as unusable:
        yield Found(uri, uri.rpartition("/")[2], stem_of(uri), None, (unusable.reason, unusable.message))
        return
    listed = _listed(folder, {path.casefold() for path, problem in references if problem is None})
    seen: set[str] = set()
    for path, problem in references:
        found = _found(folder, path, listed) if problem is None else _lost(folder, path, problem)
        if found.uri in seen:
            found = found._replace(problem=("duplicate_id", "the DICOMDIR references this file twice"))
        seen.add(found.uri)
        yield found


def _references(uri: str) -> list[tuple[str, tuple[Reason, str] | None]]:
    """(path below the folder, why it is refused) of every referenced file."""
    with storage.open_read(uri) as file:
        size = file.seek(0, 2)
        if problem := too_large(size):
            raise InputProblem("list", *problem)
        file.seek(0)
        records = _records(file.read())
    named = [identifier for record in records if (identifier := _components(record))]
    if not named:
        raise InputProblem("list", "no_pixels", "this DICOMDIR references no file")
    return [("/".join(parts), _refusal(parts)) for parts in named]


def _records(data: bytes) -> list[Any]:
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(pydicom.dcmread(io.BytesIO(data), force=True).DirectoryRecordSequence)
    # On damaged data pydicom raises nearly anything.
    except Exception as error:
        said = f"this DICOMDIR cannot be read ({type(error).__name__})"
        raise InputProblem("list", "unreadable", said) from error


def _components(record: Any) -> list[str]:  # noqa: ANN401  a pydicom Dataset
    try:
        value = record.get("ReferencedFileID")
    except Exception:  # noqa: BLE001  as in _records: the path of this reference then matches no file
        return [""]
    if not value:
        return []
    return [value] if isinstance(value, str) else [str(part) for part in value]


def _refusal(parts: list[str]) -> tuple[Reason, str] | None:
    if any(part in ("", ".", "..") or _FORBIDDEN & set(part) for part in parts):
        return "permission_denied", "the DICOMDIR references a path outside the archive"
    return None


def _listed(folder: str, wanted: set[str]) -> dict[str, dict[str, storage.FileInfo]]:
    """Path in one case -> (path as written -> file) of the referenced files below a folder.

    Folders that cannot be examined are in it too, with a slash behind their path.
    """
    listed: dict[str, dict[str, storage.FileInfo]] = {}
    start = len(folder) + 1
    for info in storage.list_files(folder) if wanted else ():
        path = info.uri[start:]
        if info.closed and info.problem:
            path += "/"
        if info.closed or path.casefold() in wanted:
            listed.setdefault(path.casefold(), {})[path] = info
    return listed


def _found(folder: str, path: str, listed: dict[str, dict[str, storage.FileInfo]]) -> Found:
    spellings = listed.get(path.casefold(), {})
    if not spellings:
        if closed := _closed_above(path, listed):
            return _lost(folder, path, closed)._replace(closed=True)
        return _lost(folder, path, ("not_found", "the DICOMDIR references this file, but it does not exist"))
    exact = path if path in spellings else min(spellings)
    uri = f"{folder}/{exact}"
    if not _is_inside(folder, uri):
        return _lost(folder, path, ("permission_denied", "this link leads out of the archive"))
    info = spellings[exact]
    problem = info.problem or too_large(info.size)
    return Found(uri, exact, stem_of(uri), info.size, problem, None, info.version, info.closed)


def _closed_above(path: str, listed: dict[str, dict[str, storage.FileInfo]]) -> tuple[Reason, str] | None:
    """Why the folder that a referenced file may be in cannot be listed."""
    folders = path.casefold().split("/")[:-1]
    names = ("/".join(folders[:depth]) + "/" for depth in range(1, len(folders) + 1))
    return next((info.problem for name in names for info in listed.get(name, {}).values()), None)


def _is_inside(folder: str, uri: str) -> bool:
    if storage.locate(uri).scheme != "file":
        return True
    return Path(uri).resolve().is_relative_to(Path(folder).resolve())


def _lost(folder: str, path: str, problem: tuple[Reason, str]) -> Found:
    return Found(f"{folder}/{storage.printable(path)}", path, stem_of(path), None, problem)
