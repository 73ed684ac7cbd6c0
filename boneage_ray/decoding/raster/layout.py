"""The layout that a raster file's header declares, the limits that it must keep, and the problems that are raised."""

from __future__ import annotations

from dataclasses import dataclass

from boneage_ray.errors import InputProblem, Reason

MAX_BYTES_PER_PIXEL = 8  # four channels of 16 bits


@dataclass(frozen=True)
class RasterLayout:
    """Size as stored, before `orientation` (1 to 8, as in EXIF and TIFF) makes the picture upright."""

    width: int
    height: int
    channels: int = 1
    bits: int = 8
    orientation: int = 1


def decode_problem(reason: Reason, message: str) -> InputProblem:
    """The problem of one file, ready to be raised."""
    return InputProblem("decode", reason, message)


def check_limits(layout: RasterLayout, max_megapixels: float) -> None:
    """Refuse a header beyond the limits before anything is decompressed. Raises `InputProblem`."""
    width, height = layout.width, layout.height
    if width < 1 or height < 1:
        raise decode_problem("unreadable", f"the header declares {width} x {height} pixels")
    if width * height > max_megapixels * 1e6:
        raise decode_problem("too_large", f"{width} x {height} pixels; at most {max_megapixels:g} megapixels")
    if layout.channels * ((layout.bits + 7) // 8) > MAX_BYTES_PER_PIXEL:
        found = f"{layout.channels} channels of {layout.bits} bits"
        raise decode_problem("unsupported_format", f"{found}; at most {MAX_BYTES_PER_PIXEL} bytes a pixel are read")


def one_page(pages: int) -> None:
    """Refuse a file of several pages: which of them shows the hand cannot be known."""
    if pages > 1:
        raise decode_problem("multi_frame", f"{pages} pages; one radiograph a file is needed")
