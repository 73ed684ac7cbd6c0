"""Small image files for tests: a gray picture with texture, encoded in many ways."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

PNG_START = b"\x89PNG\r\n\x1a\n"


def picture(height=200, width=160, seed=0):
    """(height, width) uint8: a ramp, a bright block, noise."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 150, width)[None, :] + np.linspace(0, 60, height)[:, None]
    ramp[height // 4 : height // 2, width // 4 : width // 2] += 30
    return (ramp + rng.integers(0, 12, ramp.shape)).astype(np.uint8)


def encoded(pixels, form="PNG", mode=None, **options):
    """Bytes of an image file, by Pillow."""
    image = Image.fromarray(pixels)
    if mode is not None:
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind, data=b""):
    """One PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(height, width, body, depth=8, colour=0, interlaced=0):
    """A PNG of raw filtered rows `body`, or of a header that lies about them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return PNG_START + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND")


def interlaced_png(pixels):
    """An Adam7 PNG of (height, width) uint8 pixels, written after the standard (Pillow writes none)."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    parts = [pixels[top::down, left::right] for top, left, down, right in passes]
    body = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    return png_of(*pixels.shape, body, interlaced=1)


def dot(height, width, x, y, sigma):
    """(height, width) uint8 zeros with a bright Gaussian dot at (x, y), pixel centres at integer coordinates."""
    rows, columns = np.mgrid[:height, :width]
    return np.rint(255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))).astype(np.uint8)


def centroid(pixels):
    """(x, y) of the brightness."""
    weights = np.asarray(pixels, float)
    rows, columns = np.mgrid[: weights.shape[0], : weights.shape[1]]
    return (weights * columns).sum() / weights.sum(), (weights * rows).sum() / weights.sum()
