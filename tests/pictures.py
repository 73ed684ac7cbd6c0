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


def tiff_of(pixels, tags=None, *, strips=None, big=False, order="<", pages=1):
    """A TIFF written after the standard, directory first: its bytes end with the last strip.

    `pixels`: (height, width[, channels]), stored as they are unless `strips` gives the bytes of the strips. `tags`: {tag: value
    or list} on top of the usual ones; None leaves one out.
    `big`: BigTIFF. `order`: < or >. `pages`: so many directories, all of the same strips.
    """
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    strips = strips or [np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(order)).tobytes()]
    found = {
        256: width,
        257: height,
        258: [8 * pixels.dtype.itemsize] * channels,
        259: 1,
        262: 2 if channels > 2 else 1,
    }
    found |= {
        273: [0] * len(strips),
        277: channels,
        278: -(-height // len(strips)),
        279: [len(strip) for strip in strips],
    }
    found = {tag: np.atleast_1d(value) for tag, value in sorted((found | (tags or {})).items()) if value is not None}
    word, count, inline = ("Q", "Q", 8) if big else ("I", "H", 4)
    head = struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8)
    head = (b"II" if order == "<" else b"MM") + head
    entry = 4 + 2 * struct.calcsize(order + word)
    directory = struct.calcsize(order + count) + len(found) * entry + struct.calcsize(order + word)
    values_at = len(head) + pages * directory
    at = values_at + sum(8 * len(value) for value in found.values())
    offsets = 324 if 324 in found else 273
    found[offsets] = np.cumsum([at, *map(len, strips[:-1])]) if offsets == 273 or len(strips) > 1 else np.array([at])
    entries, values = b"", b""
    for tag, value in found.items():
        kind, code = (4, "I") if tag in (256, 257, 273, 279, 324, 325) else (7, "B") if tag == 347 else (3, "H")
        body = struct.pack(f"{order}{len(value)}{code}", *value.tolist())
        if len(body) > inline:
            where = struct.pack(order + word, values_at + len(values))
            values += body.ljust(8 * len(value), b"\0")
        else:
            where = body.ljust(inline, b"\0")
        entries += struct.pack(order + "HH" + word, tag, kind, len(value)) + where
    data = head
    for page in range(pages):
        following = 0 if page == pages - 1 else len(head) + (page + 1) * directory
        data += struct.pack(order + count, len(found)) + entries + struct.pack(order + word, following)
    return (data + values).ljust(at, b"\0") + b"".join(strips)


def bmp_of(width, height, bits, body, palette=b"", compression=0, masks=b""):
    """A BMP of these rows (as they lie in the file; a negative height has the top one first)."""
    start = 54 + len(masks) + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(body), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + info + masks + palette + body


def dot(height, width, x, y, sigma):
    """(height, width) uint8 zeros with a bright Gaussian dot at (x, y), pixel centres at integer coordinates."""
    rows, columns = np.mgrid[:height, :width]
    return np.rint(255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))).astype(np.uint8)


def centroid(pixels):
    """(x, y) of the brightness."""
    weights = np.asarray(pixels, float)
    rows, columns = np.mgrid[: weights.shape[0], : weights.shape[1]]
    return (weights * columns).sum() / weights.sum(), (weights * rows).sum() / weights.sum()
