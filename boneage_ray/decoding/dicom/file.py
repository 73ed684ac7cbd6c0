"""Parse a DICOM file up to its pixels, and name objects that have none (DICOM PS3.5 and PS3.10).

The pixels are neither copied nor decompressed here: a `DicomFile` refers to their bytes.
"""

from __future__ import annotations

import io
import logging
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from boneage_ray.decoding.dicom.elements import LONG_VRS, UNDEFINED, Coding, NoElementError, element_at
from boneage_ray.decoding.dicom.start import PREAMBLE_LENGTH, PREFIX, first_element
from boneage_ray.decoding.dicom.values import BROKEN
from boneage_ray.errors import InputProblem

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
_WITHOUT_META = {"implicit": IMPLICIT_LITTLE, "explicit": EXPLICIT_LITTLE, "big": EXPLICIT_BIG, None: EXPLICIT_LITTLE}
_DIRECTORY = "1.2.840.10008.1.3.10"
_MEDIA_CLASS, _SYNTAX = (2, 2), (2, 0x10)
_FIRST_PIXEL_TAG, LAST_PIXEL_TAG = 0x7FE00008, 0x7FE00010  # float, double float, integer pixels
_HEADER_ROOM = 16 << 20  # bytes that header and trailing elements of a deflated file may inflate to

# What pydicom logs can quote element values, those of the patient too.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class PixelElement:
    """The pixel data element: `data` is its value as far as the file has it, `length` what it declares (None: undefined).

    `rest`: what follows it in the file; nothing where `length` is None, for then `data` goes to the end.
    """

    keyword: str
    vr: str | None
    data: memoryview
    length: int | None
    rest: memoryview


@dataclass(frozen=True)
class DicomFile:
    """Elements before the pixels, the transfer syntax (empty: not stated and encapsulated), the pixel data, and flags.

    `broken`: the tags of elements that were left out because they cannot be read.
    """

    tags: Dataset
    syntax: str
    pixel: PixelElement
    flags: tuple[str, ...] = ()
    broken: frozenset[int] = frozenset()

    @property
    def big_endian(self) -> bool:
        """Whether binary values are stored with the high byte first."""
        return self.syntax == EXPLICIT_BIG


def read_file(data: bytes, max_megapixels: float) -> DicomFile:
    """Parse one file. Raises `InputProblem` for what holds no pixels, is cut off, or inflates beyond all measure.

    Flags: `bytes_after_end` (they follow the end of a deflated data set, such as the checksum of gzip), `element_unreadable` (an
    element before the pixels was left out because it cannot be read), `transfer_syntax_wrong` (stated as deflated and is not).
    """
    at = PREAMBLE_LENGTH + 4 if data[PREAMBLE_LENGTH : PREAMBLE_LENGTH + 4] == PREFIX else 0
    meta = dict(_meta_elements(data, at))
    at = max((end for _, end in meta.values()), default=at)
    stated = _uid(meta[_SYNTAX][0]) if _SYNTAX in meta else ""
    media_class = _uid(meta[_MEDIA_CLASS][0]) if _MEDIA_CLASS in meta else ""
    written = first_element(data, at)
    syntax = stated or _WITHOUT_META[written]
    flags: tuple[str, ...] = ()
    if syntax == DEFLATED and written in ("explicit", "implicit"):
        syntax, flags = _WITHOUT_META[written], ("transfer_syntax_wrong",)
    if syntax == DEFLATED:
        data, surplus = _inflate(memoryview(data)[at:], max_megapixels)
        at, flags = 0, ("bytes_after_end",) if surplus else ()
    elif written and (written == "big") != (syntax == EXPLICIT_BIG):
        order = "big" if written == "big" else "little"
        message = f"the file states {name_of(syntax)}, but its elements are in {order} endian: the order of its pixels is unknown"
        raise InputProblem("decode", "unreadable", message)
    broken: frozenset[int] = frozenset()
    try:
        tags, pixel, cut = _parse(data, at, syntax)
    except BROKEN:
        kept, broken = _without_broken(data, at, syntax)
        tags, pixel, cut = _parse(kept, 0, syntax)
        flags = (*flags, "element_unreadable")
    if pixel is None:
        raise _no_pixels(tags, media_class, cut)
    encapsulated_anyhow = not stated and pixel.length is None
    return DicomFile(tags, "" if encapsulated_anyhow else syntax, pixel, flags, broken)


def name_of(uid: str) -> str:
    """The name of a SOP class or transfer syntax for messages; an unknown one by its number."""
    return UID(uid).name if uid else "unknown"


