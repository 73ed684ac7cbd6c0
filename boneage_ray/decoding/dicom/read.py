"""Decode the bytes of one DICOM file to a gray radiograph, or give the reason why it cannot be used.

start.py recognises DICOM. file.py parses the header, with elements.py, and names objects without pixels. layout.py reads how the
pixels are stored. pixels.py turns every transfer syntax into stored values, with tail.py (items, and what follows the pixels),
native.py, codestream.py, rle.py and bits.py. gray.py, wide.py and colour.py turn these into gray. tags.py reads spacing, sex
and identifiers.

Messages name only sizes, transfer syntaxes, object kinds and element keywords: values about the patient are never quoted.
"""

from __future__ import annotations

import math
import warnings
from typing import Literal, NamedTuple

from boneage_ray.decoding.dicom.start import looks_like_dicom
from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.errors import InputProblem

__all__ = ["decode_dicom", "looks_like_dicom", "origin_in", "patient_in"]


class Origin(NamedTuple):
    """Where and in which year a file was made, as its header says."""

    year: str | None = None
    institution: str | None = None


def origin_in(head: bytes, max_megapixels: float = 100.0) -> Origin:
    """The origin of a DICOM file, of at least all bytes before its pixels; an empty one where they cannot be read."""
    from boneage_ray.decoding.dicom import tags
    from boneage_ray.decoding.dicom.file import read_file

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = read_file(head, max_megapixels).tags
            return Origin(tags.read_year(found), tags.read_institution(found))
        except Exception:  # noqa: BLE001  whatever is in the file: the row of the input says what is wrong with it
            return Origin()


def patient_in(head: bytes) -> str | None:
    """The patient hash, as `tags.read_patient` makes it, of a file that was decoded before; None without an id.

    `head`: at least all bytes before the pixels. Raises `InputProblem` if it ends earlier, and no other error.
    """
    from boneage_ray.decoding.dicom import tags
    from boneage_ray.decoding.dicom.file import read_file

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return tags.read_patient(read_file(head, math.inf).tags)
        except InputProblem:
            raise
        except Exception as error:  # noqa: BLE001  as in decode_dicom
            message = f"the DICOM header is damaged ({type(error).__name__})"
            raise InputProblem("decode", "unreadable", message) from None


def decode_dicom(data: bytes, max_megapixels: float, voi: Literal["file", "none"]) -> Radiograph:
    """Decode one single-frame DICOM image of any modality.

    `voi`: "file" applies the first VOI LUT or window of the file, "none" keeps all gray levels. Pixels are (height, width), the
    highest value white: uint8 for images of 8 stored bits and colour, else uint16 (gray.py describes the range).
    Raises `InputProblem` (step decode) for every file that cannot be decoded, and no other error.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes element values in its warnings
        try:
            return _decode(data, max_megapixels, voi)
        except InputProblem:
            raise
        except Exception as error:  # noqa: BLE001  becomes a row of its own
            # Not chained: the texts of parser errors quote element values.
            message = f"the DICOM data are damaged ({type(error).__name__})"
            raise InputProblem("decode", "unreadable", message) from None


def _decode(data: bytes, max_megapixels: float, voi: Literal["file", "none"]) -> Radiograph:
    # Here, not above: an archive without DICOM needs no pydicom.
    from boneage_ray.decoding.dicom import age, colour, gray, pixels, tags, wide
    from boneage_ray.decoding.dicom.file import read_file
    from boneage_ray.decoding.dicom.layout import read_layout

    file = read_file(data, max_megapixels)
    frame = pixels.decode_frame(file, read_layout(file, max_megapixels))
    layout = frame.layout
    if layout.photometric == "PALETTE COLOR":
        shown = gray.Shown(colour.from_palette(file, frame.pixels, layout), colour.COLOUR_FLAGS)
    elif layout.wide:
        shown = wide.from_wide(file, frame.pixels, layout, voi)
    elif layout.samples == 1:
        shown = gray.from_stored(file, frame.pixels, layout, voi)
    else:
        shown = gray.Shown(colour.luminance(frame.pixels, layout), colour.COLOUR_FLAGS)
    spacing, chronological = tags.read_spacing(file.tags), age.read_age(file.tags)
    return Radiograph(
        pixels=shown.pixels,
        sex=tags.read_sex(file.tags),
        pixel_spacing_mm=spacing.mm,
        pixel_spacing_source=spacing.source,
        chronological_age_months=chronological.months,
        uids=tags.read_uids(file.tags),
        patient=tags.read_patient(file.tags),
        modality=tags.read_modality(file.tags),
        regions=tags.read_regions(file.tags),
        view=tags.read_view(file.tags),
        voi=shown.voi,
        flags=(*file.flags, *shown.flags, *frame.flags, *spacing.flags, *chronological.flags),
        is_result=tags.read_is_result(file.tags),
    )
