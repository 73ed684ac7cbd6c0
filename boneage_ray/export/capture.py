"""A result row as a picture in the study: a DICOM secondary capture of the radiograph with its result and "not for diagnosis".

A radiograph without landmarks stays gray, one with landmarks becomes RGB. Pixels are not compressed: every viewer reads them.
"""

from __future__ import annotations

from datetime import datetime

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from boneage_ray.anatomy.cephalometry import LANDMARKS
from boneage_ray.drawing import Picture
from boneage_ray.export.codes import Concept
from boneage_ray.export.envelope import CAPTURE, code_item, enveloped, reference
from boneage_ray.export.source import Source
from boneage_ray.export.words import NOT_FOR_DIAGNOSIS, findings_in_words, flags_in_words, model_in_words
from boneage_ray.records.schema import Row
from boneage_ray.tasks.cephalogram.findings.overlay import Marked, landmark_picture

SIDE = 1024  # pixels of the radiograph's longer side
_LEAST_WIDTH, _LINE, _MARGIN = 560, 24, 10
_FONT, _LARGE, _SMALL = cv2.FONT_HERSHEY_SIMPLEX, 0.62, 0.5
_TEXT, _CAUTION = (235, 235, 235), (120, 200, 255)  # blue, green, red
_SOURCE_IMAGE = Concept("121322", "DCM", "Source image for image processing operation")


def make_capture(source: Source, ended: datetime) -> Dataset:
    """The secondary capture of one row that has findings. Raises `InputProblem` if the file cannot be decoded any more."""
    drawn = result_picture(source.picture(), source.row)
    header = source.header
    made = enveloped(CAPTURE, source.row, header, ended)
    with disable_value_validation():
        made.ConversionType, made.PatientOrientation, made.Laterality = "WSD", "", header.Laterality
        made.ImageType = ["DERIVED", "SECONDARY"]
        made.BurnedInAnnotation, made.LossyImageCompression = "YES", header.LossyImageCompression
        made.DerivationDescription = "Radiograph, made smaller, with a result that is not for diagnosis"
        item = reference(header)
        item.PurposeOfReferenceCodeSequence = Sequence([code_item(_SOURCE_IMAGE)])
        made.SourceImageSequence = Sequence([item])
        _set_pixels(made, drawn)
    return made


def _set_pixels(made: Dataset, drawn: NDArray[np.uint8]) -> None:
    made.Rows, made.Columns = drawn.shape[:2]
    made.SamplesPerPixel = 1 if drawn.ndim == 2 else 3
    made.PhotometricInterpretation = "MONOCHROME2" if drawn.ndim == 2 else "RGB"
    if drawn.ndim == 3:
        made.PlanarConfiguration = 0
        drawn = np.ascontiguousarray(drawn[..., ::-1])
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    data = drawn.tobytes()
    made.PixelData = data + b"\0" * (len(data) % 2)
    made["PixelData"].VR = "OB"


def result_picture(radiograph: NDArray[np.uint8], row: Row) -> NDArray[np.uint8]:
    """The radiograph (H, W) with its landmarks, and its result in words above and below it, never on it.

    Returns (H, W) gray, or (H, W, 3) blue, green, red where there are landmarks.
    """
    shown: Picture = (
        landmark_picture(radiograph, Marked(_points(row), names=False), SIDE)
        if row["landmarks"]
        else _smaller(radiograph)
    )
    above = [*findings_in_words(row), *([flags_in_words(row)] if row["flags"] else [])]
    below = [NOT_FOR_DIAGNOSIS, model_in_words(row)]
    width = max(shown.shape[1], _LEAST_WIDTH)
    bands = [_band(above, width, shown.ndim), _centred(shown, width), _band(below, width, shown.ndim, _CAUTION)]
    return np.concatenate(bands)


def _points(row: Row) -> NDArray[np.float64]:
    places = {point["name"]: (point["x"], point["y"], point["sigma"]) for point in row["landmarks"]}
    return np.array([places.get(name, (np.nan,) * 3) for name in LANDMARKS], np.float64)


def _smaller(radiograph: NDArray[np.uint8]) -> Picture:
    factor = SIDE / max(radiograph.shape)
    size = tuple(max(1, round(side * factor)) for side in radiograph.shape[::-1])
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(radiograph, size, interpolation=method), np.uint8)


def _centred(shown: Picture, width: int) -> Picture:
    left = (width - shown.shape[1]) // 2
    room = [(0, 0), (left, width - shown.shape[1] - left), (0, 0)][: shown.ndim]
    return np.pad(shown, room)


def _band(lines: list[str], width: int, dimensions: int, first: tuple[int, int, int] = _TEXT) -> Picture:
    """A black band (H, width[, 3]) with lines of text, broken between words where they are too long."""
    broken = [
        (part, _LARGE if number == 0 else _SMALL)
        for number, line in enumerate(lines)
        for part in _broken(line, width, number)
    ]
    band = np.zeros((2 * _MARGIN + _LINE * len(broken), width, 3), np.uint8)
    for number, (line, size) in enumerate(broken):
        colour = first if size == _LARGE else _TEXT
        place = (_MARGIN, _MARGIN + _LINE * number + 17)
        cv2.putText(band, line, place, _FONT, size, colour, 1, cv2.LINE_AA)
    return band if dimensions == 3 else np.ascontiguousarray(band.max(2))


def _broken(line: str, width: int, number: int) -> list[str]:
    """A line in pieces that fit."""
    size, pieces = _LARGE if number == 0 else _SMALL, [""]
    for word in "".join(letter if letter.isascii() else "?" for letter in line).split(" "):
        longer = f"{pieces[-1]} {word}".strip()
        (across, _), _ = cv2.getTextSize(longer, _FONT, size, 1)
        if across <= width - 2 * _MARGIN or not pieces[-1]:
            pieces[-1] = longer
        else:
            pieces.append(word)
    return pieces