def _uid(value: object) -> str:
    """A UID without padding; empty for what is none, for messages quote it."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    text = text.strip("\0 ")
    return text if re.fullmatch(r"[0-9.]{1,64}", text) else ""


def _meta_elements(data: bytes, at: int) -> Iterator[tuple[tuple[int, int], tuple[bytes, int]]]:
    """((group, element), (value, end)) of the file meta group, which is explicit little endian (implicit is tolerated)."""
    while data[at : at + 2] == b"\x02\0" and len(data) >= at + 12:
        element = int.from_bytes(data[at + 2 : at + 4], "little")
        vr = data[at + 4 : at + 6].decode("latin-1")
        if vr in LONG_VRS:
            start, length = at + 12, int.from_bytes(data[at + 8 : at + 12], "little")
        elif vr.isalpha():
            start, length = at + 8, int.from_bytes(data[at + 6 : at + 8], "little")
        else:
            start, length = at + 8, int.from_bytes(data[at + 4 : at + 8], "little")
        at = start + length
        if at > len(data):
            raise InputProblem("decode", "truncated", "the DICOM file ends inside its file meta information")
        yield (2, element), (data[start:at], at)


class _Source(io.BytesIO):
    """Record whether pydicom asked for more bytes than the file has: it accepts a value that is cut short."""

    cut = False

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        if size is not None and 0 < len(found) < size:
            self.cut = True
        return found


def _parse(data: bytes, at: int, syntax: str) -> tuple[Dataset, PixelElement | None, bool]:
    """Elements before the pixels, the pixel element, and whether the file ends inside an element."""
    source = _Source(data)
    source.seek(at)
    stopped: list[tuple[int, str | None, int]] = []

    def stop(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag >= _FIRST_PIXEL_TAG:
            stopped.append((int(tag), vr, length))
        return int(tag) >= _FIRST_PIXEL_TAG

    tags = read_dataset(source, syntax == IMPLICIT_LITTLE, syntax != EXPLICIT_BIG, stop_when=stop)
    if not stopped or stopped[-1][0] > LAST_PIXEL_TAG:
        return tags, None, source.cut
    tag, vr, length = stopped[-1]
    start = source.tell() + (12 if vr in LONG_VRS else 8)
    end = len(data) if length == UNDEFINED else start + length
    declared = None if length == UNDEFINED else length
    view = memoryview(data)
    return tags, PixelElement(keyword_for_tag(tag), vr, view[start:end], declared, view[end:]), False


def _without_broken(data: bytes, at: int, syntax: str) -> tuple[bytes, frozenset[int]]:
    """The data set from `at` on without the elements before the pixels that pydicom cannot read, and the tags of these.

    A NUL in SpecificCharacterSet, for one, ends its reading; such an element says nothing about the pixels.
    """
    whole, kept, broken = memoryview(data), list[memoryview](), set[int]()
    coding = Coding(">" if syntax == EXPLICIT_BIG else "<", syntax == IMPLICIT_LITTLE)
    try:
        while at < len(data):
            tag, end = element_at(whole, at, coding)
            if tag >= _FIRST_PIXEL_TAG:
                break
            try:
                read_dataset(io.BytesIO(whole[at:end]), coding.implicit, coding.order == "<")
                kept.append(whole[at:end])
            except BROKEN:
                broken.add(tag)
            at = end
    except NoElementError:  # the pixels, which may be cut off, or damage: what is left tells
        pass
    return b"".join((*kept, whole[at:])), frozenset(broken)


def _inflate(packed: memoryview, max_megapixels: float) -> tuple[bytes, bool]:
    """Decompress a deflated data set, up to the size that its own header declares; and whether other bytes follow it."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        head = inflater.decompress(packed, 1 << 20)
        rest = b""
        if not inflater.eof and inflater.unconsumed_tail:
            limit = _declared_bytes(head, max_megapixels) + _HEADER_ROOM
            rest = inflater.decompress(inflater.unconsumed_tail, limit)
    except zlib.error:
        raise InputProblem("decode", "unreadable", "the deflated DICOM data set is damaged") from None
    # Behind the end of the stream the tail holds nothing but its padding.
    if not inflater.eof and inflater.unconsumed_tail:
        raise InputProblem("decode", "too_large", "the deflated data set inflates to more than its header declares")
    if not inflater.eof:
        raise InputProblem("decode", "truncated", "the deflated DICOM data set ends too early")
    # What follows is none of it: a data set that ends too early lacks pixels, which its header tells.
    return head + rest, bool(inflater.unused_data.strip(b"\0"))


def _declared_bytes(head: bytes, max_megapixels: float) -> int:
    tags, _, _ = _parse(head, 0, EXPLICIT_LITTLE)
    rows, columns = int(tags.get("Rows") or 0), int(tags.get("Columns") or 0)
    check_size(rows, columns, max_megapixels)
    return rows * columns * 6  # at most three samples of 16 bits


def check_size(rows: int, columns: int, max_megapixels: float) -> None:
    """Refuse an image of more than `max_megapixels`."""
    if rows * columns > max_megapixels * 1e6:
        message = f"{columns} x {rows} pixels; at most {max_megapixels:g} megapixels"
        raise InputProblem("decode", "too_large", message)


def _no_pixels(tags: Dataset, media_class: str, cut: bool) -> InputProblem:
    """The problem of an object without pixel data: what it is, or that it was cut off before them."""
    kind = _uid(tags.get("SOPClassUID")) or media_class
    if kind == _DIRECTORY or "DirectoryRecordSequence" in tags:
        return InputProblem("decode", "no_pixels", "a DICOMDIR, an index of other files; give the files themselves")
    name = name_of(kind)
    if kind and "Image" not in name and "Segmentation" not in name:
        return InputProblem("decode", "no_pixels", f"a DICOM object without an image: {name}")
    if cut:
        return InputProblem("decode", "truncated", "the DICOM file ends inside its header, before the pixel data")
    what = name if kind else "an object without a SOP class"
    return InputProblem("decode", "no_pixels", f"a DICOM header without pixel data: {what}")
