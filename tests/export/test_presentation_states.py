"""Presentation states: valid by dciodvfy, the same gray levels through dcmtk, landmarks at their places, and what gets none."""

from __future__ import annotations

from datetime import UTC, datetime

import cv2
import numpy as np
import pydicom
import pytest
from made_up_scores import HAND, HEAD, PATIENT, dicom_file, output, row_of

from boneage_ray.export.envelope import PRESENTATION, dicom_bytes
from boneage_ray.export.objects import make_object, object_bytes
from boneage_ray.export.source import LeftOut, find_source
from boneage_ray.phantoms.dicom import DicomTags, encode_dicom

MONOCHROME1 = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}
ENDED = datetime(2026, 3, 4, 5, 6, 19, tzinfo=UTC)


def make(path, values):
    found = find_source(row_of(path, values))
    assert not isinstance(found, LeftOut), found
    target = path.with_name("pr.dcm")
    target.write_bytes(dicom_bytes(make_object(PRESENTATION, found, ENDED)))
    return target, pydicom.dcmread(target)


@pytest.mark.parametrize("values", [HAND, HEAD], ids=["hand", "head"])
def test_dciodvfy_finds_no_error_and_it_refers_to_its_image(tmp_path, values):
    path = dicom_file(tmp_path / "a.dcm", 1, WindowCenter="120", WindowWidth="200")
    target, made = make(path, values)
    source = pydicom.dcmread(path)
    text = output("dciodvfy", target)
    assert "GrayscaleSoftcopyPresentationState" in text
    assert [line for line in text.splitlines() if line.startswith("Error")] == []
    assert (made.StudyInstanceUID, made.PatientID, made.Modality) == (
        source.StudyInstanceUID,
        PATIENT["PatientID"],
        "PR",
    )
    (series,) = made.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID != made.SeriesInstanceUID
    assert series.ReferencedImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    (area,) = made.DisplayedAreaSelectionSequence
    assert list(area.DisplayedAreaBottomRightHandCorner) == [300, 400]
    said = made.GraphicAnnotationSequence[0].TextObjectSequence[0].UnformattedTextValue
    assert said.startswith("NOT FOR DIAGNOSIS")


def test_landmarks_are_points_with_their_names_in_layers_of_their_own(tmp_path):
    _, made = make(dicom_file(tmp_path / "a.dcm", 1), HEAD)
    _, points, names = made.GraphicAnnotationSequence
    assert [each.GraphicLayer for each in (points, names)] == ["LANDMARKS", "NAMES"]
    for point, name, landmark in zip(
        points.GraphicObjectSequence, names.TextObjectSequence, HEAD["landmarks"], strict=True
    ):
        assert (point.GraphicType, point.GraphicAnnotationUnits) == ("POINT", "PIXEL")
        assert list(point.GraphicData) == list(name.AnchorPoint) == [landmark["x"] + 0.5, landmark["y"] + 0.5]
        assert name.UnformattedTextValue == landmark["name"].replace("_", " ")
    _, made = make(dicom_file(tmp_path / "b.dcm", 2), HAND)
    assert [each.GraphicLayer for each in made.GraphicAnnotationSequence] == ["RESULT"]


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"WindowCenter": ["1500", "100"], "WindowWidth": ["1000", "10"]},
        {"WindowCenter": "1500", "WindowWidth": "1000", **MONOCHROME1},
        {"RescaleSlope": "2", "RescaleIntercept": "-500", "WindowCenter": "2000", "WindowWidth": "3000"},
        {"WindowWidth": "0", "WindowCenter": "7"},
    ],
    ids=["plain", "two windows", "inverse", "rescaled", "unusable window"],
)
def test_dcmtk_shows_the_gray_levels_that_the_image_alone_has(tmp_path, extra):
    pixels = np.linspace(0, 4095, 96 * 80).reshape(96, 80).astype(np.uint16)
    path = tmp_path / "a.dcm"
    path.write_bytes(encode_dicom(pixels, DicomTags(3, bits=12, spacing_mm=(0.2, 0.2), extra=PATIENT | extra)))
    target, made = make(path, HAND)
    assert made.PresentationLUTShape == ("INVERSE" if "PhotometricInterpretation" in extra else "IDENTITY")
    with_state, alone = tmp_path / "state.pgm", tmp_path / "alone.pgm"
    output("dcmp2pgm", "--pstate", target, path, with_state)
    output("dcm2pnm", *(["+Wi", "1"] if "SoftcopyVOILUTSequence" in made else ["--no-windowing"]), path, alone)
    shown, wanted = (cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).astype(int) for file in (with_state, alone))
    assert shown.max() - shown.min() > 200
    assert np.abs(shown - wanted).max() <= 1


def test_a_colour_image_has_none_and_says_why(tmp_path):
    path = tmp_path / "a.dcm"
    colour = np.zeros((64, 48, 3), np.uint8)
    path.write_bytes(encode_dicom(colour[..., 0], DicomTags(3, bits=8)))
    file = pydicom.dcmread(path)
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PlanarConfiguration = 3, "RGB", 0
    file.PixelData = colour.tobytes()
    file.save_as(path)
    left_out = object_bytes(PRESENTATION, find_source(row_of(path, HAND)), ENDED)
    assert left_out == LeftOut("unsupported_format", "a presentation state of gray levels fits no colour image")
