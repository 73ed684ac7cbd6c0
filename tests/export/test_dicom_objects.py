"""Structured reports and secondary captures: what others read in them, by validators, dcmtk, highdicom and pydicom."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import cv2
import numpy as np
import pydicom
import pytest
from highdicom import sr
from made_up_scores import HAND, HEAD, PATIENT, STUDY, dicom_file, output, picture, row_of

from boneage_ray.anatomy.cephalometry import LANDMARKS
from boneage_ray.export.capture import result_picture
from boneage_ray.export.codes import LANDMARK_CODES, measured
from boneage_ray.export.envelope import CAPTURE, PRESENTATION, REPORT, dicom_bytes
from boneage_ray.export.objects import make_object
from boneage_ray.export.source import LeftOut, character_set, find_source

ENDED = datetime(2026, 3, 4, 5, 6, 19, tzinfo=UTC)


def make(path, kind, values, seed=1, **extra):
    """An object of a made-up file, written and read again; and the header of that file."""
    source = dicom_file(path / "source.dcm", seed, **extra)
    found = find_source(row_of(source, values))
    assert not isinstance(found, LeftOut), found
    target = path / f"{kind.name}.dcm"
    target.write_bytes(dicom_bytes(make_object(kind, found, ENDED)))
    return target, pydicom.dcmread(target), pydicom.dcmread(source)


def numbers(group):
    """Meaning -> (value, unit) of the measurements of a group."""
    return {m.name.meaning: (float(m.value), m.unit.value) for m in group.get_measurements()}


def test_the_report_of_a_hand_is_read_by_highdicom(tmp_path):
    target, made, source = make(tmp_path, REPORT, HAND)
    assert {k: str(made[k].value) for k in PATIENT | STUDY} == PATIENT | STUDY
    assert (made.StudyInstanceUID, made.PatientSex) == (source.StudyInstanceUID, "F")
    assert made.SeriesInstanceUID != source.SeriesInstanceUID
    assert (made.CompletionFlag, made.VerificationFlag, made.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    read = sr.srread(target)
    assert read.get_evidence() == [
        (source.StudyInstanceUID, source.SeriesInstanceUID, source.SOPInstanceUID, source.SOPClassUID)
    ]
    (group,) = read.content.get_image_measurement_groups()
    assert read.content.get_planar_roi_measurement_groups() == []
    assert numbers(group) == {
        "XR Bone age": (99.4, "mo"),
        "Bone age, lower limit of the interval": (86.0, "mo"),
        "Bone age, upper limit of the interval": (112.04, "mo"),
        "Share of people whose bone age lies in the interval": (90.0, "%"),
        "Current chronological age": (110.0, "mo"),
        "Bone age minus chronological age": (-10.6, "mo"),
    }
    assert [(e.name.meaning, e.value.meaning) for e in group.get_qualitative_evaluations()] == [
        ("Sex that the bone age is predicted for", "Female"),
        ("Stage of growth: child, adolescent or adult", "child"),
        ("Stage of growth: infant, child, pre-adolescent or adolescent", "child"),
        ("Warning about this result", "spacing at detector"),
    ]
    (age,) = group.get_measurements(sr.CodedConcept("85151-9", "LN", "XR Bone age"))
    assert age.method.value == "NETWORK"


def test_dcmtk_prints_the_report_of_a_hand(tmp_path):
    target, _, source = make(tmp_path, REPORT, HAND)
    text = output("dsrdump", "--print-all-codes", "--print-instance-uid", target)
    for line in (
        'NUM:(85151-9,LN,"XR Bone age")="99.4" (mo,UCUM[1.4],"month")'.replace("[1.4]", ""),
        'NUM:(371886008,SCT,"+, range of upper measurement uncertainty")="12.64" (mo,UCUM,"month")',
        'NUM:(371885007,SCT,"-, range of lower measurement uncertainty")="13.4" (mo,UCUM,"month")',
        'CODE:(370129005,SCT,"Measurement Method")=(NETWORK,99BONEAGE,"Estimated by a neural network from one radiograph")',
        'TEXT:(111001,DCM,"Algorithm Name")="made-up"',
        f'IMAGE:(121112,DCM,"Source of Measurement")=(DX image,"{source.SOPInstanceUID}")',
        'CODE:(121058,DCM,"Procedure reported")=(37362-1,LN,"XR Bone age")',
    ):
        assert line in text
    assert "Verification Flag   : UNVERIFIED" in text
    assert "ab" * 32 in output("dcmdump", "+P", "UT", target) + output("dcmdump", "--print-all", target)


def test_a_report_without_interval_or_sex_says_neither(tmp_path):
    values = {"age_months": 60.0, "stages": {}}
    target, _, _ = make(tmp_path, REPORT, values)
    (group,) = sr.srread(target).content.get_image_measurement_groups()
    assert numbers(group) == {"XR Bone age": (60.0, "mo")}
    assert [e.value.meaning for e in group.get_qualitative_evaluations()] == ["Sex unknown"]


def test_the_report_of_a_head_has_its_landmarks_at_their_places(tmp_path):
    target, _, source = make(tmp_path, REPORT, HEAD)
    content = sr.srread(target).content
    (whole,) = content.get_image_measurement_groups()
    assert numbers(whole)["C3: width over height"] == (1.5, "{ratio}")
    assert numbers(whole)["C4: length of the lower border"] == (130.0, "{pixels}")
    assert numbers(whole)["Probability of cervical stage CS4"] == (16.0, "%")
    assert [e.value.value for e in whole.get_qualitative_evaluations()] == ["CS3", "ATYPICAL"]
    groups = content.get_planar_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == list(LANDMARKS)
    for group, point in zip(groups, HEAD["landmarks"], strict=True):
        # The centre of the first pixel is (0, 0) in a row and (0.5, 0.5) in DICOM.
        assert group.roi.value.tolist() == [[point["x"] + 0.5, point["y"] + 0.5]]
        assert group.finding_type.value == LANDMARK_CODES[point["name"]].value
        assert numbers(group) == {"Standard deviation of the landmark's position": (1.5, "{pixels}")}
    assert output("dsrdump", target).count('"Landmark: ') == 32
    assert source.SOPInstanceUID in output("dcmdump", "+P", "ReferencedSOPInstanceUID", target)


def test_the_landmarks_of_a_report_stay_its_own_when_another_is_made(tmp_path):
    rows = [
        row_of(
            dicom_file(tmp_path / f"{seed}.dcm", seed),
            HEAD
            | {"landmarks": [point | {"x": point["x"] + seed, "sigma": seed + 0.25} for point in HEAD["landmarks"]]},
        )
        for seed in (1, 2)
    ]
    made = [make_object(REPORT, find_source(row), ENDED) for row in rows]
    for row, report in zip(rows, made, strict=True):
        read = sr.srread(io.BytesIO(dicom_bytes(report))).content.get_planar_roi_measurement_groups()
        for group, point in zip(read, row["landmarks"], strict=True):
            assert group.roi.value.tolist() == [[point["x"] + 0.5, point["y"] + 0.5]]
            assert numbers(group) == {"Standard deviation of the landmark's position": (point["sigma"], "{pixels}")}
        uids = {group.tracking_uid for group in read}
        assert len(uids) == 32


@pytest.mark.parametrize("kind", [REPORT, CAPTURE], ids=["report", "picture"])
@pytest.mark.parametrize("values", [HAND, HEAD], ids=["hand", "head"])
def test_dciodvfy_finds_no_error(tmp_path, kind, values):
    target, _, _ = make(tmp_path, kind, values, ImageLaterality="L")
    text = output("dciodvfy", target)
    assert {REPORT: "ComprehensiveSR", CAPTURE: "SCImage"}[kind] in text
    assert [line for line in text.splitlines() if line.startswith("Error")] == []


def test_the_picture_of_a_hand_is_the_radiograph_with_words_beside_it(tmp_path):
    target, made, source = make(tmp_path, CAPTURE, HAND, encoding="jpeg-ls", ImageLaterality="L")
    assert (made.StudyInstanceUID, made.PatientID, made.Modality) == (source.StudyInstanceUID, "NB-4711", "OT")
    assert (made.BurnedInAnnotation, made.Laterality, list(made.ImageType)) == ("YES", "L", ["DERIVED", "SECONDARY"])
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert (made.PhotometricInterpretation, made.Columns) == ("MONOCHROME2", 768)
    shown = made.pixel_array
    radiograph = cv2.resize(picture(), (768, 1024), interpolation=cv2.INTER_LINEAR)
    above = next(y for y in range(shown.shape[0] - 1023) if (shown[y : y + 1024] == radiograph).all())
    assert above > 100  # five lines
    assert shown[:above].max() > 200
    assert shown[above + 1024 :].max() > 150
    pgm = tmp_path / "shown.pgm"
    output("dcm2pnm", "+op", target, pgm)
    assert np.array_equal(cv2.imread(str(pgm), cv2.IMREAD_GRAYSCALE), shown)


def test_the_picture_of_a_head_marks_its_landmarks(tmp_path):
    _, made, _ = make(tmp_path, CAPTURE, HEAD)
    assert made.PhotometricInterpretation == "RGB"
    shown, scale = made.pixel_array.astype(int), 1024 / 400
    above = made.Rows - 1024 - 68  # two lines below, of 24 pixels, in a margin of 10 on both sides
    for point in HEAD["landmarks"]:
        x, y = ((point[axis] + 0.5) * scale - 0.5 for axis in ("x", "y"))
        red, _, blue = shown[above + round(y), round(x)]
        assert blue - red > 60, point["name"]


def test_bones_are_bright_in_the_picture_where_they_were_made_bright_for_the_score(tmp_path):
    path = dicom_file(tmp_path / "a.dcm", 3)
    plain, corrected = (
        find_source(row_of(path, HAND | {"flags": flags})).picture() for flags in ([], ["inverted_corrected"])
    )
    assert np.array_equal(plain, picture())
    assert np.array_equal(corrected, 255 - picture())


def test_long_words_are_broken_and_nothing_is_cut_off():
    flags = ["chronological_age_implausible", "spacing_not_square", "pixel_data_longer", "out_of_age_range"]
    row = {**dict.fromkeys(("landmarks", "cvm_stage")), **HAND, "flags": flags, "model": "m", "model_sha256": "ab" * 32}
    row |= {"package_version": "1", "status": "scored"}
    small, large = (result_picture(picture(400, width), row) for width in (60, 300))
    assert small.shape[1] == 560
    assert large.shape[1] == 768
    assert small.shape[0] > large.shape[0]  # more lines


@pytest.mark.parametrize(
    ("extra", "stated"),
    [
        ({"PatientName": "Müller^Änne", "SpecificCharacterSet": "ISO_IR 100"}, "ISO_IR 100"),
        ({"PatientName": "山田^太郎", "SpecificCharacterSet": "ISO_IR 192"}, "ISO_IR 192"),
        (
            {"PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう", "SpecificCharacterSet": ["", "ISO 2022 IR 87"]},
            ["", "ISO 2022 IR 87"],
        ),
    ],
)
def test_names_of_every_script_arrive(tmp_path, extra, stated):
    for kind in (REPORT, CAPTURE):
        _, made, source = make(tmp_path, kind, HAND, **extra)
        assert str(made.PatientName) == str(source.PatientName) == extra["PatientName"]
        assert made.SpecificCharacterSet == stated


def test_a_name_that_its_character_set_cannot_hold_is_written_in_utf_8():
    assert character_set(["Nora"], "ISO_IR 100") is None
    assert character_set(["Łukasz"], "ISO_IR 100") == "ISO_IR 192"
    assert character_set(["Łukasz"], "ISO_IR 101") == "ISO_IR 101"
    assert character_set(["Łukasz"], "nonsense") == "ISO_IR 192"


def test_what_is_no_valid_value_is_left_empty_and_the_object_stays_valid(tmp_path):
    wrong = {"PatientBirthDate": "3 Feb 2011", "StudyTime": "noon", "PatientSex": "girl", "PatientAge": "nine"}
    for kind in (REPORT, CAPTURE):
        target, made, _ = make(tmp_path, kind, HAND, **wrong, ImageLaterality="LEFT")
        assert [str(made[name].value or "") for name in ("PatientBirthDate", "StudyTime", "PatientSex")] == ["", "", ""]
        assert "PatientAge" not in made
        assert "Error" not in output("dciodvfy", target)


@pytest.mark.parametrize("kept", ["a.dcm", "1.2.840.1", "5b" * 32, "results/part-00000.parquet:3"])
def test_a_row_that_does_not_keep_the_place_of_its_file_has_no_object(kept, tmp_path, monkeypatch):
    """Also if a file of that name lies where the command is given."""
    monkeypatch.chdir(tmp_path)
    row = row_of(dicom_file(tmp_path / "a.dcm", 4), HAND)
    assert find_source(row | {"input_uri": kept}).reason == "not_kept"


def test_a_file_that_changed_or_has_no_uid_has_no_object(tmp_path):
    path = dicom_file(tmp_path / "a.dcm", 4)
    row = row_of(path, HAND)
    dicom_file(path, 5)
    assert find_source(row) == LeftOut("changed", "the file has changed since it was scored: score it again")
    path.unlink()
    assert find_source(row).reason == "not_found"
    without = dicom_file(tmp_path / "b.dcm", 6, SOPClassUID="")
    assert find_source(row_of(without, HAND)).message == "the DICOM file has no SOPClassUID: nothing can refer to it"


def test_every_landmark_and_measurement_has_a_short_code_of_its_own():
    short = [code.value for code in LANDMARK_CODES.values()]
    assert len(set(short)) == 32
    assert max(map(len, short)) <= 16
    assert LANDMARK_CODES["C3_inferior_middle"][::2] == ("LM-C3IM", "Landmark: C3 inferior middle")
    assert LANDMARK_CODES["sella"].value == "LM-S"
    assert measured("C2_depth_mm")[0][::2] == ("C2-DEPTH", "C2: depth of the lower border")
    assert measured("C2_depth_ratio")[1].value == "{ratio}"
    assert measured("C9_new") is None


@pytest.mark.parametrize(
    "name", ["dicom/robyoung__RG3_JPLL", "dicom/dwv__gdcm-CR-MONO1-10-chest.dcm", "odd/sex-in-words.dcm"]
)
def test_objects_of_real_files_have_no_error_and_their_patient(tmp_path, real_data, name):
    path = real_data / name
    tags = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    uids = {"study_uid": tags.StudyInstanceUID, "series_uid": tags.SeriesInstanceUID, "sop_uid": tags.SOPInstanceUID}
    found = find_source(row_of(path, HAND | uids))
    for kind in (REPORT, CAPTURE, PRESENTATION):
        target = tmp_path / f"{kind.name}.dcm"
        target.write_bytes(dicom_bytes(make_object(kind, found, ENDED)))
        made = pydicom.dcmread(target)
        for keyword in ("PatientID", "PatientName", "StudyInstanceUID"):
            assert str(made[keyword].value) == str(tags.get(keyword, ""))
        assert [line for line in output("dciodvfy", target).splitlines() if line.startswith("Error")] == []
