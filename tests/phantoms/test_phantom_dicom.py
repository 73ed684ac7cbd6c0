"""Phantoms as DICOM: valid files under synthetic names, archives in all encodings, equal bytes for equal arguments."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pydicom
import pytest
from dicom_faults import FAULTS

from boneage_ray.cli import main
from boneage_ray.decoding.dicom.read import decode_dicom
from boneage_ray.errors import InputProblem
from boneage_ray.phantoms.archive import (
    DICOM_BAD_KINDS,
    HAND_CSV,
    HAND_FOLDER,
    image_seed,
    write_cephalogram_archive,
    write_hand_archive,
)
from boneage_ray.phantoms.dicom import LOSSY, SYNTAXES, DicomTags, encode_dicom, phantom_values
from boneage_ray.phantoms.hand import hand_phantom

IMAGE = hand_phantom(1, 100, "M", 64).image


@pytest.mark.parametrize("encoding", [e for e in SYNTAXES if e not in LOSSY])
def test_files_are_valid_and_say_that_they_are_synthetic(encoding):
    data = encode_dicom(IMAGE, DicomTags(3, "M", spacing_mm=(0.2, 0.2)), encoding)
    assert data == encode_dicom(IMAGE, DicomTags(3, "M", spacing_mm=(0.2, 0.2)), encoding)
    dataset = pydicom.dcmread(io.BytesIO(data))
    assert dataset.file_meta.TransferSyntaxUID == SYNTAXES[encoding]
    assert (dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate) == ("Phantom^Synthetic", "PHANTOM-3", "")
    assert (dataset.PatientSex, dataset.PixelSpacing, dataset.BodyPartExamined) == ("M", [0.2, 0.2], "HAND")
    assert (dataset.BitsStored, dataset.HighBit, dataset.LossyImageCompression) == (12, 11, "00")
    assert all(uid.is_valid for uid in (dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID))


def test_pydicom_reads_the_same_pixels_from_what_it_can_decode():
    for encoding in ("implicit-little", "explicit-little", "explicit-big", "deflated", "rle"):
        for tags in (DicomTags(3), DicomTags(3, bits=16, signed=True), DicomTags(3, bits=8, inverted=True)):
            dataset = pydicom.dcmread(io.BytesIO(encode_dicom(IMAGE, tags, encoding)))
            assert np.array_equal(dataset.pixel_array, phantom_values(IMAGE, tags)), encoding


def test_an_archive_comes_in_all_encodings(tmp_path):
    entries = write_hand_archive(str(tmp_path), count=16, seed=2, size=64, dicom=True)
    with (tmp_path / HAND_CSV).open() as file:
        rows = list(csv.DictReader(file))
    found = set()
    for k, (entry, row) in enumerate(zip(entries, rows, strict=True)):
        data = (tmp_path / HAND_FOLDER / f"{entry.id}.dcm").read_bytes()
        found.add(str(pydicom.dcmread(io.BytesIO(data)).file_meta.TransferSyntaxUID))
        radiograph = decode_dicom(data, 1, "file")
        drawn = hand_phantom(image_seed(2, k), entry.age_months, entry.sex, 64).image
        scale = np.iinfo(radiograph.pixels.dtype).max / 255
        assert np.abs(radiograph.pixels / scale - drawn).mean() < 1.5
        assert (radiograph.sex, row["id"]) == (entry.sex, entry.id)
        assert radiograph.pixel_spacing_mm == pytest.approx(220 / 64, rel=1e-6)
    assert found == set(SYNTAXES.values())


def test_every_fault_is_planted_once(tmp_path):
    entries = write_hand_archive(str(tmp_path), count=2, seed=2, size=64, bad=True, dicom=True)
    assert [entry.kind for entry in entries] == ["good"] * 2 + list(DICOM_BAD_KINDS)
    outcome = {}
    for entry in entries[2:]:
        path = tmp_path / HAND_FOLDER / f"{entry.id}.dcm"
        assert path.exists() == entry.stored
        if entry.stored:
            try:
                decode_dicom(path.read_bytes(), 100, "file")
                outcome[entry.kind] = "read"
            except InputProblem as problem:
                outcome[entry.kind] = problem.reason
    assert outcome == FAULTS | dict.fromkeys(["no_label", "valid_monochrome1", "valid_bare_dicom"], "read")


def test_cephalograms_know_their_spacing(tmp_path):
    (entry,) = write_cephalogram_archive(str(tmp_path), count=1, seed=5, size=64, dicom=True)
    radiograph = decode_dicom((tmp_path / "images" / "001.dcm").read_bytes(), 1, "file")
    assert radiograph.pixel_spacing_mm == pytest.approx(entry.pixel_spacing_mm, rel=1e-6)
    assert radiograph.pixel_spacing_source == "dicom:PixelSpacing"
    assert (entry.image, radiograph.sex, radiograph.regions) == ("001.dcm", None, ("HEAD",))
    assert json.loads((tmp_path / "vertebral" / "001.json").read_text())["imagePath"] == "../images/001.dcm"


def test_the_command_writes_dicom(tmp_path, capsys):
    assert main(["phantoms", "--out", str(tmp_path / "p"), "--count", "2", "--size", "64", "--dicom", "--json"]) == 0
    assert len(list((tmp_path / "p").rglob("*.dcm"))) == 2
    assert capsys.readouterr().out.startswith("{")
