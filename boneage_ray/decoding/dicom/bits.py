"""Select the bits of a decoded word that are the stored value, also where header and pixels disagree.

One rule holds for native and RLE words and for every codestream. Bits above BitsStored are either a part of the value, and then
BitsStored is wrong, or they are something else, such as an overlay of old files. What tells is how the picture goes on where
these bits change from one pixel to the next: a value that outgrows BitsStored goes on smoothly with them and jumps without them;
an overlay is the other way round. Values are read with all bits and flagged `bits_stored_wrong`, or masked and flagged
`bits_outside_stored`; what is neither is refused. Bits that are a sign, an overlay that the header declares, or the same
everywhere, are masked. Rescale and VOI do not change, because they are defined on values, not on bits.

Bits below the stored ones cannot be separated in this way. The precision of a codestream is reliable, because the encoder wrote
it: with a HighBit that would cut off its bits, all of them are used, flagged `bits_stored_wrong`. Of words they are masked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from boneage_ray.decoding.dicom.codestream import Codestream
from boneage_ray.decoding.dicom.layout import PixelLayout
from boneage_ray.decoding.lookup import row_blocks
from boneage_ray.errors import InputProblem

_OVERSHOOT = 1.25  # lossy coding exceeds the range by no more than this
# Of neighbours one step of the higher bits apart, the share that is nearer with them than without. Measured on phantoms: 0 for
# bits that are set beside the values, 0.13 to 0.9 for values that outgrow BitsStored by 1 to 4 bits (sharp edges make it low).
_BESIDE, _A_PART = 0.05, 0.15
_FEW = 0.05
_ROUGH = 0.2  # of the stored range: no picture where the higher bits change; random values differ by a third
_OVERLAYS, _BIT_POSITION = range(0x6000, 0x6020, 2), 0x0102


def from_codestream(
    pixels: npt.NDArray[Any], layout: PixelLayout, header: Codestream, lossy: bool, tags: Dataset
) -> tuple[npt.NDArray[Any], PixelLayout, tuple[str, ...]]:
    """Bit patterns of the stored values, the corrected layout, and flags.

    `pixels`: as decoded, of the precision of `header`. `lossy`: they may be coded with losses, by the header or the transfer
    syntax. Lossy coding overshoots: its values are clipped, those of lossless coding masked. What lies beside the values does not
    survive it: of a lossy codestream all bits are values. Raises `InputProblem` unreadable where nothing tells what the bits
    above the stored ones are.
    """
    if _fits(pixels, layout, header.precision, _OVERSHOOT if lossy else 1.0):
        return (_clipped if lossy else masked)(pixels, layout), layout, ()
    if _has_overlays(tags):
        return (masked if header.lossless else _clipped)(pixels, layout), layout, ()
    above = not layout.shift and header.precision >= layout.stored
    if above and header.lossless and not _belong(pixels, layout, header.precision):
        return masked(pixels, layout), layout, ("bits_outside_stored",)
    layout = replace(layout, stored=header.precision, shift=0)
    return (_clipped if lossy else masked)(pixels, layout), layout, ("bits_stored_wrong",)


def from_words(
    pixels: npt.NDArray[Any], layout: PixelLayout, tags: Dataset
) -> tuple[npt.NDArray[Any], PixelLayout, tuple[str, ...]]:
    """Bit patterns of the stored values of native or RLE words, the corrected layout, and flags; raises like the above."""
    if _fits(pixels, layout, layout.allocated, 1.0) or _has_overlays(tags):
        return masked(pixels, layout), layout, ()
    if _belong(_unsigned(pixels) >> layout.shift, layout, layout.allocated - layout.shift):
        layout = replace(layout, stored=layout.allocated - layout.shift)
        return masked(pixels, layout), layout, ("bits_stored_wrong",)
    return masked(pixels, layout), layout, ("bits_outside_stored",)


def _belong(pixels: npt.NDArray[Any], layout: PixelLayout, precision: int) -> bool:
    """Whether the bits above the stored ones are a part of the values, not something else beside them.

    `pixels`: words of `precision` bits, the lowest one stored. Looks at neighbours in a row between which these bits change what
    is left of the value without them. Raises `InputProblem` unreadable where they tell neither.
    """
    words = _unsigned(pixels)
    planes = np.moveaxis(words, -1, 0) if words.ndim == 3 else words[None]
    parts = [_changes(plane[rows], layout, precision) for plane in planes for rows in row_blocks(plane)]
    whole, rest, higher = (np.abs(np.concatenate(part)) for part in zip(*parts, strict=True))
    if not higher.size:
        return False  # the same everywhere, or below the stored bits
    step_by_step = higher == 1 << layout.stored
    if step_by_step.mean() < _FEW:  # a value passes through all of its levels
        if rest.mean() > _ROUGH * (1 << layout.stored):
            raise _doubtful(layout)
        return False
    smooth = float((whole < rest)[step_by_step].mean())
    if _BESIDE < smooth < _A_PART:
        raise _doubtful(layout)
    return smooth >= _A_PART


def _changes(words: npt.NDArray[Any], layout: PixelLayout, precision: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Differences of neighbours of the words, of their stored bits, and of what is above these, where the last is not zero."""
    whole, rest = (_with_sign(words, bits, layout.signed) for bits in (precision, layout.stored))
    higher = np.diff(whole - rest)
    changed = higher != 0
    step = max(1, int(changed.sum()) >> 12)
    return tuple(each[changed][::step] for each in (np.diff(whole), np.diff(rest), higher))


def _with_sign(words: npt.NDArray[Any], bits: int, signed: bool) -> npt.NDArray[np.int64]:
    """The values of the lowest bits of words."""
    values = words.astype(np.int64) & ((1 << bits) - 1)
    return values - ((values >> (bits - 1) & 1) << bits) if signed else values


def _doubtful(layout: PixelLayout) -> InputProblem:
    message = f"values of more than {layout.stored} bits: BitsStored is wrong, or other data lie above them"
    return InputProblem("decode", "unreadable", message)


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


def _sign_extended(pixels: npt.NDArray[Any], precision: int) -> npt.NDArray[Any]:
    size = 32 if precision > 16 else 16
    room = size - precision
    return np.asarray((pixels.astype(f"u{size // 8}") << room).view(f"i{size // 8}") >> room)


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


def wide_values(patterns: npt.NDArray[Any], layout: PixelLayout) -> npt.NDArray[Any]:
    """The values of bit patterns in words of 32 bits."""
    return _sign_extended(patterns, layout.stored) if layout.signed else patterns


def _unsigned(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if pixels.dtype.kind == "i":  # JPEG 2000 has signed samples
        return pixels.astype(np.int16, copy=False).view(np.uint16)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
