"""Walk over the elements of a data set by their lengths alone, without reading their values (DICOM PS3.5, 7.1 and 7.5)."""

from __future__ import annotations

import struct
from typing import NamedTuple

VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
UNDEFINED = 0xFFFFFFFF
LONG_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"))
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_MAX_DEPTH = 8


class NoElementError(Exception):
    """The bytes are no element, or one that goes on behind the end of the data."""


class Coding(NamedTuple):
    """How elements are written: the byte order as struct names it, and whether they have no VR."""

    order: str
    implicit: bool


def element_at(data: memoryview, at: int, coding: Coding, depth: int = 0) -> tuple[int, int]:
    """Tag of the element at `at`, and where the next one begins. Raises `NoElementError`."""
    if len(data) < at + 8 or depth > _MAX_DEPTH:
        raise NoElementError
    group, element, length = struct.unpack_from(coding.order + "HHI", data, at)
    tag, vr, start = group << 16 | element, bytes(data[at + 4 : at + 6]), at + 8
    if not coding.implicit and group != 0xFFFE:
        if vr not in VRS:
            raise NoElementError
        (length,) = struct.unpack_from(coding.order + "H", data, at + 6)
        if vr.decode() in LONG_VRS:
            if len(data) < at + 12:
                raise NoElementError
            (length,) = struct.unpack_from(coding.order + "I", data, at + 8)
            start = at + 12
    if length == UNDEFINED:
        # Items of an unknown sequence are implicit (PS3.5 6.2.2, note 2).
        inner = Coding(coding.order, coding.implicit or vr == b"UN")
        return tag, _sequence_end(data, start, inner, depth + 1)
    if start + length > len(data):
        raise NoElementError
    return tag, start + length


def _sequence_end(data: memoryview, at: int, coding: Coding, depth: int) -> int:
    """Where a sequence or item of undefined length ends, behind its end mark."""
    while True:
        tag, at = element_at(data, at, coding, depth)
        if tag in (SEQUENCE_END, ITEM_END):
            return at
