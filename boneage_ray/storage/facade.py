"""The filesystem and path of a URI: local paths, `s3://` and every other scheme of fsspec.

    locate("s3://hands/2024").fs          an s3fs filesystem, set up from the usual AWS_* variables
    locate("scans/a.png").uri             "/home/me/scans/a.png": absolute, the same file in a worker
    write_bytes("s3://hands/a.png", b"")  atomic on every kind of storage

Names are not decoded or escaped: `s3://hands/left hand/ä.png` is the object "left hand/ä.png". Listings are
never cached, because other processes write too. All failures are `StorageError`s that name the URI, the
endpoint and the fix. Transient failures are retried first, with growing pauses.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from boneage_ray.errors import Reason, StorageError
from boneage_ray.storage import dicomweb_source, local, others, s3
from boneage_ray.storage.dicomweb import is_dicomweb
from boneage_ray.storage.errors import ABSENT, Guarded, storage_exceptions, translated

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from pyarrow.fs import FileSystem

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)", re.DOTALL)
_S3 = ("s3", "s3a")


@dataclass(frozen=True)
class Location:
    """A URI and its filesystem; `path` is the path on that filesystem (S3: bucket/key)."""

    fs: AbstractFileSystem
    path: str
    uri: str
    scheme: str


class FileInfo(NamedTuple):
    """One listed file; size in bytes. `problem`: (reason, message) of a file that must not be opened.

    `version`: what the storage tells of the content and changes with it, an ETag or a time of modification; None if nothing.
    `closed`: it cannot be examined now: the state of the file is unknown, or what is in the folder.
    """

    uri: str
    size: int
    problem: tuple[Reason, str] | None = None
    version: str | None = None
    closed: bool = False


def _split(uri: str) -> tuple[str, str]:
    """(scheme, rest); a path without a scheme has the scheme "file"."""
    match = _SCHEME.fullmatch(uri)
    return (match[1].lower(), match[2]) if match else ("file", uri)


def locate(uri: str) -> Location:
    """The filesystem and path of a URI, without a request. Raises StorageError for an unusable scheme."""
    scheme, rest = _split(uri)
    if scheme == "file":
        from fsspec.implementations.local import LocalFileSystem

        path = str(local.absolute_path(rest))
        return Location(LocalFileSystem(auto_mkdir=True), path, path, scheme)
    if scheme in _S3:
        rest = rest.rstrip("/")
        if not rest.partition("/")[0]:
            raise StorageError("not_found", f"{uri}: the bucket is missing; write s3://bucket/prefix")
        return Location(s3.filesystem(), rest, f"{scheme}://{rest}", scheme)
    from fsspec.core import url_to_fs

    try:
        with translated(uri):
            fs, path = url_to_fs(uri)
    except (ValueError, ImportError) as error:
        # fsspec names the package to install where it knows one.
        raise StorageError("not_found", f"{uri}: {scheme}:// cannot be used here: {error}") from error
    return Location(fs, path, uri if uri.endswith("://") else uri.rstrip("/"), scheme)


def printable(text: str) -> str:
    """Text for a table, a page or a log: bytes of a file name that are not UTF-8 become \\xff and the like."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def absolute(uri: str) -> str:
    """The URI with an absolute path, valid in a worker in another folder."""
    return dicomweb_source.whole_address(uri) if is_dicomweb(uri) else locate(uri).uri


def _locate_file(uri: str) -> Location:
    location = locate(uri)
    if location.scheme in _S3 and "/" not in location.path:
        raise StorageError("not_found", f"{uri}: this is a bucket; add the name of an object")
    return location


def join(uri: str, *parts: str) -> str:
    """`uri` with path parts added: join("s3://hands/", "train", "a.png") is "s3://hands/train/a.png"."""
    for part in parts:
        if name := part.strip("/"):
            uri = f"{uri}{name}" if uri.endswith("://") else f"{uri.rstrip('/')}/{name}"
    return uri


def read_bytes(uri: str) -> bytes:
    """The whole file, in one request."""
    scheme, rest = _split(uri)
    with translated(uri):
        if scheme == "file":
            return local.absolute_path(rest).read_bytes()
        location = _locate_file(uri)
        if scheme in _S3:
            return s3.read_whole_object(location.fs, location.path)
        return cast(bytes, location.fs.cat_file(location.path))


