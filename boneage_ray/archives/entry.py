"""What zip and tar files have in common: their members, the limits, and names that can be printed."""

from __future__ import annotations

import re
from typing import NamedTuple

from boneage_ray.environment import whole_number
from boneage_ray.errors import Reason

PACKED_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MEBIBYTE, GIBIBYTE = 2**20, 2**30
_SYSTEM_FILES = (".ds_store", "thumbs.db", "desktop.ini")
_MEMBER = re.compile(rf"(.*?(?:{'|'.join(re.escape(ending) for ending in PACKED_ENDINGS)}))!/(.*)", re.DOTALL | re.I)


class ArchiveEntry(NamedTuple):
    """One file in a zip or tar file: its printable name, its size unpacked in bytes, and where its bytes lie."""

    name: str
    size_bytes: int
    position: str
    problem: tuple[Reason, str] | None = None


def is_packed(name: str) -> bool:
    """Whether a name is that of a zip or tar file."""
    return name.lower().endswith(PACKED_ENDINGS)


def split_entry(uri: str) -> tuple[str, str] | None:
    """(zip or tar file, member) of the URI of a member: "s3://a/b.zip!/c/d.png" is ("s3://a/b.zip", "c/d.png")."""
    match = _MEMBER.fullmatch(uri)
    return (match[1], match[2]) if match else None


def is_system_file(path: str) -> bool:
    """Whether an operating system wrote this file for itself: .DS_Store, Thumbs.db, desktop.ini, ._NAME, __MACOSX/."""
    *folders, name = path.split("/")
    return name.lower() in _SYSTEM_FILES or name.startswith("._") or "__MACOSX" in folders


def printable_name(name: str) -> str:
    r"""A member's name with "/" between folders and nothing that a terminal would obey: a line break becomes "\n"."""
    name = name.replace("\\", "/").removeprefix("./")
    return name if name.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def max_input_bytes() -> int:
    """The largest file that is read, and the largest member that is unpacked: BONEAGE_MAX_INPUT_MB, else 512 MiB.

    Raises `UsageError`, as `max_unpacked_bytes` does, when the variable holds no such number.
    """
    return whole_number("BONEAGE_MAX_INPUT_MB", 512, "MiB") * MEBIBYTE


def max_unpacked_bytes() -> int:
    """How far a compressed tar file is unpacked, in bytes: BONEAGE_MAX_UNPACKED_GB, else 64 GiB."""
    return whole_number("BONEAGE_MAX_UNPACKED_GB", 64, "GiB") * GIBIBYTE


def too_large(size: int) -> tuple[Reason, str] | None:
    """The problem of a file of this size, or None."""
    limit = max_input_bytes()
    if size <= limit:
        return None
    return "too_large", f"{size} bytes; at most {limit} are read (BONEAGE_MAX_INPUT_MB changes that)"
