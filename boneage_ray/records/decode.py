"""Bytes to pixels: PNG, JPEG, TIFF and BMP. The format is told by content, never by the file's extension.

Size is checked from the header before any pixel is inflated. Colour becomes gray with the weights 0.299, 0.587, 0.114;
an alpha channel is dropped; palettes are expanded.
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from boneage_ray.anatomy.growth import Sex
from boneage_ray.errors import InputProblem

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_PNG_START = b"\x89PNG\r\n\x1a\n"
_STARTS = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"BM": "BMP"}
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # TIFF 6.0, section 8


@dataclass(frozen=True)
class Radiograph:
    """Pixels as stored, gray; the highest value is white.

    `pixels`: (height, width), uint8 or uint16. `pixel_spacing_mm`: mm per pixel, or None with source None.
    """

    pixels: npt.NDArray[Any]
    sex: Sex | None = None
    pixel_spacing_mm: float | None = None
    pixel_spacing_source: str | None = None
    uids: dict[str, str] = field(default_factory=dict)


def decode(data: bytes, max_megapixels: float = 100.0) -> Radiograph:
    """Decode one image file. Raises `InputProblem` (step decode) with the reason when it cannot be used."""
    kind, width, height, frames, inverted = _header(data)
    if width * height > max_megapixels * 1e6:
        raise InputProblem("decode", "too_large", f"{width} x {height} pixels; at most {max_megapixels:g} megapixels")
    if frames > 1:
        raise InputProblem("decode", "multi_frame", f"{frames} pages; one radiograph a file is needed")
    _check_complete(kind, data)
    pixels = _gray(data, kind)
    if inverted and pixels.dtype == np.uint16:  # OpenCV turns 8-bit TIFFs itself, but leaves 16-bit ones as they are
        pixels = pixels.max() - pixels
    return Radiograph(pixels)


def _header(data: bytes) -> tuple[str, int, int, int, bool]:
    """Format, width, height, number of frames, and whether white is zero; read from the header alone."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise InputProblem("decode", "truncated", "the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                white_is_zero = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
                frames = int(getattr(image, "n_frames", 1))
                return str(image.format), image.width, image.height, frames, white_is_zero
    except UnidentifiedImageError:
        for start, kind in _STARTS.items():
            if data.startswith(start):
                message = f"starts as a {kind}, but its header is damaged or cut off"
                raise InputProblem("decode", "unreadable", message) from None
        known = ", ".join(FORMATS)
        raise InputProblem("decode", "unsupported_format", f"not one of {known} (told by content)") from None
    except Image.DecompressionBombError:
        raise InputProblem("decode", "too_large", "the header declares more pixels than can be accepted") from None
    except (OSError, ValueError, SyntaxError, struct.error, TypeError, KeyError) as error:
        raise InputProblem("decode", "unreadable", f"broken header: {_line(error)}") from error


def _check_complete(kind: str, data: bytes) -> None:
    """Decoders fill what is missing of a cut file with gray; a cut file must not get an age."""
    if kind == "PNG" and not _png_complete(data):
        raise InputProblem("decode", "truncated", "PNG ends before its last chunk")
    if kind == "JPEG" and b"\xff\xd9" not in data[-4096:]:
        raise InputProblem("decode", "truncated", "JPEG ends before its end-of-image marker")


def _png_complete(data: bytes) -> bool:
    at = len(_PNG_START)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + length
    return False


def _gray(data: bytes, kind: str) -> npt.NDArray[Any]:
    import cv2

    # What is wrong with a file is told by its row, not by lines on stderr.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    flags = cv2.IMREAD_UNCHANGED
    if kind == "JPEG":  # IMREAD_UNCHANGED would ignore the EXIF orientation
        flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_GRAYSCALE
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InputProblem("decode", "unreadable", f"{kind} could not be decoded: {_line(error)}") from error
    if pixels is None:
        raise InputProblem("decode", "unreadable", f"{kind} could not be decoded; its data are damaged")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputProblem("decode", "unsupported_format", f"{kind} of {pixels.dtype} pixels; 8 or 16 bits are read")
    if pixels.ndim == 3:
        code = cv2.COLOR_BGRA2GRAY if pixels.shape[2] == 4 else cv2.COLOR_BGR2GRAY
        pixels = cv2.cvtColor(pixels, code)
    return np.ascontiguousarray(pixels)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
