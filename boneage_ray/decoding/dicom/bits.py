"""Select the bits of a decoded word that are the stored value, also where header and codestream disagree.

The precision in a codestream is reliable because the encoder wrote it. Some writers state a precision above BitsStored (16 for
values of 12 bits), which is harmless as long as the values fit. Where they do not fit, BitsStored or HighBit is wrong, and
masking would remove the highest or lowest bits: all bits of the codestream are used and the file is flagged
`bits_stored_wrong`. Rescale and VOI do not change, because they are defined on values, not on bits.

Native words carry no precision, and old files may keep other data outside the stored bits: they are masked by the header and
flagged `bits_outside_stored` where masking removes bits that are neither a sign nor an overlay.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from boneage_ray.decoding.dicom.layout import PixelLayout

_OVERSHOOT = 1.25  # lossy coding exceeds the range by no more than this
_OVERLAYS, _BIT_POSITION = range(0x6000, 0x6020, 2), 0x0102


def from_codestream(
    pixels: npt.NDArray[Any], layout: PixelLayout, precision: int, lossy: bool, tags: Dataset
) -> tuple[npt.NDArray[Any], PixelLayout, tuple[str, ...]]:
    """Bit patterns of the stored values, the corrected layout, and flags.

    `pixels`: as decoded, of `precision` bits. Lossy coding overshoots: its values are clipped, those of lossless coding masked.
    """
    flags: tuple[str, ...] = ()
    if not _fits(pixels, layout, precision, _OVERSHOOT if lossy else 1.0) and not _has_overlays(tags):
        layout, flags = replace(layout, stored=precision, shift=0), ("bits_stored_wrong",)
    return (_clipped if lossy else masked)(pixels, layout), layout, flags


def from_words(
    pixels: npt.NDArray[Any], layout: PixelLayout, tags: Dataset
) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Bit patterns of the stored values of native or RLE words, and flags."""
    fits = _fits(pixels, layout, layout.allocated, 1.0) or _has_overlays(tags)
    return masked(pixels, layout), () if fits else ("bits_outside_stored",)


def _fits(pixels: npt.NDArray[Any], layout: PixelLayout, precision: int, tolerance: float) -> bool:
    """Whether the stored bits hold all that the samples of `precision` bits do."""
    bits = layout.shift + layout.stored
    low, high = int(pixels.min()), int(pixels.max())
    if precision < bits:
        # The values are moved out of the word by HighBit; or their sign is at another bit than that of BitsStored.
        return not layout.shift and (not layout.signed or low < 0 or high < 1 << (precision - 1))
    if layout.shift and int(np.bitwise_or.reduce(pixels, axis=None)) & ((1 << layout.shift) - 1):
        return False
    top = (1 << bits) - 1
    if low >= 0 and high <= top * tolerance:
        return True
    if not layout.signed and low >= 0:
        return False
    signed = pixels if low < 0 else _sign_extended(pixels, precision)
    half = (1 << (bits - 1)) * tolerance
    return bool(signed.min() >= -half and signed.max() <= half - 1)


def _sign_extended(pixels: npt.NDArray[Any], precision: int) -> npt.NDArray[np.int16]:
    room = 16 - precision
    return np.asarray((pixels.astype(np.uint16) << room).view(np.int16) >> room)


def _has_overlays(tags: Dataset) -> bool:
    """Whether the file keeps overlays in bits above the stored ones, as was once allowed."""
    return any((group, _BIT_POSITION) in tags and (group, 0x3000) not in tags for group in _OVERLAYS)


def masked(pixels: npt.NDArray[Any], layout: PixelLayout) -> npt.NDArray[Any]:
    """The stored bits in native byte order; all other bits, where old files keep overlays, are zero."""
    pixels = _unsigned(pixels)
    if layout.shift:
        pixels = pixels >> layout.shift
    top = (1 << layout.stored) - 1
    return pixels if top >= np.iinfo(pixels.dtype).max else pixels & pixels.dtype.type(top)


def _clipped(pixels: npt.NDArray[Any], layout: PixelLayout) -> npt.NDArray[Any]:
    """Clip what lossy coding overshoots: masked to 10 bits, the brightest bone of 1024 would become a black 0."""
    if pixels.dtype.kind == "i":
        half = 1 << (layout.stored - 1)
        return masked(np.clip(pixels.astype(np.int16), -half, half - 1), layout)
    pixels, top = pixels >> layout.shift, (1 << layout.stored) - 1
    return pixels if top >= np.iinfo(pixels.dtype).max else np.minimum(pixels, pixels.dtype.type(top))


def _unsigned(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if pixels.dtype.kind == "i":  # JPEG 2000 has signed samples
        return pixels.astype(np.int16, copy=False).view(np.uint16)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
