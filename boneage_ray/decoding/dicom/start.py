"""Recognise DICOM by the first bytes of a file, without pydicom because every file of an archive is checked."""

from __future__ import annotations

from typing import Literal

from boneage_ray.decoding.dicom.elements import VRS, Coding, NoElementError, element_at

PREFIX = b"DICM"
PREAMBLE_LENGTH = 128
_FIRST_GROUPS = (2, 4, 8)  # file meta, directory, identification: with one of these most objects begin
_IMAGE, _ROWS, _MOST_ELEMENTS = 0x28, 0x00280010, 1000
_CODINGS: dict[Literal["explicit", "implicit", "big"], Coding] = {
    "explicit": Coding("<", False),
    "implicit": Coding("<", True),
    "big": Coding(">", False),
}


def looks_like_dicom(data: bytes) -> bool:
    """Whether the bytes begin as a DICOM object: with or without preamble and file meta, in any byte order.

    Reads the first 200 bytes and one more tag, or the tags up to Rows where the first one is of a later group than 0008. A file
    that is both TIFF and DICOM, by its preamble, is DICOM.
    """
    return data[PREAMBLE_LENGTH : PREAMBLE_LENGTH + 4] == PREFIX or first_element(data, 0) is not None


def first_element(data: bytes, at: int) -> Literal["explicit", "implicit", "big"] | None:
    """How the element at `at` is written, if it can be the first of an object (explicit and implicit are little endian)."""
    if len(data) < at + 8:
        return None
    explicit = data[at + 4 : at + 6] in VRS
    little, big = (int.from_bytes(data[at : at + 2], order) for order in ("little", "big"))
    if explicit and (little in _FIRST_GROUPS or big in _FIRST_GROUPS):
        return "explicit" if little in _FIRST_GROUPS else "big"
    if not explicit and little in _FIRST_GROUPS:
        return "implicit" if _next_tag_follows(data, at) else None
    ways: tuple[Literal["explicit", "implicit", "big"], ...] = ("explicit", "big") if explicit else ("implicit",)
    later = {"explicit": little, "implicit": little, "big": big}
    return next((way for way in ways if 8 < later[way] <= _IMAGE and _leads_to_rows(data, at, _CODINGS[way])), None)


def _leads_to_rows(data: bytes, at: int, coding: Coding) -> bool:
    """Whether the lengths of elements in rising order lead to Rows: a data set that lacks its beginning, and no other bytes."""
    whole, last = memoryview(data), 0
    for _ in range(_MOST_ELEMENTS):
        try:
            tag, after = element_at(whole, at, coding)
        except NoElementError:
            return False
        if tag <= last or tag > _ROWS:
            return False
        if tag == _ROWS:
            return True
        at, last = after, tag
    return False


def _next_tag_follows(data: bytes, at: int) -> bool:
    """Whether the length of an implicit element, which has no VR to check, leads to a tag that may follow."""
    length = int.from_bytes(data[at + 4 : at + 8], "little")
    after = at + 8 + length
    if length % 2 or length > 1024 or len(data) < after + 8:
        return False
    return _tag(data, at) < _tag(data, after) < (0x7FE1, 0)


def _tag(data: bytes, at: int) -> tuple[int, int]:
    return int.from_bytes(data[at : at + 2], "little"), int.from_bytes(data[at + 2 : at + 4], "little")
