"""Check the bytes from the pixel data on: items of compressed pixels, and the elements after them (DICOM PS3.5, 7.5 and A.4).

Pixels have no checksum. Bytes lost from the pixels or inserted into them shift all that follows, so a file that ends with valid
elements or padding has lost and gained none.
"""

from __future__ import annotations

import struct

from boneage_ray.decoding.dicom.file import LAST_PIXEL_TAG, LONG_VRS, UNDEFINED, DicomFile, PixelElement
from boneage_ray.decoding.dicom.start import VRS
from boneage_ray.errors import InputProblem

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")  # of JPEG and JPEG 2000 codestreams: not to be found within one
_MAX_DEPTH = 8


def split_items(pixel: PixelElement) -> tuple[list[memoryview], memoryview]:
    """The items of encapsulated pixel data, the offset table first, and what follows their end.

    Raises `InputProblem`: unreadable where an item does not end at the next one, truncated where the end is missing.
    """
    data, found, at = pixel.data, list[memoryview](), 0
    while at + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHI", data, at)
        tag, start = group << 16 | element, at + 8
        if tag == _SEQUENCE_END and length == 0:
            return found, (data[start:] if pixel.length is None else pixel.rest)
        if tag != _ITEM:
            raise InputProblem("decode", "unreadable", "the compressed pixel data are not divided into items")
        at = start + length
        if at > len(data):
            raise InputProblem("decode", "truncated", f"compressed pixel data end {at - len(data)} bytes too early")
        found.append(data[start:at])
    if pixel.length == at == len(data):  # a length in place of the end mark: not allowed, but equivalent
        return found, pixel.rest
    raise InputProblem("decode", "truncated", "compressed pixel data end without their end mark")


def one_frame(items: list[memoryview]) -> bytes:
    """The frame of the items, joined. Raises `InputProblem` when there is none, or more than one."""
    if len(items) < 2:
        raise InputProblem("decode", "truncated", "no compressed frame follows the offset table")
    if len(items[0]) % 4:
        raise InputProblem("decode", "unreadable", "the compressed pixel data have a damaged offset table")
    frames = max(len(items[0]) // 4, sum(bytes(item[:4]).startswith(_STARTS) for item in items[1:]))
    if frames > 1:
        message = f"{frames} compressed frames, though the header declares one; one radiograph a file is needed"
        raise InputProblem("decode", "multi_frame", message)
    return b"".join(items[1:])


def check_tail(rest: memoryview, file: DicomFile) -> bool:
    """Whether zeros that belong to no element follow the pixels, as on media that are filled up; elements may follow too.

    Fewer zeros than an element has count as black pixels that were shifted out, except for one after an odd number of bytes,
    which is misplaced padding. Raises `InputProblem` unreadable for anything that is neither zeros nor elements.
    """
    order = ">" if file.big_endian else "<"
    at, last = 0, LAST_PIXEL_TAG
    while at < len(rest):
        if not any(rest[at : at + 8]):
            padding = len(rest) == 1 and (file.pixel.length or 0) % 2 == 1
            if bytes(rest[at:]).strip(b"\0") or (len(rest) - at < 8 and not padding):
                raise _broken()
            return not padding
        tag, at = _element(rest, at, order, file.pixel.vr is None, 0)
        if tag <= last:
            raise _broken()
        last = tag
    return False


def _broken() -> InputProblem:
    message = "what follows the pixel data is no DICOM: bytes of the pixels were lost, or others were put in"
    return InputProblem("decode", "unreadable", message)


def _element(data: memoryview, at: int, order: str, implicit: bool, depth: int) -> tuple[int, int]:
    """Tag of the element at `at`, and where the next one begins."""
    if len(data) < at + 8 or depth > _MAX_DEPTH:
        raise _broken()
    group, element, length = struct.unpack_from(order + "HHI", data, at)
    tag, vr, start = group << 16 | element, bytes(data[at + 4 : at + 6]), at + 8
    if not implicit and group != 0xFFFE:
        if vr not in VRS:
            raise _broken()
        (length,) = struct.unpack_from(order + "H", data, at + 6)
        if vr.decode() in LONG_VRS:
            if len(data) < at + 12:
                raise _broken()
            (length,) = struct.unpack_from(order + "I", data, at + 8)
            start = at + 12
    if length == UNDEFINED:
        # Items of an unknown sequence are implicit (PS3.5 6.2.2, note 2).
        return tag, _sequence_end(data, start, order, implicit or vr == b"UN", depth + 1)
    if start + length > len(data):
        raise _broken()
    return tag, start + length


def _sequence_end(data: memoryview, at: int, order: str, implicit: bool, depth: int) -> int:
    """Where a sequence or item of undefined length ends, behind its end mark."""
    while True:
        tag, at = _element(data, at, order, implicit, depth)
        if tag in (_SEQUENCE_END, _ITEM_END):
            return at
