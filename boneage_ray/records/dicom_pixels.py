"""From the pixel data element to stored values, for every transfer syntax that radiographs come in (PS3.5 sections 8 and 10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from boneage_ray.errors import InputProblem
from boneage_ray.records.dicom_codestream import decode_codestream, decode_rle
from boneage_ray.records.dicom_file import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    DicomFile,
    check_size,
    name_of,
)

NATIVE = frozenset((IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED))
RLE = "1.2.840.10008.1.2.5"
_JPEG = "1.2.840.10008.1.2.4."
# Lossless ones keep junk in the bits above BitsStored, which is masked; lossy ones overshoot, which is clipped.
LOSSLESS = frozenset(_JPEG + end for end in ("57", "70", "80", "90", "201", "202"))
LOSSY = frozenset(_JPEG + end for end in ("50", "51", "81", "91", "203"))
_GRAY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


@dataclass(frozen=True)
class Layout:
    """How the pixels are stored, PS3.3 C.7.6.3: `shift` is the place of the lowest stored bit."""

    rows: int
    columns: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    shift: int
    signed: bool
    planar: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns, samples."""
        return self.rows, self.columns, self.samples


def read_layout(file: DicomFile, max_megapixels: float) -> Layout:
    """Read and check the header; nothing of the pixels is touched. Raises `InputProblem` for what cannot be read."""
    tags = file.tags
    rows, columns = required(tags, "Rows"), required(tags, "Columns")
    frames = whole(tags, "NumberOfFrames")
    if frames is not None and frames > 1:
        raise InputProblem("decode", "multi_frame", f"{frames} frames; one radiograph a file is needed")
    check_size(rows, columns, max_megapixels)
    photometric = str(tags.get("PhotometricInterpretation") or "").strip().upper()
    if not photometric:
        raise _missing("PhotometricInterpretation")
    allocated, stored = required(tags, "BitsAllocated"), required(tags, "BitsStored")
    high = whole(tags, "HighBit")
    layout = Layout(
        rows=rows,
        columns=columns,
        samples=whole(tags, "SamplesPerPixel") or (3 if photometric in _COLOUR else 1),
        photometric=photometric,
        allocated=allocated,
        stored=stored,
        shift=(stored - 1 if high is None else high) + 1 - stored,
        signed=required(tags, "PixelRepresentation", least=0) == 1,
        planar=whole(tags, "PlanarConfiguration") == 1,
    )
    _check_syntax(file)
    _check_format(file, layout)
    return layout


def whole(tags: Dataset, keyword: str) -> int | None:
    """A whole number of the header, or None where it is absent, empty or not a number."""
    try:
        value = tags.get(keyword)
        return None if value is None else int(value)
    except (ValueError, TypeError, OverflowError, AttributeError, NotImplementedError, KeyError):
        return None


def required(tags: Dataset, keyword: str, least: int = 1) -> int:
    """A whole number that an image cannot do without."""
    value = whole(tags, keyword)
    if value is None or value < least:
        raise _missing(keyword)
    return value


def _missing(keyword: str) -> InputProblem:
    return InputProblem("decode", "unreadable", f"the DICOM header lacks a usable {keyword}, which an image needs")


def _check_syntax(file: DicomFile) -> None:
    if file.syntax and file.syntax not in NATIVE | LOSSLESS | LOSSY | {RLE}:
        message = f"transfer syntax {name_of(file.syntax)} ({file.syntax}) is not read"
        raise InputProblem("decode", "unsupported_transfer_syntax", message)


def _check_format(file: DicomFile, layout: Layout) -> None:
    if file.pixel.keyword != "PixelData":
        raise _unsupported(f"floating-point pixels ({file.pixel.keyword})")
    if layout.allocated not in (8, 16):
        raise _unsupported(f"{layout.allocated} bits allocated")
    if layout.photometric in _GRAY:
        samples, deepest = 1, 16
    elif layout.photometric in _COLOUR:
        samples, deepest = 3, 8
    else:
        raise _unsupported("a photometric interpretation other than " + ", ".join((*_GRAY, *_COLOUR)))
    if layout.samples != samples or layout.allocated > deepest:
        raise _unsupported(f"{layout.photometric} of {layout.samples} samples with {layout.allocated} bits")
    if layout.shift < 0 or layout.shift + layout.stored > layout.allocated:
        message = f"impossible header: {layout.stored} bits stored, {layout.allocated} allocated, or a wrong HighBit"
        raise InputProblem("decode", "unreadable", message)


def _unsupported(what: str) -> InputProblem:
    return InputProblem(
        "decode", "unsupported_format", f"{what}; gray or 8-bit colour in 8 or 16 allocated bits is read"
    )


