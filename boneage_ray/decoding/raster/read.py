"""Decode one raster file to upright gray pixels; the format is recognised by its first bytes.

Decoders were chosen by how they treat damage: each of them refuses a file that it cannot read to the end. Decoders that fill in
missing pixels (libjpeg through OpenCV, Pillow or imagecodecs; libtiff through OpenCV) are not used.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy.typing as npt

from boneage_ray.decoding.raster.bmp import decode_bmp, looks_like_bmp
from boneage_ray.decoding.raster.exif import upright
from boneage_ray.decoding.raster.jpeg import decode_jpeg
from boneage_ray.decoding.raster.png import decode_png
from boneage_ray.decoding.raster.tiff import decode_tiff

RasterFormat = Literal["PNG", "JPEG", "TIFF", "BMP"]
_DECODERS = {"PNG": decode_png, "JPEG": decode_jpeg, "TIFF": decode_tiff, "BMP": decode_bmp}
_STARTS: dict[bytes, RasterFormat] = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}


def raster_format(data: bytes) -> RasterFormat | None:
    """Which raster format these bytes start as, or None."""
    for start, kind in _STARTS.items():
        if data.startswith(start):
            return kind
    return "BMP" if looks_like_bmp(data) else None


def decode_raster(data: bytes, kind: RasterFormat, max_megapixels: float) -> npt.NDArray[Any]:
    """(height, width) uint8 or uint16, upright. Raises `InputProblem` (step decode)."""
    pixels, orientation = _DECODERS[kind](data, max_megapixels)
    return upright(pixels, orientation)
