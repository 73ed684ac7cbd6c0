"""Encoding of phantom pictures as PNG, also as rare kinds of PNG."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from boneage_ray.phantoms.film import Image


def encode_gray_png(image: NDArray[Any]) -> bytes:
    """Pixels (H, W) or (H, W, 4), 8 or 16 bit -> PNG."""
    done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    assert done
    return bytes(data)


def encode_palette_png(image: Image) -> bytes:
    """A palette PNG with entries from white to black; a reader that takes indices for gray shows it inverted."""
    height, width = image.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), 255 - image], axis=1)
    palette = np.repeat(np.arange(255, -1, -1, dtype=np.uint8), 3)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = (
        (b"IHDR", header),
        (b"PLTE", palette.tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 6)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, body) for name, body in parts)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
