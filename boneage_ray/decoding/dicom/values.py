"""Read values of DICOM elements; an invalid one makes that element unusable, not the file."""

from __future__ import annotations

import struct

import numpy as np
from pydicom.dataset import Dataset

BROKEN = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, NotImplementedError, struct.error)


def numbers(tags: Dataset, keyword: str) -> list[float]:
    """The numbers of an element; empty when it is absent or empty, NaN for what is none.

    Some writers put a comma for the decimal point; such a number is NaN here, and `raw_text` has what was written.
    """
    try:
        value = tags.get(keyword)
        if value is None or value == "":
            return []
        return [
            float(one) for one in (value if isinstance(value, list | tuple) or hasattr(value, "append") else [value])
        ]
    except BROKEN:
        return [float("nan")]


def text(tags: Dataset, keyword: str) -> str:
    """The first text of an element without padding; empty when it is absent or cannot be decoded."""
    try:
        value = tags.get(keyword)
        if hasattr(value, "append"):
            value = value[0] if len(value) else ""
        return "" if value is None else str(value).strip(" \0")
    except BROKEN:
        return ""


def whole_text(tags: Dataset, keyword: str) -> str:
    """All values of an element, separated as in DICOM by a backslash; empty when it is absent or cannot be decoded."""
    try:
        value = tags.get(keyword)
        many = list(value) if hasattr(value, "append") else [value]
        return "\\".join("" if one is None else str(one).strip(" \0") for one in many)
    except BROKEN:
        return ""


def raw_text(tags: Dataset, keyword: str) -> str:
    """What an element says in ASCII, also where it is not of its VR; empty when it is absent or no such text."""
    try:
        element = tags.get_item(keyword)
        value = None if element is None else element.value
        if isinstance(value, bytes):
            return value.decode("ascii")
        many = value if hasattr(value, "append") else [value]
        return "" if value is None else "\\".join(str(one) for one in many)
    except BROKEN:
        return ""


def words(tags: Dataset, keyword: str, big_endian: bool) -> list[int]:
    """The 16-bit words of an element of US, SS or OW, without sign; empty when it is absent or none of these.

    They are read from the raw bytes because the VR, US or SS, is often wrong; the caller decides the sign.
    """
    try:
        element = tags.get_item(keyword)
        value = None if element is None else element.value
        if isinstance(value, bytes):
            # pydicom keeps raw what it has not yet been asked for, in the byte order of the file.
            return [int(word) for word in np.frombuffer(value, ">u2" if big_endian else "<u2", len(value) // 2)]
        if value is None or value == "":
            return []
        many = value if hasattr(value, "append") or isinstance(value, list | tuple) else [value]
        return [int(one) & 0xFFFF for one in many]
    except BROKEN:
        return []
