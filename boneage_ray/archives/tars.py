"""List the entries of a tar file, plain or compressed, in one pass, and read each of them by the position of its bytes.

A plain tar file is read with one ranged request an entry. A compressed one can only be read front to back: it is
unpacked once on each node into an unnamed temporary file (spool.py), so that entries can be read in any order. Entry names
never become paths. Headers beyond a sensible size are refused, and unpacking stops at a limit.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

from boneage_ray import storage
from boneage_ray.archives.entry import (
    MEBIBYTE,
    ArchiveEntry,
    is_packed,
    is_system_file,
    max_unpacked_bytes,
    printable_name,
    too_large,
)
from boneage_ray.errors import InputProblem, Reason

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_GZIP, _BZIP2, _XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"
_XZ_MEMORY = 256 * MEBIBYTE
# Folders, GNU's lists of what is in a folder, and labels of volumes.
_NO_FILES = (tarfile.DIRTYPE, b"D", b"V")
_LONGEST_HEADER = 16 * MEBIBYTE
# What the decompressors raise; a storage that fails raises StorageError.
UNPACK_ERRORS = (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError)


def tar_entries(uri: str) -> Iterator[ArchiveEntry]:
    """Files in a tar file, in its own order; folders and system files are left out.

    A hard link is read from the file that it refers to, which comes before it; symbolic links, devices and pipes have a
    problem. Raises `InputProblem` when it cannot be listed, or not to its end, and `StorageError` when it cannot be read.
    """
    with storage.open_read(uri) as file:
        stream = unpacked(file)
        kind, limit = ("tar", None) if stream is file else ("packed", max_unpacked_bytes())
        forward = _Forward(stream, limit)
        nothing = True
        before: dict[str, ArchiveEntry] = {}
        for info in _walk(forward):
            nothing = False
            entry = _entry(info, kind, before)
            if info.type not in _NO_FILES and not is_system_file(entry.name):
                before[entry.name] = entry
                yield entry
        if nothing:
            raise InputProblem("list", "unreadable", "the tar file is empty")


def unpacked(file: BinaryIO) -> BinaryIO:
    """Open the content of a compressed tar file as a stream; a plain one, known by its first bytes, is returned as it is."""
    first = file.read(6)
    file.seek(0)
    if first.startswith(_GZIP):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if first.startswith((_BZIP2, _XZ)):
        return cast(BinaryIO, io.BufferedReader(_Unpacked(file, first.startswith(_XZ)), MEBIBYTE))
    return file


class _Unpacked(io.RawIOBase):
    """The content of a bzip2 or xz file of one or more streams; xz is limited in memory."""

    def __init__(self, file: BinaryIO, xz: bool) -> None:
        self._file, self._xz = file, xz
        self._unpacker = self._new()

    def _new(self) -> bz2.BZ2Decompressor | lzma.LZMADecompressor:
        return lzma.LZMADecompressor(memlimit=_XZ_MEMORY) if self._xz else bz2.BZ2Decompressor()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        while True:
            packed = b""
            if self._unpacker.eof:
                packed = self._unpacker.unused_data.lstrip(b"\0") or self._file.read(MEBIBYTE).lstrip(b"\0")
                if not packed:
                    return 0
                self._unpacker = self._new()
            elif self._unpacker.needs_input:
                packed = self._file.read(MEBIBYTE)
                if not packed:
                    raise EOFError("the compressed file ends too early")
            if data := self._unpacker.decompress(packed, len(view)):
                view[: len(data)] = data
                return len(data)


class _Forward:
    """A stream for tarfile that never goes back, reads small pieces, and records whether it ended too early."""

    def __init__(self, stream: BinaryIO, limit: int | None) -> None:
        self._stream, self._limit = stream, limit
        self._at, self.short = 0, False

    def tell(self) -> int:
        return self._at

    def read(self, count: int) -> bytes:
        if not 0 <= count <= _LONGEST_HEADER:
            raise ValueError("a header of an impossible size")
        data = self._stream.read(count)
        self._at += len(data)
        self.short = self.short or len(data) < count
        return data

    def skip_to(self, offset: int) -> None:
        if offset < self._at:
            raise ValueError("an entry of an impossible size")
        if self._limit is not None and offset > self._limit:
            need = "raise BONEAGE_MAX_UNPACKED_GB, or unpack the file"
            raise InputProblem("list", "too_large", f"unpacks to more than {self._limit} bytes; {need}")
        if self._limit is None and offset - self._at > MEBIBYTE:
            self._stream.seek(offset - 1)
            self._at = offset - 1
        while self._at < offset and not self.short:
            self.read(min(MEBIBYTE, offset - self._at))


class _Walk(tarfile.TarFile):
    """tarfile's reading of headers with every error raised: by itself it takes a damaged header for the end."""

    def next(self) -> tarfile.TarInfo | None:
        forward = cast(_Forward, self.fileobj)
        forward.skip_to(self.offset)
        try:
            info = self.tarinfo.fromtarfile(self)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the mark of the end: a block of zeros
                return None
            raise
        if info.size < 0:
            raise ValueError("an entry of negative size")
        return info