def read_range(uri: str, start: int, length: int) -> bytes:
    """`length` bytes from byte `start` on, in one request; fewer if the file ends before."""
    if is_dicomweb(uri):
        return dicomweb_source.read_instance(uri, start + length)[start:]
    scheme, rest = _split(uri)
    with translated(uri):
        if scheme == "file":
            with local.absolute_path(rest).open("rb", buffering=0) as file:
                file.seek(start)
                return file.read(length)
        location = _locate_file(uri)
        if scheme in _S3:
            return s3.read_object_range(location.fs, location.path, start, length)
        return cast(bytes, location.fs.cat_file(location.path, start=start, end=start + length))


def write_bytes(uri: str, data: bytes) -> None:
    """Write or replace a whole file atomically: a reader sees the old or the new content."""
    if _split(uri)[0] not in _S3:
        with open_write(uri) as file:
            file.write(data)
        return
    with translated(uri):
        location = _locate_file(uri)
        s3.write_whole_object(location.fs, location.path, data)


def read_text(uri: str) -> str:
    """The whole file as UTF-8 text."""
    try:
        return read_bytes(uri).decode("utf-8")
    except UnicodeDecodeError as error:
        raise StorageError("unreadable", f"{uri}: not UTF-8 text (byte {error.start})") from error


def write_text(uri: str, text: str) -> None:
    """Write UTF-8 text as a whole file."""
    write_bytes(uri, printable(text).encode("utf-8"))


def read_json(uri: str) -> Any:  # noqa: ANN401  JSON holds any value
    """The JSON value in a file."""
    try:
        return json.loads(read_text(uri))
    except json.JSONDecodeError as error:
        raise StorageError("unreadable", f"{uri}: not JSON ({error})") from error


