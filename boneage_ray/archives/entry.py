"""Common parts of zip and tar files: their entries, size limits and printable names."""

from __future__ import annotations

import re
from typing import NamedTuple

from boneage_ray.environment import whole_number
from boneage_ray.errors import Reason

PACKED_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MEBIBYTE, GIBIBYTE = 2**20, 2**30
_SYSTEM_FILES = (".ds_store", "thumbs.db", "desktop.ini")
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.part")
_MEMBER = re.compile(rf"(.*?(?:{'|'.join(re.escape(ending) for ending in PACKED_ENDINGS)}))!/(.*)", re.DOTALL | re.I)


class ArchiveEntry(NamedTuple):
    """One file in a zip or tar file: its printable name, its unpacked size in bytes, and the position of its bytes."""

    name: str
    size_bytes: int
    position: str
    problem: tuple[Reason, str] | None = None


def is_packed(name: str) -> bool:
    """Whether a name has the extension of a zip or tar file."""
    return name.lower().endswith(PACKED_ENDINGS)


def split_entry(uri: str) -> tuple[str, str] | None:
    """(zip or tar file, entry) of the URI of an entry: "s3://a/b.zip!/c/d.png" is ("s3://a/b.zip", "c/d.png")."""
    match = _MEMBER.fullmatch(uri)
    return (match[1], match[2]) if match else None


def is_system_file(path: str) -> bool:
    """Whether an operating system or a tool created this file: .DS_Store, Thumbs.db, desktop.ini, ._NAME, __MACOSX/.

    NAME_$folder$ is how Hadoop keeps an empty folder in an object store; .<32 hex digits>.part is a file of our own that is
    being written (storage/facade.py), such as by `boneage receive` beside a run.
    """
    *folders, name = path.split("/")
    if _UNFINISHED.fullmatch(name):
        return True
    ours = name.lower() in _SYSTEM_FILES or name.startswith("._") or name.endswith("_$folder$")
    return ours or "__MACOSX" in folders


def printable_name(name: str) -> str:
    r"""An entry's name with "/" between folders and escaped control characters: a line break becomes "\n"."""
    name = name.replace("\\", "/").removeprefix("./")
    return name if name.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def max_input_bytes() -> int:
    """The size limit in bytes of a file that is read and of an entry that is unpacked: BONEAGE_MAX_INPUT_MB, else 512 MiB.

    Raises `UsageError`, like `max_unpacked_bytes`, if the variable is not such a number.
    """
    return whole_number("BONEAGE_MAX_INPUT_MB", 512, "MiB") * MEBIBYTE


def max_unpacked_bytes() -> int:
    """The size limit in bytes of an unpacked tar file: BONEAGE_MAX_UNPACKED_GB, else 64 GiB."""
    return whole_number("BONEAGE_MAX_UNPACKED_GB", 64, "GiB") * GIBIBYTE


def too_large(size: int) -> tuple[Reason, str] | None:
    """The problem of a file of this size, or None."""
    limit = max_input_bytes()
    if size <= limit:
        return None
    return "too_large", f"{size} bytes; at most {limit} are read (BONEAGE_MAX_INPUT_MB changes that)"
