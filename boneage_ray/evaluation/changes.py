"""Changes of a radiograph that leave the patient as he is: how it lies, how it was exposed, and how it was stored.

Each takes 8-bit gray pixels (height, width) and returns a `Changed`. Pixel centres are at integers, points are (x, y).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]
Matrix = NDArray[np.float64]

STILL: Matrix = np.array([[1.0, 0, 0], [0, 1, 0]])  # every point stays where it is
SHARE_OF_LETTER = 0.09  # height of a marker, as a share of the image's


class Changed(NamedTuple):
    """The changed pixels, uint8 or uint16, and the (2, 3) matrix that takes a point of the given image to its new place."""

    pixels: NDArray[Any]
    matrix: Matrix


class Change(NamedTuple):
    """A change under its name (what a report calls it), in its group."""

    group: str
    name: str
    make: Callable[[Gray], Changed]


def turned(image: Gray, degrees: float) -> Changed:
    """Turned about the centre, counterclockwise; corners take the median of the image's edge."""
    height, width = image.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    size, fill = (width, height), float(np.median(edge))
    found: Any = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderValue=fill)
    return Changed(found, np.asarray(matrix, np.float64))


def mirrored(image: Gray) -> Changed:
    """Left and right exchanged."""
    return Changed(np.ascontiguousarray(image[:, ::-1]), np.array([[-1.0, 0, image.shape[1] - 1], [0, 1, 0]]))


def by_levels(image: Gray, table: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Changed:
    """Each gray level in [0, 1] replaced as `table` says, and clipped."""
    levels = np.clip(np.rint(255 * table(np.arange(256) / 255)), 0, 255).astype(np.uint8)
    return Changed(levels[image], STILL)


def brighter(image: Gray, by: float) -> Changed:
    """A share of the gray range added to every pixel."""
    return by_levels(image, lambda level: level + by)


def contrasted(image: Gray, factor: float) -> Changed:
    """Differences from the image's mean multiplied."""
    mean = float(image.mean()) / 255
    return by_levels(image, lambda level: mean + factor * (level - mean))


def with_gamma(image: Gray, exponent: float) -> Changed:
    """Gray levels raised to a power: above 1 is darker."""
    return by_levels(image, lambda level: level**exponent)


def inverted(image: Gray) -> Changed:
    """White and black exchanged."""
    return Changed(255 - image, STILL)


def marked(image: Gray, x: float, y: float) -> Changed:
    """A burned-in white letter L, its lower left corner at this share of width and height."""
    found, (height, width) = image.copy(), image.shape
    letter = SHARE_OF_LETTER * height
    at, scale = (round(x * width), round(y * height)), letter / 22  # the font is 22 pixels high at scale 1
    cv2.putText(found, "L", at, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, max(2, round(letter / 8)), cv2.LINE_AA)
    return Changed(found, STILL)


def framed(image: Gray, share: float, level: int) -> Changed:
    """A border of one gray level around it, as a collimator (black) or a scanner's lid (white) leaves it."""
    top, left = (round(share * side) for side in image.shape)
    found: Any = cv2.copyMakeBorder(image, top, top, left, left, cv2.BORDER_CONSTANT, value=level)
    return Changed(found, np.array([[1.0, 0, left], [0, 1, top]]))


def resized(image: Gray, factor: float) -> Changed:
    """Fewer pixels of the same radiograph."""
    height, width = (max(1, round(factor * side)) for side in image.shape)
    found: Any = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    sx, sy = width / image.shape[1], height / image.shape[0]
    return Changed(found, np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2]]))


def as_jpeg(image: Gray, quality: int) -> Changed:
    """Compressed by JPEG with this quality, and opened again."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    found: Any = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    return Changed(found, STILL)


def in_bits(image: Gray, bits: int) -> Changed:
    """The same gray levels in so many bits: up to 8 as uint8 with fewer levels, above as uint16 from 0 to 2**bits - 1."""
    top = 2**bits - 1
    levels = np.rint(image.astype(np.float64) / 255 * top)
    if bits > 8:
        return Changed(levels.astype(np.uint16), STILL)
    return Changed(np.rint(levels * 255 / top).astype(np.uint8), STILL)


def cropped(image: Gray, top: float, right: float, bottom: float, left: float) -> Changed:
    """Shares of height and width cut off at each side."""
    height, width = image.shape
    y0, y1 = round(top * height), height - round(bottom * height)
    x0, x1 = round(left * width), width - round(right * width)
    return Changed(np.ascontiguousarray(image[y0:y1, x0:x1]), np.array([[1.0, 0, -x0], [0, 1, -y0]]))


def suite() -> list[Change]:
    """All changes that a stability suite makes, in the order of a report."""
    found = [Change("rotation", f"turned by {angle:+d}\u00b0", partial(turned, degrees=angle)) for angle in _ANGLES]
    found += [Change("mirror", "left and right exchanged", mirrored)]
    for by in (-0.2, -0.1, 0.1, 0.2):
        found += [Change("brightness", f"brightness {100 * by:+.0f} %", partial(brighter, by=by))]
    found += [
        Change("contrast", f"contrast {100 * f:.0f} %", partial(contrasted, factor=f)) for f in (0.7, 0.85, 1.2, 1.4)
    ]
    found += [Change("gamma", f"gamma {g:g}", partial(with_gamma, exponent=g)) for g in (0.7, 0.85, 1.2, 1.5)]
    found += [Change("inversion", "white and black exchanged", inverted)]
    found += [Change("marker", "white letter, upper corner", partial(marked, x=0.05, y=0.15))]
    found += [Change("marker", "white letter, lower corner", partial(marked, x=0.85, y=0.95))]
    for name, level in (("black", 0), ("white", 255)):
        found += [Change("border", f"{name} border of 8 %", partial(framed, share=0.08, level=level))]
    found += [
        Change("resolution", f"{100 * f:.0f} % of the pixels a side", partial(resized, factor=f))
        for f in (0.75, 0.5, 0.25)
    ]
    found += [Change("JPEG", f"JPEG quality {quality}", partial(as_jpeg, quality=quality)) for quality in (90, 50, 20)]
    found += [Change("bits", f"{bits} bits", partial(in_bits, bits=bits)) for bits in (6, 8, 12, 16)]
    found += [Change("crop", "5 % cut off all round", partial(cropped, top=0.05, right=0.05, bottom=0.05, left=0.05))]
    found += [Change("crop", "10 % cut off below", partial(cropped, top=0, right=0, bottom=0.1, left=0))]
    return found


_ANGLES = (-20, -10, -5, 5, 10, 20)
