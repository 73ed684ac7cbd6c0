"""Drawing on pictures for people. Colours are (blue, green, red); points (x, y) in pixels, pixel centres at integers."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
Picture = NDArray[np.uint8]

CYAN, YELLOW, WHITE = (255, 220, 0), (0, 230, 255), (255, 255, 255)
FINE = 3  # fractional bits of OpenCV's sub-pixel coordinates


def circle(picture: Picture, x: float, y: float, radius: float, colour: Colour, width: int = 1) -> None:
    """Draw a circle with a sub-pixel centre; a width of -1 fills it."""
    centre = (round(x * 2**FINE), round(y * 2**FINE))
    cv2.circle(picture, centre, round(radius * 2**FINE), colour, width, cv2.LINE_AA, FINE)


def rings(picture: Picture, points_K2: NDArray[Any], colour: Colour, radius: float) -> None:
    """Draw a ring around each point (K, 2) that is finite."""
    for x, y in points_K2:
        if np.isfinite([x, y]).all():
            circle(picture, x, y, radius, colour)


def outline(picture: Picture, mask: NDArray[Any], colour: Colour) -> None:
    """Draw the outline of a 0/1 mask (H, W) of the picture's size."""
    outlines, _ = cv2.findContours(np.asarray(mask, np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, colour, 1)


def write(picture: Picture, text: str, at: tuple[float, float], size: float) -> None:
    """Write white text with a black edge; `at`: (x, y) of the left end of its base line."""
    left, base = (round(value) for value in at)
    for x, y in ((-1, -1), (-1, 1), (1, -1), (1, 1)):  # a thicker line would make the letters wider
        cv2.putText(picture, text, (left + x, base + y), cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.putText(picture, text, (left, base), cv2.FONT_HERSHEY_SIMPLEX, size, WHITE, 1, cv2.LINE_AA)


def warmed(gray: NDArray[Any], heat: NDArray[np.floating]) -> Picture:
    """A gray image (H, W) as a picture (H, W, 3) with a heat map (H, W) in [0, 1] over it."""
    shown, warm = np.asarray(gray, np.float32)[..., None], np.asarray(heat, np.float32)[..., None]
    colour: Any = cv2.applyColorMap(np.asarray(warm * 255, np.uint8), cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray((shown * (1 - 0.6 * warm) + colour * (0.6 * warm)).astype(np.uint8))


def encode_png(pixels: NDArray[Any]) -> bytes:
    """uint8 (H, W) gray or (H, W, 3) blue, green, red -> PNG. Raises ValueError if OpenCV cannot."""
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise ValueError(f"pixels of shape {pixels.shape} could not be encoded")
    return bytes(data)


def with_texts(png: bytes, texts: Mapping[str, str]) -> bytes:
    """A PNG that also carries texts (Latin-1) under keywords, in tEXt chunks behind its header."""
    chunks = b""
    for keyword, text in texts.items():
        body = keyword.encode("latin-1") + b"\0" + text.encode("latin-1")
        chunks += struct.pack(">I", len(body)) + b"tEXt" + body + struct.pack(">I", zlib.crc32(b"tEXt" + body))
    header = 8 + 25  # signature, and IHDR, which must come first
    return png[:header] + chunks + png[header:]


def encode_jpeg(pixels: NDArray[Any], quality: int = 88) -> bytes:
    """uint8 (H, W) gray or (H, W, 3) blue, green, red -> JPEG, a fifth of a PNG's bytes. Raises ValueError if OpenCV cannot."""
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"pixels of shape {pixels.shape} could not be encoded")
    return bytes(data)
