"""Spacing with its source, sex, UIDs, the patient hash and the body part of a DICOM file."""

from __future__ import annotations

import hashlib
import io

import pydicom
import pytest
from pictures import picture

from boneage_ray.decoding.dicom.read import decode_dicom
from boneage_ray.phantoms.dicom import DicomTags, encode_dicom, file_bytes, uid

IMAGE = picture(16, 12)


def read(**extra):
    return decode_dicom(encode_dicom(IMAGE, DicomTags(7, "F", extra=extra)), 1, "file")


def read_raw(keyword, raw):
    """With the bytes of one element as they are, however wrong."""
    dataset = pydicom.dcmread(io.BytesIO(encode_dicom(IMAGE, DicomTags(7, "F", spacing_mm=(0.1234567, 0.1234567)))))
    old = dataset.get_item(keyword).value
    data = encode_dicom(IMAGE, DicomTags(7, "F", spacing_mm=(0.1234567, 0.1234567)))
    assert data.count(old) == 1
    return decode_dicom(data.replace(old, raw.ljust(len(old))[: len(old)]), 1, "file")


DETECTOR = ("spacing_at_detector",)


@pytest.mark.parametrize(
    ("extra", "mm", "source", "flags"),
    [
        ({}, None, None, ()),
        ({"PixelSpacing": ["0.15", "0.15"]}, 0.15, "dicom:PixelSpacing", ()),
        ({"ImagerPixelSpacing": ["0.2", "0.2"]}, 0.2, "dicom:ImagerPixelSpacing", DETECTOR),
        ({"NominalScannedPixelSpacing": ["0.1", "0.1"]}, 0.1, "dicom:NominalScannedPixelSpacing", DETECTOR),
        ({"PixelSpacing": ["0.15", "0.15"], "ImagerPixelSpacing": ["0.2", "0.2"]}, 0.15, "dicom:PixelSpacing", ()),
        # PS3.3 10.7.1.3: equal and without calibration means that nothing was corrected
        ({"PixelSpacing": ["0.2", "0.2"], "ImagerPixelSpacing": ["0.2", "0.2"]}, 0.2, "dicom:PixelSpacing", DETECTOR),
        (
            {
                "PixelSpacing": ["0.2", "0.2"],
                "ImagerPixelSpacing": ["0.2", "0.2"],
                "PixelSpacingCalibrationType": "FIDUCIAL",
            },
            0.2,
            "dicom:PixelSpacing",
            (),
        ),
        ({"PixelSpacing": ["0.1000", "0.1008"]}, 0.1004, "dicom:PixelSpacing", ()),
        ({"PixelSpacing": ["0.10", "0.11"]}, None, None, ("spacing_not_square",)),
        ({"PixelSpacing": ["0", "0"]}, None, None, ("spacing_unusable",)),
        ({"PixelSpacing": ["-0.1", "-0.1"]}, None, None, ("spacing_unusable",)),
        (
            {"PixelSpacing": ["0", "0"], "ImagerPixelSpacing": ["0.1", "0.1"]},
            0.1,
            "dicom:ImagerPixelSpacing",
            ("spacing_unusable", "spacing_at_detector"),
        ),
        ({"PixelSpacing": ["NaN", "NaN"]}, None, None, ("spacing_unusable",)),
        ({"PixelSpacing": ["0.1"]}, 0.1, "dicom:PixelSpacing", ("spacing_irregular",)),
        ({"PixelSpacing": ["1", "1"]}, None, None, ("spacing_unusable",)),
        ({"PixelSpacing": ["1", "1"], "PixelSpacingCalibrationType": "FIDUCIAL"}, 1.0, "dicom:PixelSpacing", ()),
        (
            {"PixelSpacing": ["1", "1"], "ImagerPixelSpacing": ["0.1", "0.1"]},
            0.1,
            "dicom:ImagerPixelSpacing",
            ("spacing_unusable", "spacing_at_detector"),
        ),
        ({"PixelSpacing": ["0.1", "0.1", "0.1"]}, None, None, ("spacing_unusable",)),
        ({"PixelSpacing": ["150", "150"]}, None, None, ("spacing_unusable",)),  # micrometres, it seems
    ],
)
def test_spacing_and_its_source(extra, mm, source, flags):
    radiograph = read(**extra)
    assert radiograph.pixel_spacing_mm == (None if mm is None else pytest.approx(mm))
    assert (radiograph.pixel_spacing_source, radiograph.flags) == (source, flags)


