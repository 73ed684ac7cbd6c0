"""The landmarks of a report: one group of measurements each, with its place as a spatial coordinate (SCOORD).

The 32 groups of a head differ in few values from those of the next one. highdicom makes and checks one for each name; the groups
of a row are copies of it with their own values. Sequences that stay are encoded once, and pydicom writes these bytes as they are.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from highdicom import sr
from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.sequence import Sequence
from pydicom.valuerep import DS

from boneage_ray.export import codes
from boneage_ray.export.envelope import REPORT, derived_uid, object_uid
from boneage_ray.records.schema import Row

_CENTRE = 0.5  # of pixel (0, 0): DICOM counts from its corner
_ANY_CLASS, _ANY_UID = "1.2.840.10008.5.1.4.1.1.1.1", "2.25.1"
_HEADER_BYTES = 12  # tag, VR and length of a sequence in explicit VR


def landmark_groups(row: Row, header: Dataset) -> list[Dataset]:
    """A group for each landmark of a row: its name, its place, and how sure that is."""
    report, image = (
        object_uid(REPORT, row),
        _encoded(_region(header.SOPClassUID, header.SOPInstanceUID)["ContentSequence"]),
    )
    return [
        _filled(_group(point["name"]), point, derived_uid(point["name"], report), image)
        for point in row["landmarks"] or ()
    ]


def written_as_they_are(made: Dataset) -> None:
    """Have pydicom write a data set without looking for value representations that depend on others, of which it has none.

    It would look at every level once for each level above, and parse again what is encoded.
    """
    charset = convert_encodings(made.SpecificCharacterSet) if "SpecificCharacterSet" in made else None
    made.set_original_encoding(False, True, charset or made.original_character_set or "iso8859")
    for element in made.elements():
        if element.VR == "SQ" and isinstance(element, DataElement):
            for item in element.value:
                written_as_they_are(item)


@cache
def _group(name: str) -> Dataset:
    """The group of a landmark as highdicom makes it, of any image and place, with its codes encoded."""
    (group,) = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(uid=_ANY_UID, identifier=name),
        referenced_region=_region(_ANY_CLASS, _ANY_UID),
        finding_type=sr.CodedConcept(*(codes.LANDMARK_CODES.get(name) or codes.own("LM", name))),
        measurements=[sr.Measurement(sr.CodedConcept(*codes.LANDMARK_SIGMA), 1.0, sr.CodedConcept(*codes.PIXELS))],
    )
    for item in group.ContentSequence:
        for keyword in ("ConceptNameCodeSequence", "ConceptCodeSequence"):
            if keyword in item:
                encoded = _encoded(item[keyword])
                item[encoded.tag] = encoded
    return group


def _region(sop_class: str, uid: str) -> Any:  # noqa: ANN401  a template of highdicom
    return sr.ImageRegion("POINT", np.zeros((1, 2)), sr.SourceImageForRegion(sop_class, uid))


def _filled(group: Dataset, point: dict[str, Any], uid: str, image: RawDataElement) -> Dataset:
    items = []
    for item in group.ContentSequence:
        mine = _copied(item)
        if item.ValueType == "UIDREF":
            mine.add_new("UID", "UI", uid)
        elif item.ValueType == "SCOORD":
            mine.add_new("GraphicData", "FL", [point["x"] + _CENTRE, point["y"] + _CENTRE])
            mine[image.tag] = image
        elif item.ValueType == "NUM":
            value = _copied(item.MeasuredValueSequence[0])
            sigma = float(f"{point['sigma']:.6g}")
            value.add_new("FloatingPointValue", "FD", sigma)
            value.add_new("NumericValue", "DS", DS(sigma, auto_format=True))
            mine.add_new("MeasuredValueSequence", "SQ", Sequence([value]))
        items.append(mine)
    filled = _copied(group)
    filled.add_new("ContentSequence", "SQ", Sequence(items))
    return filled


def _copied(dataset: Dataset) -> Dataset:
    """The same elements in another data set, to be replaced there and not changed: they are shared."""
    copy = Dataset()
    for element in dataset.elements():
        copy[element.tag] = element
    return copy


def _encoded(element: DataElement) -> RawDataElement:
    """A sequence as its bytes in explicit VR, little endian."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element)
    value = buffer.getvalue()[_HEADER_BYTES:]
    return RawDataElement(element.tag, "SQ", len(value), value, 0, False, True)