def _walk(forward: _Forward) -> Iterator[tarfile.TarInfo]:
    found = 0
    try:
        archive = _Walk(fileobj=cast(BinaryIO, forward), encoding="utf-8", errors="surrogateescape")
        info: tarfile.TarInfo | None = archive.firstmember  # type: ignore[attr-defined]
        while info is not None:
            found += 1
            yield info
            info = archive.next()
        # As in tar files that were joined end to end: nothing behind the first end mark is listed.
        if forward.read(MEBIBYTE).strip(b"\0"):
            message = f"more data follow the end mark of the tar file, after {found} entries; pack it again"
            raise InputProblem("list", "unreadable", message)
    except (tarfile.TarError, *UNPACK_ERRORS, IndexError, KeyError, RecursionError) as error:
        raise _broken(forward, found, error) from error


def _broken(forward: _Forward, found: int, error: Exception) -> InputProblem:
    after = f"after {found} entries"
    if not found and forward.short and forward.tell() == 0:
        return InputProblem("list", "unreadable", "the file is empty (0 bytes)")
    if forward.short or isinstance(error, EOFError):
        return InputProblem("list", "truncated", f"the tar file ends early {after}; copy it again")
    if not found:
        return InputProblem("list", "unreadable", f"has the name of a tar file, but is none, or is damaged ({error})")
    return InputProblem("list", "unreadable", f"the tar file is damaged {after} ({error})")


def _entry(info: tarfile.TarInfo, kind: str, before: dict[str, ArchiveEntry]) -> ArchiveEntry:
    name = printable_name(info.name)
    if info.isreg():
        return ArchiveEntry(name, info.size, f"{kind} {info.offset_data} {info.size}", _problem(info))
    if not info.islnk():
        what = "a symbolic link" if info.issym() else "a device, named pipe or the like"
        return ArchiveEntry(name, 0, "", ("unsupported_format", f"{what} in a tar file, not a file"))
    target = before.get(printable_name(info.linkname))
    if target is None:
        message = "a hard link in a tar file to a file that does not come before it; unpack the tar file"
        return ArchiveEntry(name, 0, "", ("not_found", message))
    return target._replace(name=name, problem=target.problem or _problem_of_name(name))


def _problem(info: tarfile.TarInfo) -> tuple[Reason, str] | None:
    if problem := _problem_of_name(info.name):
        return problem
    if info.issparse():
        return "unsupported_format", "a sparse entry of a tar file is not read; unpack the tar file"
    return too_large(info.size)


def _problem_of_name(name: str) -> tuple[Reason, str] | None:
    if is_packed(name):
        return "unsupported_format", "an archive inside an archive is not opened; unpack the outer one"
    return None