@pytest.mark.parametrize("raw", [b"0,15\\0,15", b"0,15 \\ 0.15", b"0,150"])
def test_spacing_with_a_decimal_comma_is_read(raw):
    radiograph = read_raw("PixelSpacing", raw)
    assert radiograph.pixel_spacing_mm == pytest.approx(0.15)
    assert radiograph.flags == ("spacing_irregular",)


def test_spacing_of_another_vr_is_read():
    dataset = pydicom.dcmread(io.BytesIO(encode_dicom(IMAGE, DicomTags(7, "F"))))
    dataset.add_new("PixelSpacing", "UT", "0.15\\0.15")
    radiograph = decode_dicom(file_bytes(dataset), 1, "file")
    assert (radiograph.pixel_spacing_mm, radiograph.flags) == (pytest.approx(0.15), ("spacing_irregular",))
    dataset.add_new("PixelSpacing", "UT", "about 0.15")
    dataset.ImagerPixelSpacing = ["0.2", "0.2"]
    radiograph = decode_dicom(file_bytes(dataset), 1, "file")
    assert radiograph.pixel_spacing_mm == pytest.approx(0.2)
    assert radiograph.flags == ("spacing_unusable", "spacing_at_detector")


@pytest.mark.parametrize("raw", [b"abc", b"1,200\\1,200", b"0.1\\x", b"\xff\xfe", b"0,15;0,15"])
def test_spacing_that_is_no_number_is_flagged(raw):
    radiograph = read_raw("PixelSpacing", raw)
    assert (radiograph.pixel_spacing_mm, radiograph.flags) == (None, ("spacing_unusable",))


@pytest.mark.parametrize(
    ("stored", "sex"), [("F", "F"), ("M", "M"), ("O", None), ("", None), ("f ", "F"), ("W", "F"), ("1", None)]
)
def test_sex(stored, sex):
    assert read(PatientSex=stored).sex == sex


@pytest.mark.parametrize(
    ("stored", "sex"), [("Male", "M"), ("weiblich", "F"), (["F", "M"], None), (["M", "M"], None), ("M/F", None)]
)
def test_sex_in_words_and_in_several_values(stored, sex):
    assert read(PatientSex=stored).sex == sex


def test_uids_are_kept():
    assert read().uids == {"study_uid": uid("study", 7), "series_uid": uid("series", 7), "sop_uid": uid("object", 7)}
    assert set(read(StudyInstanceUID=None).uids) == {"series_uid", "sop_uid"}


def test_a_name_in_place_of_a_uid_is_dropped():
    assert set(read_raw("StudyInstanceUID", b"DOE^JANE").uids) == {"series_uid", "sop_uid"}


def test_the_patient_is_known_by_a_hash_only():
    one, same, other = read(PatientID="12345 "), read(PatientID="12345"), read(PatientID="12346")
    assert one.patient == same.patient == hashlib.sha256(b"12345\n").hexdigest()[:32]
    assert other.patient != one.patient
    assert read(PatientID="12345", IssuerOfPatientID="A").patient != one.patient
    assert read(PatientID="").patient is None
    assert "12345" not in repr(one).replace(str(one.patient), "")


def concept(code, scheme, meaning):
    """A sequence of one coded concept."""
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, scheme, meaning
    return [item]


@pytest.mark.parametrize(
    ("extra", "regions"),
    [
        ({"BodyPartExamined": "hand"}, ("HAND",)),
        ({"BodyPartExamined": "Hand li."}, ("HAND",)),
        ({"BodyPartExamined": ["CHEST", "HAND"]}, ("CHEST", "HAND")),
        ({"BodyPartExamined": ""}, ()),
        ({"BodyPartExamined": "Doe^Jane"}, ()),
        ({"BodyPartExamined": "", "AnatomicRegionSequence": concept("T-D8700", "SRT", "")}, ("HAND",)),
        ({"BodyPartExamined": "", "AnatomicRegionSequence": concept("T-04000", "SRT", "Breast")}, ("BREAST",)),
        ({"AnatomicRegionSequence": concept("74670003", "SCT", "Wrist joint")}, ("HAND", "WRIST")),
    ],
)
def test_regions_are_known_words_and_no_other_text(extra, regions):
    assert read(**extra).regions == regions


def test_modality_and_view():
    assert [read(Modality=code).modality for code in ("CR", "ct", "", "Doe^Jane")] == ["CR", "CT", None, None]
    assert [read(ViewPosition=view).view for view in ("PA", "LL", "MLO", "", "Doe")] == [
        *("frontal", "lateral", "mammogram"),
        *(None, None),
    ]
    assert read(ViewCodeSequence=concept("R-10214", "SRT", "postero-anterior")).view == "frontal"
