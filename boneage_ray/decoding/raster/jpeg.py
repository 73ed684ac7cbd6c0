"""Decode JPEG (ITU-T T.81) by libjpeg-turbo, which stops here at the first error.

libjpeg fills the missing part of a damaged scan with gray and only warns; here every warning is a problem. It does not warn of a
file that ends between two scans, so the markers are read here: every coefficient must be present at full precision.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from boneage_ray.decoding.raster.exif import exif_orientation
from boneage_ray.decoding.raster.gray import gray_of_ink
from boneage_ray.decoding.raster.layout import RasterLayout, check_limits, decode_problem

_FRAMES = {0xC0: "baseline", 0xC1: "extended", 0xC2: "progressive", 0xC9: "arithmetic", 0xCA: "arithmetic"}
_OTHER_FRAMES = {0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical", 0xCB: "lossless"}
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # in scan data: neither a stuffed byte nor a restart
_MAX_SCANS = 100  # each costs a pass over the whole picture; usual are 1 to 12

_PIXELS_PER_BYTE = 512  # each 8 x 8 block costs at least one bit


@dataclass
class Markers:
    """The values of the markers before the end of the image."""

    layout: RasterLayout | None = None
    orientation: int = 1
    adobe: bool = False
    huffman: bool = True
    scans: int = 0
    missing: dict[int, int] = field(default_factory=dict)  # component id: bits, one for each of 64 coefficients
    ended: bool = False


def decode_jpeg(data: bytes, max_megapixels: float) -> tuple[npt.NDArray[np.uint8], int]:
    """Gray pixels as stored, and their orientation. Raises `InputProblem`."""
    markers = walk(data, max_megapixels)
    if markers.layout is None or not markers.ended:
        raise decode_problem("truncated", "JPEG ends before its end-of-image marker")
    if any(markers.missing.values()):
        raise decode_problem("truncated", "JPEG ends before its last scan: some of its coefficients are missing")
    if markers.huffman and markers.layout.width * markers.layout.height > _PIXELS_PER_BYTE * len(data):
        raise decode_problem("truncated", "JPEG with far less data than its pixels need")
    return gray_jpeg(data, markers.layout, 255 if markers.adobe else 0), markers.orientation


def gray_jpeg(data: bytes, layout: RasterLayout, white: int = 255) -> npt.NDArray[np.uint8]:
    """(height, width) of a whole JPEG stream: its luminance, or the gray of its ink. Raises `InputProblem` at any damage."""
    import simplejpeg  # type: ignore[import-untyped]

    ink = layout.channels == 4
    try:
        pixels = simplejpeg.decode_jpeg(data, colorspace="CMYK" if ink else "GRAY", strict=True)
    except ValueError as error:
        reason = str(error).splitlines()[0][:100] if str(error) else "no reason was given"
        raise decode_problem("unreadable", f"JPEG could not be decoded; its data are damaged ({reason})") from error
    if pixels.shape[:2] != (layout.height, layout.width):
        raise decode_problem("unreadable", "JPEG could not be decoded; its pixels are not those of its header")
    return gray_of_ink(pixels, white) if ink else np.asarray(pixels[:, :, 0])


def walk(data: bytes, max_megapixels: float) -> Markers:
    """Read the markers up to the end of the image. A thumbnail inside a segment is passed over with it."""
    found, at = Markers(), 2
    while at + 2 <= len(data):
        if data[at] != 0xFF:
            raise decode_problem("unreadable", f"JPEG is damaged: no marker where one must be (byte {at})")
        code = data[at + 1]
        if code == 0xFF:  # fill
            at += 1
            continue
        if code == 0xD9:
            found.ended = True
            break
        if at + 4 > len(data):
            break
        (length,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + length]
        if length < 2 or len(body) < length - 2:
            raise decode_problem("truncated", "JPEG ends inside its header")
        _note(code, body, found, max_megapixels)
        at += 2 + length
        if code == 0xDA:
            marker = _MARKER.search(data, at)
            at = marker.end() - 2 if marker else len(data)
    return found


def _note(code: int, body: bytes, found: Markers, max_megapixels: float) -> None:
    if code in _OTHER_FRAMES or code in (0xCD, 0xCE, 0xCF):
        kind = _OTHER_FRAMES.get(code, "hierarchical")
        raise decode_problem("unsupported_format", f"{kind} JPEG; baseline, extended and progressive are read")
    if code in _FRAMES:
        found.layout = _frame(body, found)
        found.huffman = code < 0xC9
        check_limits(found.layout, max_megapixels)
    elif code == 0xDA:
        _scan(body, found)
    elif code == 0xE1 and body.startswith(b"Exif\0\0"):
        found.orientation = exif_orientation(body[6:])
    elif code == 0xEE and body.startswith(b"Adobe"):
        found.adobe = True


def _frame(body: bytes, found: Markers) -> RasterLayout:
    if len(body) < 6 or len(body) < 6 + 3 * body[5] or found.layout is not None:
        raise decode_problem("unreadable", "JPEG could not be decoded; its frame header is damaged")
    bits, height, width, components = struct.unpack_from(">BHHB", body)
    if bits != 8:
        raise decode_problem("unsupported_format", f"JPEG of {bits} bits a sample; 8 are read outside of DICOM")
    if components not in (1, 3, 4):
        raise decode_problem("unsupported_format", f"JPEG of {components} components; 1, 3 or 4 are read")
    if height == 0:
        raise decode_problem("unsupported_format", "JPEG that states its height only after its scan")
    found.missing = {body[6 + 3 * k]: 2**64 - 1 for k in range(components)}
    return RasterLayout(width, height, components)


def _scan(body: bytes, found: Markers) -> None:
    """Record which coefficients of which components this scan completes to full precision."""
    found.scans += 1
    if found.layout is None or not body or len(body) < 4 + 2 * body[0]:
        raise decode_problem("unreadable", "JPEG could not be decoded; a scan header is damaged")
    if found.scans > _MAX_SCANS:
        raise decode_problem("unreadable", f"JPEG of more than {_MAX_SCANS} scans")
    first, last, approximation = body[1 + 2 * body[0] : 4 + 2 * body[0]]
    if approximation & 15 == 0 and first <= last <= 63:
        complete = (1 << last + 1) - (1 << first)
        for k in range(body[0]):
            component = body[1 + 2 * k]
            found.missing[component] = found.missing.get(component, 0) & ~complete
