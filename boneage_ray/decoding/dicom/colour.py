"""Colour becomes luminance: RGB and Y Cb Cr of 8 and 16 bits, and colour palettes (PS3.3 C.7.6.3.1.2 and C.7.6.3.1.5)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydicom.pixels.processing import apply_color_lut

from boneage_ray.decoding.dicom.file import DicomFile
from boneage_ray.decoding.dicom.gray import Table, lookup_table, signed_first, stored_values
from boneage_ray.decoding.dicom.layout import PixelLayout
from boneage_ray.decoding.dicom.values import BROKEN, words
from boneage_ray.decoding.lookup import look_up
from boneage_ray.errors import InputProblem

COLOUR_FLAGS = ("colour_converted",)
_WEIGHTS = {"Red": 0.299, "Green": 0.587, "Blue": 0.114}  # ITU-R BT.601


def luminance(pixels: npt.NDArray[Any], layout: PixelLayout) -> npt.NDArray[Any]:
    """(rows, columns) luminance by ITU-R BT.601 of (rows, columns, 3): the first sample of Y Cb Cr, the weighted sum of RGB.

    Of 8 bits allocated uint8; else uint16, the stored range stretched to 0..65535.
    """
    if pixels.ndim == 2:  # of YBR_FULL_422 only Y was read
        gray = pixels
    elif layout.photometric.startswith("YBR_FULL"):
        gray = np.ascontiguousarray(pixels[..., 0])
    else:
        gray = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    if layout.allocated == 8:
        return gray
    top = (1 << layout.stored) - 1
    return look_up(np.rint(np.arange(top + 1) * (65535 / top)).astype(np.uint16), gray)


def from_palette(file: DicomFile, frame: npt.NDArray[Any], layout: PixelLayout) -> npt.NDArray[Any]:
    """(rows, columns) indices into a colour palette to the luminance of their colours: uint8, of more than 8 bits uint16."""
    values = stored_values(layout.stored, layout.signed)
    gray = (
        _segmented(file, values)
        if "SegmentedRedPaletteColorLookupTableData" in file.tags
        else _whole(file, values, layout)
    )
    top, kind = (65535, np.uint16) if layout.stored > 8 else (255, np.uint8)
    return look_up(np.rint(np.clip(gray, 0, 1) * top).astype(kind), frame)


def _whole(file: DicomFile, values: Table, layout: PixelLayout) -> Table:
    gray = np.zeros(len(values))
    for colour, weight in _WEIGHTS.items():
        name = f"{colour}PaletteColorLookupTable"
        descriptor = words(file.tags, f"{name}Descriptor", file.big_endian)
        table = lookup_table(descriptor, file.tags, f"{name}Data", file.big_endian)
        if table is None:
            raise _damaged()
        entries, first, top = table
        place = np.clip(values - signed_first(first, layout.signed), 0, len(entries) - 1).astype(int)
        gray += weight * entries[place] / top
    return gray


def _segmented(file: DicomFile, values: Table) -> Table:
    """By pydicom, which expands the segments (PS3.3 C.7.9.2)."""
    depth = words(file.tags, "RedPaletteColorLookupTableDescriptor", file.big_endian)[2:3]
    if depth not in ([8], [16]) or values.min() < 0:
        raise _damaged()
    try:
        colours = apply_color_lut(values.astype(np.uint16), file.tags)
    except BROKEN:
        raise _damaged() from None
    return np.asarray(colours.astype(np.float64) @ np.array(list(_WEIGHTS.values())) / ((1 << depth[0]) - 1))


def _damaged() -> InputProblem:
    return InputProblem("decode", "unsupported_format", "a colour palette that is missing or damaged")
