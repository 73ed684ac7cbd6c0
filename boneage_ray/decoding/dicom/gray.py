"""Map stored values to gray in the order of the standard (PS3.4 annex N): Modality, VOI, Presentation.

Stored values have at most 16 bits, so all steps together are one table of at most 65,536 entries that is applied once: a frame is
never held as floating point. Windows are applied by pydicom, lookup tables are read here: pydicom.pixels.processing refuses a
Modality LUT of 12 bits (TypeError) and a VOI LUT of 9, truncates values between two entries, and maps everything to the first
entry where a negative first value is stored as US. The output:

- 8 or fewer stored bits without LUT sequences: uint8. Without a VOI the possible range of values is 0..255, so that an 8-bit
  image keeps its values.
- else uint16. With a VOI its output range is 0..65535; without one, the range of the modality values present in the image.

White is always the highest value. MONOCHROME1 and a Presentation LUT Shape of INVERSE have the same meaning (PS3.3 C.8.11.3.1.2)
and invert once where both are present. Padding pixels are black and are left out of the range.

Flags: `voi_unusable` (the file's VOI is invalid or leaves one gray level: all levels were kept), `voi_clips` (it would ruin the
picture, clipping.py: all levels were kept), `rescale_unusable` (slope or intercept are invalid: 1 and 0 are used),
`modality_lut_unusable` (the Modality LUT is damaged, leaves one gray level, or is made for other values, as clipping.py finds:
neither it nor the VOI, which is made for its values, is used), `polarity_unclear` (photometric interpretation and presentation
shape contradict each other).
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_windowing

from boneage_ray.decoding.dicom.clipping import clipped_share, contrast_kept
from boneage_ray.decoding.dicom.file import DicomFile
from boneage_ray.decoding.dicom.layout import PixelLayout
from boneage_ray.decoding.dicom.values import numbers, sequence, text, words
from boneage_ray.decoding.lookup import look_up

Table = npt.NDArray[np.float64]
_WITHOUT_LUT = ("modality_lut_unusable",)
_MODALITY_LUT = 0x00283000
_NARROWEST = 1e-12  # width of a window
# Share of a picture's differences that a VOI may clip (clipping.py). Measured: the windows of 21 public radiographs (CR, DX, RG,
# 9 different pictures) clip 0 to 0.033, windows that do not fit a hand's 12 bits 0.5 to 1. Of four hands under 26 windows each,
# the predicted bone age moves by 1 to 6 months on average where less than 0.2 is clipped, by 13 from 0.2 to 0.3, by 19 from 0.3
# to 0.4, and by 35 to 46 beyond.
MOST_CLIPPED = 0.2


class Shown(NamedTuple):
    """(rows, columns) gray, uint8 or uint16, and flags; `voi`: in words, the VOI that took more than half of the contrast."""

    pixels: npt.NDArray[Any]
    flags: tuple[str, ...] = ()
    voi: str | None = None


class Levels(NamedTuple):
    """What the bit patterns of a frame mean.

    `values`: the stored value of each; `padding`: which are padding. `deep`: the output has 16 bits. `signed`: stored values, and
    so the first value of a VOI LUT, may be negative.
    """

    values: Table
    padding: npt.NDArray[np.bool_]
    deep: bool
    signed: bool


def from_stored(file: DicomFile, frame: npt.NDArray[Any], layout: PixelLayout, voi: Literal["file", "none"]) -> Shown:
    """(rows, columns) bit patterns to gray."""
    values = stored_values(layout.stored, layout.signed)
    padding = _padding(file.tags, layout, values, file.big_endian)
    deep = layout.stored > 8 or "ModalityLUTSequence" in file.tags or "VOILUTSequence" in file.tags
    return show(file, frame, Levels(values, padding, deep, layout.signed), layout.photometric, voi)


def show(
    file: DicomFile, frame: npt.NDArray[Any], levels: Levels, photometric: str, voi: Literal["file", "none"]
) -> Shown:
    """(rows, columns) bit patterns with the meaning of `levels` to gray."""
    used = _present(frame, len(levels.values)) & ~levels.padding
    modality, flags = modality_values(file.tags, levels.values, file.big_endian)
    lut = flags != _WITHOUT_LUT and sequence(file.tags, "ModalityLUTSequence")
    if _MODALITY_LUT in file.broken or (lut and _lut_ruins(file, frame, modality, levels)):
        modality, flags = levels.values, _WITHOUT_LUT
    top = 65535 if levels.deep else 255
    gray = full = _full_range(modality, modality[used] if levels.deep else modality)
    named = None
    # The file's VOI is made for what its Modality LUT gives.
    if voi == "file" and flags != _WITHOUT_LUT and has_voi(file.tags):
        given = voi_values(file.tags, modality, levels.signed or bool(modality.min() < 0), file.big_endian)
        if given is None or _flattens(np.rint(given * top)[used], modality[used]):
            flags = (*flags, "voi_unusable")
        elif clipped_share(frame, modality, given, levels.padding) > MOST_CLIPPED:
            flags = (*flags, "voi_clips")
        else:
            gray = given
            named = _voi_in_words(file.tags) if contrast_kept(frame, given, full) < 0.5 else None
    inverted, clear = polarity(file.tags, photometric)
    gray = 1.0 - gray if inverted else gray
    table = np.rint(gray * top).astype(np.uint16 if levels.deep else np.uint8)
    table[levels.padding] = 0
    return Shown(look_up(table, frame), flags if clear else (*flags, "polarity_unclear"), named)


def stored_values(stored: int, signed: bool) -> Table:
    """The value of each bit pattern of `stored` bits; two's complement when `signed`."""
    values = np.arange(1 << stored, dtype=np.float64)
    if signed:
        values[len(values) // 2 :] -= len(values)
    return values


def modality_values(tags: Dataset, values: Table, big_endian: bool) -> tuple[Table, tuple[str, ...]]:
    """Stored to modality values by Modality LUT or rescale slope and intercept (PS3.3 C.11.1), and flags."""
    items = sequence(tags, "ModalityLUTSequence")
    if items is None:
        return values, _WITHOUT_LUT
    if items:  # PS3.3 C.11.1: then there is no rescale
        mapped = _lut_values(items[0], values, bool(values.min() < 0), big_endian)
        return (values, _WITHOUT_LUT) if mapped is None else (mapped[0], ())
    slope, intercept = (
        numbers(tags, name) or [default] for name, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    )
    scaled: Table = values * slope[0] + intercept[0]
    if slope[0] == 0 or not np.isfinite(scaled).all():
        return values, ("rescale_unusable",)
    return scaled, ()


def has_voi(tags: Dataset) -> bool:
    """Whether the file names a VOI transformation."""
    return (
        sequence(tags, "VOILUTSequence") != []
        or bool(numbers(tags, "WindowCenter"))
        or bool(numbers(tags, "WindowWidth"))
    )


def voi_values(tags: Dataset, modality: Table, signed: bool, big_endian: bool) -> Table | None:
    """Modality values to 0..1 by the first VOI LUT, else the first window (PS3.3 C.11.2); None if it cannot be used."""
    items = sequence(tags, "VOILUTSequence")
    if items != []:
        mapped = _lut_values(items[0], modality, signed, big_endian) if items else None
        return None if mapped is None else mapped[0] / max(mapped[1], mapped[0].max())
    centers, widths = numbers(tags, "WindowCenter"), numbers(tags, "WindowWidth")
    if not centers or not widths:
        return None
    return window_values(modality, centers[0], widths[0], text(tags, "VOILUTFunction").upper() or "LINEAR")


def window_values(values: Table, center: float, width: float, function: str) -> Table | None:
    """Values to 0..1 by a window of PS3.3 C.11.2.1.2 (LINEAR) or C.11.2.1.3 (SIGMOID, LINEAR_EXACT); None if it is invalid.

    >>> window_values(np.array([1.0, 2.0, 3.0]), 2.5, 3.0, "LINEAR").tolist()
    [0.0, 0.5, 1.0]
    """
    if not (math.isfinite(center) and math.isfinite(width)) or 0 < width < _NARROWEST:
        return None
    window = Dataset()
    # pydicom gives the range of the stored values: of one unsigned bit it is 0 to 1.
    window.add_new("BitsStored", "US", 1)
    window.add_new("PixelRepresentation", "US", 0)
    window.add_new("PhotometricInterpretation", "CS", "MONOCHROME2")
    window.add_new("VOILUTFunction", "CS", function)
    window.add_new("WindowCenter", "FD", center)  # as floating point: a decimal string has 16 characters at most
    window.add_new("WindowWidth", "FD", width)
    try:
        with np.errstate(over="ignore"):  # far below a narrow sigmoid: exp() is infinite and the level 0
            return np.asarray(apply_windowing(values, window))
    except ValueError:  # a width out of range, or a function that the standard does not have
        return None


def _voi_in_words(tags: Dataset) -> str:
    """The VOI that `voi_values` uses, for people."""
    if sequence(tags, "VOILUTSequence"):
        return "VOI LUT"
    center, width = numbers(tags, "WindowCenter")[0], numbers(tags, "WindowWidth")[0]
    return f"window (center {center:g}, width {width:g})"


def polarity(tags: Dataset, photometric: str) -> tuple[bool, bool]:
    """Whether low values are white, and whether the header is free of contradiction about it."""
    shape = text(tags, "PresentationLUTShape").upper()
    white_is_low = photometric == "MONOCHROME1"
    return white_is_low or shape == "INVERSE", shape in ("", "INVERSE" if white_is_low else "IDENTITY")


def _lut_values(item: Dataset, values: Table, signed: bool, big_endian: bool) -> tuple[Table, float] | None:
    """Values through a LUT item, and the top of its output range; the ends hold beyond it. None if it is damaged."""
    table = lookup_table(words(item, "LUTDescriptor", big_endian), item, "LUTData", big_endian)
    if table is None:
        return None
    entries, first, top = table
    index = np.clip(np.rint(values) - signed_first(first, signed), 0, len(entries) - 1).astype(int)
    return entries[index], top


def lookup_table(descriptor: list[int], item: Dataset, data: str, big_endian: bool) -> tuple[Table, int, float] | None:
    """Entries, the first value mapped, and the top of the output range, of a descriptor and its data (PS3.3 C.11.1.1)."""
    if len(descriptor) != 3 or not 1 <= descriptor[2] <= 16:
        return None
    count = descriptor[0] or 65536  # 65,536 does not fit into 16 bits
    entries = words(item, data, big_endian)
    if descriptor[2] <= 8 and len(entries) == (count + 1) // 2 and count > 1:  # two entries a word, the first one low
        entries = [byte for word in entries for byte in (word & 255, word >> 8)]
    if len(entries) < count:
        return None
    return np.array(entries[:count], np.float64), descriptor[1], float((1 << descriptor[2]) - 1)


def signed_first(first: int, signed: bool) -> int:
    return first - 65536 if signed and first > 32767 else first


def _padding(tags: Dataset, layout: PixelLayout, values: Table, big_endian: bool) -> npt.NDArray[np.bool_]:
    """Which values are padding (PS3.3 C.7.5.1.1.2); one that cannot be stored is none."""
    limits = words(tags, "PixelPaddingValue", big_endian)[:1]
    if limits:
        limits += words(tags, "PixelPaddingRangeLimit", big_endian)[:1]
    ends = [signed_first(limit, layout.signed) for limit in limits]
    if not ends:
        return np.zeros(len(values), bool)
    return np.asarray((values >= min(ends)) & (values <= max(ends)))


def _present(frame: npt.NDArray[Any], count: int) -> npt.NDArray[np.bool_]:
    """Which bit patterns occur in the frame (rows, columns), uint8 or uint16. OpenCV counts in a fifth of NumPy's time."""
    counted = cv2.calcHist([np.ascontiguousarray(frame)], [0], None, [count], [0, count])
    return np.asarray(counted.ravel() > 0)


def _flattens(gray: Table, modality: Table) -> bool:
    """Whether gray is one level where the image has more."""
    return bool(gray.size and np.ptp(gray) == 0 and np.ptp(modality) > 0)


def _lut_ruins(file: DicomFile, frame: npt.NDArray[Any], modality: Table, levels: Levels) -> bool:
    """Whether a Modality LUT leaves one gray level, or is for other values: it begins or ends within what is to be seen."""
    item, values = file.tags["ModalityLUTSequence"][0], levels.values
    used = _present(frame, len(values)) & ~levels.padding
    table = lookup_table(words(item, "LUTDescriptor", file.big_endian), item, "LUTData", file.big_endian)
    if table is None or _flattens(modality[used], values[used]):
        return True
    first = signed_first(table[1], bool(values.min() < 0))
    mapped = np.clip((values - first) / max(len(table[0]) - 1, 1), 0, 1)
    return clipped_share(frame, values, mapped, levels.padding) > MOST_CLIPPED


def _full_range(values: Table, counted: Table) -> Table:
    """Scale values to 0..1 over the range of `counted`."""
    low, high = (counted.min(), counted.max()) if counted.size else (0.0, 0.0)
    return np.asarray(np.clip((values - low) / ((high - low) or 1.0), 0, 1))