def decode_frame(file: DicomFile, layout: Layout) -> npt.NDArray[Any]:
    """(rows, columns) uint8 or uint16: bit patterns of BitsStored bits, sign not yet taken; of colour the luminance, uint8.

    Raises `InputProblem` truncated when the file holds fewer pixels than it declares, unreadable when they are damaged.
    """
    if file.syntax in NATIVE:
        if file.pixel.length is None:
            raise InputProblem("decode", "unreadable", f"compressed pixel data in a file of {name_of(file.syntax)}")
        pixels = _native(file, layout)
    elif file.syntax == RLE:
        pixels = decode_rle(_fragments(file.pixel.data), layout.shape, layout.allocated // 8)
        pixels = np.moveaxis(pixels, 0, -1) if layout.samples == 3 else pixels
    else:
        pixels = decode_codestream(_fragments(file.pixel.data), layout.shape)
    if layout.samples == 3:
        return _luminance(pixels, layout) if pixels.ndim == 3 else pixels
    lossy = file.syntax not in NATIVE | LOSSLESS | {RLE}
    return _clipped(pixels, layout) if lossy else _masked(pixels, layout)


def _native(file: DicomFile, layout: Layout) -> npt.NDArray[Any]:
    halved = layout.photometric == "YBR_FULL_422"  # four bytes, Y Y Cb Cr, for two pixels
    count = layout.rows * layout.columns * (2 if halved else layout.samples)
    needed = count * layout.allocated // 8
    if len(file.pixel.data) < needed:
        message = f"pixel data hold {len(file.pixel.data)} bytes, {needed} are needed"
        raise InputProblem("decode", "truncated", message)
    if layout.allocated == 16:
        values = np.frombuffer(file.pixel.data, ">u2" if file.big_endian else "<u2", count)
        return values.reshape(layout.rows, layout.columns)
    if file.big_endian and file.pixel.vr == "OW":
        words = np.frombuffer(file.pixel.data, "<u2", len(file.pixel.data) // 2).byteswap().view(np.uint8)
        if len(words) < count:
            raise InputProblem("decode", "truncated", "pixel data in words of two bytes end with half a word")
        values = words[:count]
    else:
        values = np.frombuffer(file.pixel.data, np.uint8, count)
    if halved:
        return values.reshape(-1, 4)[:, :2].reshape(layout.rows, layout.columns)
    if layout.samples == 1:
        return values.reshape(layout.rows, layout.columns)
    if layout.planar:
        return np.moveaxis(values.reshape(3, layout.rows, layout.columns), 0, -1)
    return values.reshape(layout.rows, layout.columns, 3)


def _luminance(pixels: npt.NDArray[Any], layout: Layout) -> npt.NDArray[Any]:
    """(rows, columns, 3) uint8 to its luminance, ITU-R BT.601: the first sample of Y Cb Cr, the weighted sum of RGB."""
    if layout.photometric.startswith("YBR_FULL"):
        return np.ascontiguousarray(pixels[..., 0])
    gray: npt.NDArray[Any] = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    return gray


def _masked(pixels: npt.NDArray[Any], layout: Layout) -> npt.NDArray[Any]:
    """Native byte order, and nothing outside the stored bits: old files keep overlays there."""
    pixels = _unsigned(pixels)
    if layout.shift:
        pixels = pixels >> layout.shift
    top = (1 << layout.stored) - 1
    return pixels if top >= np.iinfo(pixels.dtype).max else pixels & pixels.dtype.type(top)


def _clipped(pixels: npt.NDArray[Any], layout: Layout) -> npt.NDArray[Any]:
    """Lossy coding overshoots: masked, the brightest bone of 1024 would become a black 0 in 10 bits."""
    if pixels.dtype.kind == "i":
        half = 1 << (layout.stored - 1)
        return _masked(np.clip(pixels.astype(np.int16), -half, half - 1), layout)
    top = (1 << layout.stored) - 1
    return pixels if top >= np.iinfo(pixels.dtype).max else np.minimum(pixels, pixels.dtype.type(top))


def _unsigned(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if pixels.dtype.kind == "i":  # JPEG 2000 knows signs itself
        return pixels.astype(np.int16, copy=False).view(np.uint16)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _fragments(data: memoryview) -> bytes:
    """The frame of encapsulated pixel data (PS3.5 A.4): all items after the offset table, joined."""
    found: list[memoryview] = []
    at = 0
    while at + 8 <= len(data):
        tag, length = bytes(data[at : at + 4]), int.from_bytes(data[at + 4 : at + 8], "little")
        if tag == _SEQUENCE_END:
            break
        if tag != _ITEM:
            raise InputProblem("decode", "unreadable", "the compressed pixel data are not divided into items")
        if at + 8 + length > len(data):
            message = f"compressed pixel data end {at + 8 + length - len(data)} bytes too early"
            raise InputProblem("decode", "truncated", message)
        found.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    if len(found) < 2:
        raise InputProblem("decode", "truncated", "no compressed frame follows the offset table")
    return b"".join(found[1:])