def write_json(uri: str, value: object) -> None:
    """Write a JSON value, indented, ending in a newline; NaN and infinity are refused (ValueError)."""
    write_text(uri, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def open_read(uri: str) -> Iterator[BinaryIO]:
    """A seekable stream of bytes. Only errors of the storage become StorageErrors, not those of the body."""
    with translated(uri):
        location = _locate_file(uri)
        file = location.fs.open(location.path, "rb")
    with file, io.BufferedReader(Guarded(file, uri), buffer_size=2**18) as stream:
        yield stream


@contextmanager
def open_write(uri: str) -> Iterator[BinaryIO]:
    """A sequential stream to write to. The file appears when the body succeeds, otherwise not at all.

    On S3 the parts are uploaded as they fill, so the file need not fit in memory or on disk.
    """
    location = _locate_file(uri)
    with _upload(location) if location.scheme in _S3 else _replace(location) as stream:
        yield stream


@contextmanager
def _upload(location: Location) -> Iterator[BinaryIO]:
    with translated(location.uri):
        file = location.fs.open(location.path, "wb", block_size=s3.PART_BYTES)
    try:
        yield cast(BinaryIO, Guarded(file, location.uri))
        with translated(location.uri):
            file.close()
    except BaseException:
        file.closed = True  # otherwise its destructor would commit what was written so far
        with suppress(*storage_exceptions()):
            file.discard()
        raise


@contextmanager
def _replace(location: Location) -> Iterator[BinaryIO]:
    """Write a temporary file: in the folder of the local file that it then replaces, or for an upload."""
    local = Path(location.path) if location.scheme == "file" else Path(tempfile.gettempdir(), "upload")
    partial = local.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with translated(location.uri):
            partial.parent.mkdir(parents=True, exist_ok=True)
            file = partial.open("xb")
        with file:
            yield cast(BinaryIO, Guarded(file, location.uri))
            with translated(location.uri):
                file.flush()
        with translated(location.uri):
            if location.scheme == "file":
                partial.replace(local)
            else:
                location.fs.makedirs(location.fs._parent(location.path), exist_ok=True)
                location.fs.put_file(str(partial), location.path)
    finally:
        with suppress(OSError):
            partial.unlink()


def exists(uri: str) -> bool:
    """Whether a file or folder exists. Raises StorageError if a key or connection is refused."""
    scheme, rest = _split(uri)
    with translated(uri):
        try:
            if scheme == "file":
                local.absolute_path(rest).stat()
            else:
                location = locate(uri)
                location.fs.info(location.path)
        except OSError as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno in ABSENT:
                return False
            raise
        return True


def list_files(uri: str) -> Iterator[FileInfo]:
    """All files below a folder or prefix, in the byte order of their names; a file lists itself.

    Lazy: folder by folder, or one request for each 1000 objects. Hidden files are listed. Links are followed,
    but not back into a folder that is being listed; a dangling link is listed with size 0. Pipes, sockets,
    devices and local folders that cannot be listed have a `problem`. Other folders and the empty "folder/"
    objects of S3 consoles are left out. Raises StorageError (not_found) if nothing is there.
    """
    location = locate(uri)
    folder = location.uri if location.uri.endswith("/") else f"{location.uri}/"
    with translated(location.uri):
        if location.scheme == "file":
            found = local.local_files(Path(location.path))
        elif location.scheme in _S3:
            objects = s3.list_objects(location.fs, location.path)
            found = (local.Listed(name, size, version=tag) for name, size, tag in objects)
        else:
            found = others.found_files(location.fs, location.path)
        for listed in found:
            yield FileInfo(f"{folder}{listed.name}" if listed.name else location.uri, *listed[1:])


def list_folder(uri: str) -> list[FileInfo]:
    """The files directly in a folder or prefix, in the byte order of their names; none if it does not exist."""
    location = locate(uri)
    folder = location.path.rstrip("/") + "/"
    with translated(uri):
        try:
            if location.scheme == "file":
                below = dict(local.local_folder(Path(location.path)))
            else:
                entries = location.fs.ls(location.path, detail=True)
                below = {e["name"].removeprefix(folder): int(e["size"]) for e in entries if e["type"] == "file"}
        except (FileNotFoundError, NotADirectoryError):
            return []
    # A file is listed as itself, and a console's folder object as "": neither is in the folder.
    names = sorted((name for name in below if name and "/" not in name), key=os.fsencode)
    return [FileInfo(join(location.uri, name), below[name]) for name in names]


def is_empty(uri: str) -> bool:
    """Whether there is no file below `uri`, which need not exist; the listing stops at the first file."""
    try:
        return next(list_files(uri), None) is None
    except StorageError as error:
        if error.reason == "not_found":
            return True
        raise


def delete_tree(uri: str) -> None:
    """Delete a file, or a folder or prefix with its content, if it exists. A bucket or root is refused."""
    location = locate(uri)
    inside = location.path.partition("/")[2] if location.scheme in _S3 else location.path.strip("/")
    if not inside:
        raise StorageError("permission_denied", f"{uri}: a bucket or root is never deleted; give a folder in it")
    with translated(uri), suppress(FileNotFoundError):
        if location.scheme in _S3:
            s3.delete_objects(location.fs, location.path)
        elif location.scheme == "file":
            local.delete(Path(location.path))
        else:
            location.fs.rm(location.path, recursive=True)


def sha256(uri: str) -> str:
    """SHA-256 of the file's bytes, in hex; the file is streamed."""
    with open_read(uri) as file:
        return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()


def check_writable(uri: str) -> None:
    """Check that a folder or prefix is writable by writing and deleting a file. Creates a local folder."""
    probe = join(uri, f".write-check-{uuid.uuid4().hex}")
    try:
        write_bytes(probe, b"boneage")
        delete_tree(probe)
    except StorageError as error:
        raise StorageError(error.reason, f"cannot write: {error}".replace(probe, uri)) from error


def arrow_filesystem(uri: str) -> tuple[FileSystem, str]:
    """The same location for pyarrow. Its errors are not translated: use it inside `translated(uri)`.

    On S3 its create_dir() creates a missing bucket: call `check_writable` first to catch a misspelt name.
    """
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    location = locate(uri)
    return PyFileSystem(FSSpecHandler(location.fs)), location.path
