"""List the entries of a zip file from its directory one by one, and read each of them with one ranged request.

Nothing is extracted to a disk, so an entry's name can do no harm. An entry is decompressed to its declared size and one byte,
never further, and its checksum must match. Layout: PKWARE APPNOTE 6.3.10, section 4.3. The directory is read here and not by
zipfile, which lists no entry at all where one entry is damaged (BadZipFile), accepts a directory of 5 entries that declares 7
and one part of a zip file in several parts, and holds all entries in memory (303 MiB for 500,000 entries, where this takes 7).
"""

from __future__ import annotations

import bz2
import lzma
import stat
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from boneage_ray import storage
from boneage_ray.archives.entry import (
    ArchiveEntry,
    is_packed,
    is_system_file,
    max_input_bytes,
    printable_name,
    too_large,
)
from boneage_ray.errors import InputProblem, Reason

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL_BYTES, _SLACK = 30, 512
_STORED, _DEFLATED, _BZIP2, _LZMA = 0, 8, 12, 14
_METHODS = {1: "shrink", 6: "implode", 9: "deflate64", 93: "zstandard", 95: "xz", 98: "PPMd", 99: "AES"}


class _Directory(NamedTuple):
    """Where the list of entries lies; `shift`: the bytes before the zip file, such as a self-extractor."""

    start: int
    size: int
    entries: int
    shift: int


class _Entry(NamedTuple):
    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    mode: int
    offset: int


def zip_entries(uri: str) -> Iterator[ArchiveEntry]:
    """Files in a zip file, in its own order; folders and system files are left out, links have a problem.

    Raises `InputProblem` when it cannot be listed, or not to its end, and `StorageError` when it cannot be read.
    """
    with storage.open_read(uri) as file:
        directory = _directory(file)
        file.seek(directory.start)
        for entry in _entries(file, directory):
            name = printable_name(entry.name)
            # Not every name that ends like a folder's is one: "\\" becomes "/", and bytes are never left out.
            if (name.endswith("/") or stat.S_ISDIR(entry.mode)) and not entry.size:
                continue
            if is_system_file(name):
                continue
            where = (entry.offset, entry.packed, entry.size, entry.method, entry.crc)
            yield ArchiveEntry(name, entry.size, " ".join(["zip", *map(str, where)]), _problem(entry, name))


def read_zip_entry(uri: str, position: str) -> bytes:
    """The bytes of an entry. Raises `InputProblem` for errors in the zip file, `StorageError` for the storage."""
    offset, packed, size, method, crc = map(int, position.split()[1:])
    if problem := _too_large(packed, size):
        raise InputProblem("read", *problem)
    head = storage.read_range(uri, offset, _LOCAL_BYTES + _SLACK + packed)
    if len(head) < _LOCAL_BYTES:
        raise InputProblem("read", "truncated", "the zip file ends before this entry")
    if not head.startswith(b"PK\3\4"):
        raise InputProblem("read", "unreadable", "the zip file holds no entry at the place that its directory gives")
    start = _LOCAL_BYTES + sum(struct.unpack_from("<2H", head, 26))
    body = head[start : start + packed]
    if len(body) < packed:
        body += storage.read_range(uri, offset + start + len(body), packed - len(body))
    if len(body) < packed:
        raise InputProblem("read", "truncated", "the zip file ends within this entry")
    data = _inflate(method, body, size)
    if zlib.crc32(data) != crc:
        raise InputProblem("read", "unreadable", "the checksum of this entry of a zip file is wrong")
    return data


def _problem(entry: _Entry, name: str) -> tuple[Reason, str] | None:
    if stat.S_ISLNK(entry.mode):
        return "unsupported_format", "a symbolic link in a zip file, not a file"
    if entry.flags & 1:
        return "unreadable", "this entry of a zip file is encrypted; unpack it with its password"
    if is_packed(name):
        return "unsupported_format", "an archive inside an archive is not opened; unpack the outer one"
    if entry.method not in (_STORED, _DEFLATED, _BZIP2, _LZMA):
        how = _METHODS.get(entry.method, f"number {entry.method}")
        return "unsupported_format", f"compressed in a way that is not read ({how}); unpack the zip file"
    return _too_large(entry.packed, entry.size)


