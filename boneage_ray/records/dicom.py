"""The door to DICOM: bytes of one file to a gray radiograph, or the reason why not.

Which part does what: dicom_start.py knows DICOM from other formats, dicom_file.py parses and tells objects without pixels
apart, dicom_layout.py reads how the pixels are stored, dicom_pixels.py with dicom_tail.py (items, and what follows the pixels),
dicom_codestream.py, dicom_rle.py and dicom_bits.py turns every transfer syntax into stored values, dicom_gray.py turns these into
gray, dicom_tags.py reads spacing, sex and ids.

No message names anything but sizes, syntaxes, object kinds and element keywords: what a file says of its patient is never quoted.
"""

from __future__ import annotations

import warnings
from typing import Literal

from boneage_ray.errors import InputProblem
from boneage_ray.records.dicom_start import looks_like_dicom
from boneage_ray.records.radiograph import Radiograph

__all__ = ["decode_dicom", "looks_like_dicom"]


def decode_dicom(data: bytes, max_megapixels: float, voi: Literal["file", "none"]) -> Radiograph:
    """Decode one single-frame DICOM image of any modality.

    `voi`: "file" applies the first VOI LUT or window of the file, "none" keeps all gray levels. Pixels are (height, width), the
    highest value white: uint8 for images of 8 stored bits and colour, else uint16 (dicom_gray.py says over which range).
    Raises `InputProblem` (step decode) for everything that cannot become a radiograph, and nothing else.
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
    # Here, not above: an archive without DICOM does without pydicom.
    from boneage_ray.records import dicom_gray, dicom_pixels, dicom_tags
    from boneage_ray.records.dicom_file import read_file
    from boneage_ray.records.dicom_layout import read_layout

    file = read_file(data, max_megapixels)
    frame = dicom_pixels.decode_frame(file, read_layout(file, max_megapixels))
    pixels, layout = frame.pixels, frame.layout
    flags: tuple[str, ...] = dicom_gray.COLOUR_FLAGS
    if layout.photometric == "PALETTE COLOR":
        pixels = dicom_gray.from_palette(file, pixels, layout)
    elif layout.samples == 1:
        pixels, flags = dicom_gray.from_stored(file, pixels, layout, voi)
    spacing = dicom_tags.read_spacing(file.tags)
    return Radiograph(
        pixels=pixels,
        sex=dicom_tags.read_sex(file.tags),
        pixel_spacing_mm=spacing.mm,
        pixel_spacing_source=spacing.source,
        uids=dicom_tags.read_uids(file.tags),
        patient=dicom_tags.read_patient(file.tags),
        body_part=dicom_tags.read_body_part(file.tags),
        flags=(*flags, *frame.flags, *spacing.flags),
    )
