"""Recognise DICOM by the first bytes of a file, without pydicom because every file of an archive is checked."""

from __future__ import annotations

from typing import Literal

PREFIX = b"DICM"
PREAMBLE_LENGTH = 128
VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_FIRST_GROUPS = (2, 4, 8)  # file meta, directory, identification: no DICOM object begins later


def looks_like_dicom(data: bytes) -> bool:
    """Whether the bytes begin as a DICOM object: with or without preamble and file meta, in any byte order.

    Reads the first 200 bytes and one more tag; a file that is both TIFF and DICOM, by its preamble, is DICOM.
    """
    return data[PREAMBLE_LENGTH : PREAMBLE_LENGTH + 4] == PREFIX or first_element(data, 0) is not None


def first_element(data: bytes, at: int) -> Literal["explicit", "implicit", "big"] | None:
    """How the element at `at` is written, if it can be the first of an object (explicit and implicit are little endian)."""
    if len(data) < at + 8:
        return None
    explicit = data[at + 4 : at + 6] in VRS
    little, big = (int.from_bytes(data[at : at + 2], order) for order in ("little", "big"))
    if explicit:
        return "explicit" if little in _FIRST_GROUPS else "big" if big in _FIRST_GROUPS else None
    return "implicit" if little in _FIRST_GROUPS and _next_tag_follows(data, at) else None


def _next_tag_follows(data: bytes, at: int) -> bool:
    """Whether the length of an implicit element, which has no VR to check, leads to a tag that may follow."""
    length = int.from_bytes(data[at + 4 : at + 8], "little")
    after = at + 8 + length
    if length % 2 or length > 1024 or len(data) < after + 8:
        return False
    return _tag(data, at) < _tag(data, after) < (0x7FE1, 0)


def _tag(data: bytes, at: int) -> tuple[int, int]:
    return int.from_bytes(data[at : at + 2], "little"), int.from_bytes(data[at + 2 : at + 4], "little")