def _too_large(packed: int, size: int) -> tuple[Reason, str] | None:
    # What cannot be compressed grows a little.
    return too_large(size) or too_large(packed - max_input_bytes() // 1000)


def _directory(file: BinaryIO) -> _Directory:
    length = file.seek(0, 2)
    file.seek(max(0, length - _END.size - 0xFFFF - _END64.size - _LOCATOR.size))
    tail = file.read()
    at = tail.rfind(b"PK\5\6", 0, max(0, len(tail) - _END.size + 4))
    if at < 0:
        file.seek(0)
        raise _no_directory(length, file.read(4))
    end = length - len(tail) + at
    _, disk, _, _, count, size, offset, _ = _END.unpack_from(tail, at)
    if at >= _LOCATOR.size and tail.startswith(b"PK\6\7", at - _LOCATOR.size):
        at64 = at - _LOCATOR.size - _END64.size
        if at64 < 0 or not tail.startswith(b"PK\6\6", at64):
            raise InputProblem("list", "unreadable", "the end of the zip file is damaged")
        *_, disk, _, _, count, size, offset = _END64.unpack_from(tail, at64)
        end -= _LOCATOR.size + _END64.size
    if disk:
        raise InputProblem("list", "unsupported_format", "one part of a zip file in several parts; join or unpack it")
    start = end - size
    if start < offset:
        raise InputProblem("list", "truncated", "the zip file is shorter than its directory declares; copy it again")
    if count == 0:
        raise InputProblem("list", "unreadable", "the zip file is empty")
    return _Directory(start, size, count, start - offset)


def _no_directory(length: int, first: bytes) -> InputProblem:
    if length == 0:
        return InputProblem("list", "unreadable", "the file is empty (0 bytes)")
    if first == b"PK\3\4":
        return InputProblem("list", "truncated", "the zip file ends before its directory; copy it again")
    return InputProblem("list", "unreadable", "has the name of a zip file, but is none")


def _entries(file: BinaryIO, directory: _Directory) -> Iterator[_Entry]:
    found, left = 0, directory.size
    while left >= _ENTRY.size:
        fields = _ENTRY.unpack(file.read(_ENTRY.size))
        if fields[0] != b"PK\1\2":
            break
        name, extra, comment = (file.read(count) for count in fields[10:13])
        left -= _ENTRY.size + len(name) + len(extra) + len(comment)
        found += 1
        yield _entry(fields, name, extra, directory.shift)
    # Some writers count modulo 65536 only.
    if found % 0x10000 != directory.entries % 0x10000:
        message = f"the directory of the zip file is damaged: {found} of {directory.entries} entries could be listed"
        raise InputProblem("list", "unreadable", message)


def _entry(fields: tuple[Any, ...], name: bytes, extra: bytes, shift: int) -> _Entry:
    _, made, _, flags, method, _, _, crc, packed, size, _, _, _, _, _, attributes, offset = fields
    size, packed, offset = _wide(extra, [size, packed, offset])
    # The upper half of the attributes is a file mode only where a Unix wrote it.
    mode = attributes >> 16 if made >> 8 == 3 else 0
    return _Entry(_text(name), flags, method, crc, packed, size, mode, offset + shift)


def _wide(extra: bytes, values: list[int]) -> list[int]:
    """Take values that do not fit 32 bits from the extra field 1, in this order (APPNOTE 4.5.3)."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            field = extra[4 : 4 + length]
            for k, value in enumerate(values):
                if value == 0xFFFFFFFF and len(field) >= 8:
                    values[k], field = int.from_bytes(field[:8], "little"), field[8:]
            break
        extra = extra[4 + length :]
    return values


def _text(name: bytes) -> str:
    """Decode a name as UTF-8 where that is possible, because many writers do not set the flag for it, else as code page 437."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("cp437")


def _inflate(method: int, body: bytes, size: int) -> bytes:
    try:
        data = _unpack(method, body, size + 1)
    except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError, struct.error) as error:
        raise InputProblem("read", "unreadable", f"this entry of a zip file cannot be unpacked: {error}") from error
    if len(data) != size:
        less = "less" if len(data) < size else "more"
        raise InputProblem(
            "read", "unreadable", f"this entry of a zip file unpacks to {less} than the {size} bytes declared"
        )
    return data


def _unpack(method: int, body: bytes, limit: int) -> bytes:
    if method == _STORED:
        return body
    if method == _DEFLATED:
        return zlib.decompressobj(-15).decompress(body, limit)
    if method == _BZIP2:
        return bz2.BZ2Decompressor().decompress(body, limit)
    _, _, width, packed, dictionary = struct.unpack_from("<2BHBL", body)
    packed, lc = divmod(packed, 9)
    pb, lp = divmod(packed, 5)
    options = {"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": pb, "dict_size": min(dictionary, max(limit, 4096))}
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[options]).decompress(body[4 + width :], limit)
