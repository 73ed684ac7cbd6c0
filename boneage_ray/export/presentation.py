"""A result row as a DICOM Grayscale Softcopy Presentation State: a viewer draws landmarks and words over the radiograph itself.

Three layers, which a viewer can switch off: the result in words, the landmarks, and their names. Gray levels are those of the
source: its rescale or Modality LUT and its first window or VOI LUT are copied, because a viewer uses those of a presentation
state in place of the image's. As in a report the centre of pixel (0, 0) is (0.5, 0.5).
"""

from __future__ import annotations

import math
from copy import deepcopy
from datetime import datetime

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.valuerep import format_number_as_ds

from boneage_ray.decoding.dicom.file import read_file
from boneage_ray.decoding.dicom.values import numbers, sequence, text
from boneage_ray.errors import InputProblem
from boneage_ray.export.envelope import PRESENTATION, enveloped, reference
from boneage_ray.export.source import MAX_MEGAPIXELS, Source
from boneage_ray.export.words import NOT_FOR_DIAGNOSIS, findings_in_words, flags_in_words, model_in_words
from boneage_ray.records.schema import Row

_LAYERS = ("RESULT", "LANDMARKS", "NAMES")
_CENTRE = 0.5
_TEXT_BOX = (0.01, 0.01, 0.99, 0.2)  # left, top, right, bottom: shares of what is displayed
_LUT = ("LUTDescriptor", "LUTData")


def make_presentation(source: Source, ended: datetime) -> Dataset:
    """The presentation state of one row that has findings. Raises `InputProblem` for a colour image, which has no gray levels."""
    tags = read_file(source.data, MAX_MEGAPIXELS).tags
    photometric, size = text(tags, "PhotometricInterpretation"), (text(tags, "Columns"), text(tags, "Rows"))
    if not photometric.startswith("MONOCHROME"):
        raise InputProblem("decode", "unsupported_format", "a presentation state of gray levels fits no colour image")
    made = enveloped(PRESENTATION, source.row, source.header, ended)
    with disable_value_validation():
        made.ContentLabel, made.ContentDescription, made.ContentCreatorName = "BONEAGE", "Result, not for diagnosis", ""
        made.Laterality = source.header.Laterality
        made.PresentationCreationDate, made.PresentationCreationTime = made.ContentDate, made.ContentTime
        series = Dataset()
        series.SeriesInstanceUID, series.ReferencedImageSequence = source.header.SeriesInstanceUID, _image(source)
        made.ReferencedSeriesSequence = Sequence([series])
        made.DisplayedAreaSelectionSequence = Sequence([_whole_image(source, size)])
        made.GraphicLayerSequence = Sequence([_layer(name, order) for order, name in enumerate(_LAYERS, 1)])
        made.GraphicAnnotationSequence = Sequence(_annotations(source))
        _copy_gray_levels(tags, made)
        is_inverse = photometric == "MONOCHROME1" or text(tags, "PresentationLUTShape") == "INVERSE"
        made.PresentationLUTShape = "INVERSE" if is_inverse else "IDENTITY"
    return made


def _image(source: Source) -> Sequence:
    return Sequence([reference(source.header)])


def _whole_image(source: Source, size: tuple[str, str]) -> Dataset:
    area = Dataset()
    area.ReferencedImageSequence = _image(source)
    area.DisplayedAreaTopLeftHandCorner, area.DisplayedAreaBottomRightHandCorner = [1, 1], [int(side) for side in size]
    area.PresentationSizeMode, area.PresentationPixelAspectRatio = "SCALE TO FIT", [1, 1]
    return area


def _layer(name: str, order: int) -> Dataset:
    layer = Dataset()
    layer.GraphicLayer, layer.GraphicLayerOrder = name, order
    return layer


def _annotations(source: Source) -> list[Dataset]:
    """One for each layer that has something."""
    points = source.row["landmarks"] or ()
    held = [
        ("RESULT", "TextObjectSequence", [_words(source.row)]),
        ("LANDMARKS", "GraphicObjectSequence", [_point(point["x"], point["y"]) for point in points]),
        ("NAMES", "TextObjectSequence", [_name(point["name"], point["x"], point["y"]) for point in points]),
    ]
    made = []
    for layer, kind, objects in held:
        if objects:
            annotation = Dataset()
            annotation.ReferencedImageSequence, annotation.GraphicLayer = _image(source), layer
            setattr(annotation, kind, Sequence(objects))
            made.append(annotation)
    return made


def _words(row: Row) -> Dataset:
    lines = [NOT_FOR_DIAGNOSIS, *findings_in_words(row), flags_in_words(row), model_in_words(row)]
    said = Dataset()
    said.BoundingBoxAnnotationUnits = "DISPLAY"
    said.UnformattedTextValue = "\r\n".join(line.replace("\\", "/") for line in lines if line)
    said.BoundingBoxTopLeftHandCorner, said.BoundingBoxBottomRightHandCorner = list(_TEXT_BOX[:2]), list(_TEXT_BOX[2:])
    said.BoundingBoxTextHorizontalJustification = "LEFT"
    return said


def _point(x: float, y: float) -> Dataset:
    point = Dataset()
    point.GraphicAnnotationUnits, point.GraphicDimensions, point.NumberOfGraphicPoints = "PIXEL", 2, 1
    point.GraphicData, point.GraphicType, point.GraphicFilled = [x + _CENTRE, y + _CENTRE], "POINT", "N"
    return point


def _name(name: str, x: float, y: float) -> Dataset:
    said = Dataset()
    said.AnchorPointAnnotationUnits, said.UnformattedTextValue = "PIXEL", name.replace("_", " ")
    said.AnchorPoint, said.AnchorPointVisibility = [x + _CENTRE, y + _CENTRE], "N"
    return said


def _copy_gray_levels(tags: Dataset, made: Dataset) -> None:
    """Rescale or Modality LUT, and the first VOI LUT or window; what is no valid one is left out, as it is when it is scored."""
    if table := _table(tags, "ModalityLUTSequence"):
        made.ModalityLUTSequence = Sequence([table])
    else:
        slope, intercept = _number(tags, "RescaleSlope"), _number(tags, "RescaleIntercept")
        if slope and intercept is not None:
            made.RescaleIntercept, made.RescaleSlope = format_number_as_ds(intercept), format_number_as_ds(slope)
            made.RescaleType = text(tags, "RescaleType") or "US"
    voi = Dataset()
    if table := _table(tags, "VOILUTSequence"):
        voi.VOILUTSequence = Sequence([table])
    else:
        centre, width = _number(tags, "WindowCenter"), _number(tags, "WindowWidth")
        if centre is None or width is None or width < 1:
            return
        voi.WindowCenter, voi.WindowWidth = format_number_as_ds(centre), format_number_as_ds(width)
        if text(tags, "VOILUTFunction") in ("LINEAR_EXACT", "SIGMOID"):
            voi.VOILUTFunction = text(tags, "VOILUTFunction")
    made.SoftcopyVOILUTSequence = Sequence([voi])


def _number(tags: Dataset, keyword: str) -> float | None:
    found = numbers(tags, keyword)
    return found[0] if found and math.isfinite(found[0]) else None


def _table(tags: Dataset, keyword: str) -> Dataset | None:
    """The first item of a sequence of tables, if it holds one."""
    items = sequence(tags, keyword)
    if not items or any(name not in items[0] for name in _LUT) or len(numbers(items[0], "LUTDescriptor")) != 3:
        return None
    return deepcopy(items[0])
