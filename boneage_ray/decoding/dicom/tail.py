"""Check the bytes from the pixel data on: items of compressed pixels, and the elements after them (DICOM PS3.5, 7.5 and A.4).

Pixels have no checksum. Bytes lost from the pixels or inserted into them shift all that follows, so a file that ends with valid
elements or padding has lost and gained none.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from boneage_ray.decoding.dicom.elements import ITEM, SEQUENCE_END, Coding, NoElementError, element_at
from boneage_ray.decoding.dicom.file import LAST_PIXEL_TAG, DicomFile, PixelElement
from boneage_ray.errors import InputProblem

CODESTREAM_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")  # of JPEG and JPEG 2000: not to be found within one
_END_MARK = struct.pack("<HHI", SEQUENCE_END >> 16, SEQUENCE_END & 0xFFFF, 0)


class Items(NamedTuple):
    """The items of encapsulated pixel data, the offset table first, what follows their end, and whether the end is marked."""

    found: list[memoryview]
    rest: memoryview
    ended: bool


def split_items(pixel: PixelElement) -> Items:
    """Divide encapsulated pixel data by the lengths of its items, whatever bytes they hold.

    Where the file ends with a whole item, only the end mark is missing; the caller decides whether the frame is whole.
    Raises `InputProblem`: unreadable where an item does not end at the next one, truncated where an item is cut off.
    """
    data, found, at = pixel.data, list[memoryview](), 0
    while at + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHI", data, at)
        tag, start = group << 16 | element, at + 8
        if tag == SEQUENCE_END and length == 0:
            return Items(found, data[start:] if pixel.length is None else pixel.rest, True)
        if tag != ITEM:
            raise InputProblem("decode", "unreadable", "the compressed pixel data are not divided into items")
        at = start + length
        if at > len(data):
            raise InputProblem("decode", "truncated", f"compressed pixel data end {at - len(data)} bytes too early")
        found.append(data[start:at])
    if pixel.length == at == len(data):  # a length in place of the end mark: not allowed, but equivalent
        return Items(found, pixel.rest, True)
    if pixel.length is None and _END_MARK.startswith(bytes(data[at:])):
        return Items(found, data[len(data) :], False)
    raise InputProblem("decode", "truncated", "compressed pixel data end without their end mark")


def one_frame(items: list[memoryview]) -> bytes:
    """The frame of the items, joined. Raises `InputProblem` when there is none, or more than one."""
    if len(items) < 2:
        raise InputProblem("decode", "truncated", "no compressed frame follows the offset table")
    if len(items[0]) % 4:
        raise InputProblem("decode", "unreadable", "the compressed pixel data have a damaged offset table")
    frames = max(len(items[0]) // 4, sum(bytes(item[:4]).startswith(CODESTREAM_STARTS) for item in items[1:]))
    if frames > 1:
        message = f"{frames} compressed frames, though the header declares one; one radiograph a file is needed"
        raise InputProblem("decode", "multi_frame", message)
    return b"".join(items[1:])


def check_tail(rest: memoryview, file: DicomFile) -> bool:
    """Whether zeros that belong to no element follow the pixels, as on media that are filled up; elements may follow too.

    Fewer zeros than an element has count as black pixels that were shifted out, except for one after an odd number of bytes,
    which is misplaced padding. Raises `InputProblem` unreadable for anything that is neither zeros nor elements.
    """
    coding = Coding(">" if file.big_endian else "<", file.pixel.vr is None)
    at, last = 0, LAST_PIXEL_TAG
    while at < len(rest):
        if not any(rest[at : at + 8]):
            padding = len(rest) == 1 and (file.pixel.length or 0) % 2 == 1
            if bytes(rest[at:]).strip(b"\0") or (len(rest) - at < 8 and not padding):
                raise _broken()
            return not padding
        try:
            tag, at = element_at(rest, at, coding)
        except NoElementError:
            raise _broken() from None
        if tag <= last:
            raise _broken()
        last = tag
    return False


def _broken() -> InputProblem:
    message = "what follows the pixel data is no DICOM: bytes of the pixels were lost, or others were put in"
    return InputProblem("decode", "unreadable", message)
