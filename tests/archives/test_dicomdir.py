"""A DICOMDIR leads to its files and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from boneage_ray import storage
from boneage_ray.archives.dicomdir import is_dicomdir
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.open import open_archive
from boneage_ray.archives.read import read_input

DATA = Path(os.environ.get("BONEAGE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "dicom"


def dicomdir(references):
    """The bytes of a DICOMDIR with one record of each ReferencedFileID; None: a record without a file."""
    import io

    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

    whole = Dataset()
    whole.file_meta = FileMetaDataset()
    whole.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    whole.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    whole.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    records = []
    for reference in references:
        record = Dataset()
        record.DirectoryRecordType = "PATIENT" if reference is None else "IMAGE"
        if reference is not None:
            with pydicom.config.disable_value_validation():
                record.ReferencedFileID = reference
        records.append(record)
    whole.DirectoryRecordSequence = records
    buffer = io.BytesIO()
    with pydicom.config.disable_value_validation():
        whole.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture
def disc(tmp_path):
    """A folder with two films, and a file outside that no DICOMDIR may reach."""
    root = tmp_path / "disc"
    (root / "DICOM" / "ST1").mkdir(parents=True)
    (root / "DICOM" / "ST1" / "IM1").write_bytes(b"one")
    (root / "DICOM" / "ST1" / "IM2").write_bytes(b"two")
    (root / "unreferenced").write_bytes(b"three")
    (tmp_path / "secret").write_bytes(b"secret")
    return root


def listed(root, name="DICOMDIR"):
    items = FilesArchive(str(root / name)).inputs()
    return [(i.uri.removeprefix(f"{root}/"), i.problem and i.problem[0]) for i in items]


def test_the_files_it_references_are_the_inputs_in_its_order(disc):
    (disc / "DICOMDIR").write_bytes(dicomdir([None, ["DICOM", "ST1", "IM2"], ["DICOM", "ST1", "IM1"], "ABSENT"]))
    items = list(open_archive(str(disc / "DICOMDIR")).inputs())
    assert [(i.uri, i.record_id, i.size_bytes) for i in items[:2]] == [
        (f"{disc}/DICOM/ST1/IM2", "IM2", 3),
        (f"{disc}/DICOM/ST1/IM1", "IM1", 3),
    ]
    assert [read_input(item) for item in items[:2]] == [b"two", b"one"]
    assert items[2].problem == ("not_found", "the DICOMDIR references this file, but it does not exist")


@pytest.mark.parametrize(
    "reference",
    [
        ["..", "secret"],
        ["DICOM", "..", "..", "secret"],
        ["", "etc", "passwd"],
        "/etc/passwd",
        ["DICOM", "a/../../secret"],
        "C:",
        ["C:", "secret"],
        ".",
    ],
)
def test_nothing_outside_its_folder_is_reached(disc, reference):
    (disc / "DICOMDIR").write_bytes(dicomdir([reference]))
    (item,) = FilesArchive(str(disc / "DICOMDIR")).inputs()
    assert item.problem == ("permission_denied", "the DICOMDIR references a path outside the archive")
    assert read_input(item).reason == "permission_denied"


def test_nor_through_a_link(disc):
    (disc / "LINK").symlink_to(disc.parent / "secret")
    (disc / "FOLDER").symlink_to(disc.parent)
    (disc / "INSIDE").symlink_to(disc / "DICOM")
    (disc / "DICOMDIR").write_bytes(dicomdir(["LINK", ["FOLDER", "secret"], ["INSIDE", "ST1", "IM1"]]))
    assert [problem for _, problem in listed(disc)] == ["permission_denied", "permission_denied", None]


def test_names_may_differ_in_case_and_the_exact_one_is_preferred(disc):
    (disc / "dicom").mkdir()
    (disc / "dicom" / "im9").write_bytes(b"lower")
    (disc / "dicom" / "im8").write_bytes(b"lower")
    (disc / "DICOM" / "IM8").write_bytes(b"upper")
    (disc / "DICOMDIR").write_bytes(dicomdir([["DICOM", "IM9"], ["DICOM", "IM8"]]))
    assert listed(disc) == [("dicom/im9", None), ("DICOM/IM8", None)]


def test_a_file_is_listed_once_and_a_second_reference_is_reported(disc):
    (disc / "DICOMDIR").write_bytes(dicomdir([["DICOM", "ST1", "IM1"]] * 2))
    assert [problem for _, problem in listed(disc)] == [None, "duplicate_id"]


@pytest.mark.parametrize("data", [b"", b"no DICOM at all", dicomdir(["A"])[:300]])
def test_one_that_cannot_be_read_is_itself_the_input(disc, data):
    (disc / "DICOMDIR").write_bytes(data)
    assert listed(disc) == [("DICOMDIR", "unreadable")]


def test_one_without_files_says_so(disc):
    (disc / "DICOMDIR").write_bytes(dicomdir([None]))
    assert listed(disc) == [("DICOMDIR", "no_pixels")]


def test_its_content_identifies_a_dicomdir_of_another_name_and_in_a_folder_it_is_a_file(disc):
    (disc / "INDEX").write_bytes(dicomdir([["DICOM", "ST1", "IM1"]]))
    assert listed(disc, "INDEX") == [("DICOM/ST1/IM1", None)]
    assert not is_dicomdir(str(disc / "unreferenced"))
    assert not is_dicomdir(str(disc))
    assert len(list(FilesArchive(str(disc)).inputs())) == 4


def test_metadata_names_its_files(disc, tmp_path):
    (disc / "DICOMDIR").write_bytes(dicomdir([["DICOM", "ST1", "IM1"], ["DICOM", "ST1", "IM2"]]))
    table = tmp_path / "meta.csv"
    table.write_text("file,sex\nDICOM/ST1/IM1,F\nIM2,M\n")
    assert [i.sex for i in FilesArchive(str(disc / "DICOMDIR"), str(table)).inputs()] == ["F", "M"]


def test_the_same_on_s3(disc, s3_bucket):
    storage.write_bytes(f"{s3_bucket}/cd/DICOMDIR", dicomdir([["DICOM", "IM1"], ["..", "x"], "ABSENT"]))
    storage.write_bytes(f"{s3_bucket}/cd/dicom/im1", b"one")
    items = list(FilesArchive(f"{s3_bucket}/cd/DICOMDIR").inputs())
    assert [(i.uri, i.problem and i.problem[0]) for i in items] == [
        (f"{s3_bucket}/cd/dicom/im1", None),
        (f"{s3_bucket}/cd/../x", "permission_denied"),
        (f"{s3_bucket}/cd/ABSENT", "not_found"),
    ]
    assert read_input(items[0]) == b"one"


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is absent")
@pytest.mark.parametrize("name", ["pydicom__DICOMDIR-bigEnd", "pydicom__DICOMDIR-nopatient"])
def test_real_ones_are_read_and_their_absent_files_listed(name):
    items = list(FilesArchive(str(DATA / name)).inputs())
    assert len(items) > 1
    assert {item.problem[0] for item in items} == {"not_found"}
