"""Recognising an archive by its layout, and reading the bytes of an input."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest

from boneage_ray import storage
from boneage_ray.archives.archive import Input, stem_of
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.open import open_archive
from boneage_ray.archives.read import read_input
from boneage_ray.archives.rsna import RsnaArchive
from boneage_ray.errors import StorageError, UsageError

LABELS = "id,boneage,male\n1,12,True\n"


@pytest.fixture
def folder(tmp_path):
    """A folder with one image and nothing else."""
    root = tmp_path / "scans"
    root.mkdir()
    (root / "1.png").write_bytes(b"pixels")
    return root


def test_labels_inside_or_next_to_it_or_given_make_it_rsna(folder, tmp_path):
    (folder / "labels.csv").write_text(LABELS)
    assert isinstance(open_archive(str(folder)), RsnaArchive)
    (folder / "labels.csv").rename(tmp_path / "scans.csv")
    assert isinstance(open_archive(f"{folder}/"), RsnaArchive)
    (tmp_path / "scans.csv").rename(tmp_path / "other.csv")
    made = open_archive(str(folder), str(tmp_path / "other.csv"))
    assert [(i.record_id, i.age_months) for i in made.inputs()] == [("1", 12.0)]


def test_all_else_is_files_without_ages(folder):
    with zipfile.ZipFile(folder / "a.zip", "w") as made:
        made.writestr("2.png", b"")
    (folder / "manifest.csv").write_text("file,rows\n1.png,5\n")
    for source, count in ((folder, 3), (folder / "1.png", 1), (folder / "a.zip", 1)):
        made = open_archive(str(source))
        assert isinstance(made, FilesArchive)
        assert [i.age_months for i in made.inputs()] == [None] * count


def test_a_table_of_ages_that_cannot_be_used_is_not_passed_over(folder):
    (folder / "labels.csv").write_text("id,age\n1,12\n")
    with pytest.raises(UsageError, match="name them id and boneage"):
        open_archive(str(folder))


@pytest.mark.parametrize(
    ("header", "cells", "months"),
    [("stem,sex,spacing", "1,F,0.1", None), ("uri,age,sex", "1.png,12.5,F", 150.0), ("id,male,years", "1,0,9", 108.0)],
)
def test_a_table_without_bone_ages_is_metadata(folder, tmp_path, header, cells, months):
    (tmp_path / "md.csv").write_text(f"{header}\n{cells}\n")
    (folder / "2.png").write_bytes(b"")
    made = open_archive(str(folder), str(tmp_path / "md.csv"))
    assert isinstance(made, FilesArchive)
    items = [(i.record_id, i.age_months, i.sex, i.problem) for i in made.inputs()]
    assert items == [("1", months, "F", None), ("2", None, None, None)]


@pytest.mark.parametrize("header", ["id,bonage,male", "id,bone_months,male", "id,note"])
def test_a_table_that_seems_to_hold_bone_ages_or_nothing_is_refused(folder, tmp_path, header):
    (tmp_path / "md.csv").write_text(f"{header}\n1,12,0\n")
    with pytest.raises(UsageError, match=rf"no bone age column \(found: {', '.join(header.split(','))}\)"):
        open_archive(str(folder), str(tmp_path / "md.csv"))


def test_an_absent_archive_is_reported(tmp_path):
    for labels in (None, "labels.csv"):
        with pytest.raises(StorageError, match=r"absent: there is no such file or folder"):
            open_archive(str(tmp_path / "absent"), labels)


def test_the_layout_is_recognised_on_s3_too(s3_bucket):
    storage.write_bytes(f"{s3_bucket}/hands/1.png", b"pixels")
    assert isinstance(open_archive(f"{s3_bucket}/hands"), FilesArchive)
    storage.write_bytes(f"{s3_bucket}/hands.csv", LABELS.encode())
    (item,) = open_archive(f"{s3_bucket}/hands/").inputs()
    assert (item.uri, item.age_months, item.size_bytes) == (f"{s3_bucket}/hands/1.png", 12.0, 6)


@pytest.mark.parametrize(
    ("uri", "stem"),
    [
        ("s3://a/b/1377.png", "1377"),
        ("a.zip!/x/1377.dcm", "1377"),
        ("1.2.840.113619.2", "1.2.840.113619.2"),
        ("1.2.840.113619.2.dcm", "1.2.840.113619.2"),
        ("IM000001", "IM000001"),
        (".hidden", ".hidden"),
        ("a/b.j2k", "b"),
        ("a/b.", "b."),
    ],
)
def test_stems(uri, stem):
    assert stem_of(uri) == stem


def test_a_problem_of_the_listing_is_returned_without_reading():
    answer = read_input(Input("s3://nowhere/1.png", "1", problem=("no_label", "why")))
    assert (answer.step, answer.reason, answer.message, answer.status) == ("list", "no_label", "why", "failed")


def test_a_file_that_is_gone_or_has_grown_too_large_is_reported_at_reading(folder, monkeypatch):
    assert read_input(Input(f"{folder}/2.png", "2")).reason == "not_found"
    assert read_input(Input(f"{folder}/1.png", "1")) == b"pixels"
    monkeypatch.setattr("boneage_ray.archives.entry.MEBIBYTE", 1)
    monkeypatch.setenv("BONEAGE_MAX_INPUT_MB", "5")
    for size in (None, 6):
        answer = read_input(Input(f"{folder}/1.png", "1", size_bytes=size))
        assert (answer.step, answer.reason) == ("read", "too_large")


def test_a_path_with_a_mark_like_that_of_entries_is_a_path(tmp_path):
    (tmp_path / "wow!").mkdir()
    (tmp_path / "wow!" / "1.png").write_bytes(b"pixels")
    (item,) = FilesArchive(str(tmp_path)).inputs()
    assert read_input(item) == b"pixels"


def test_opening_needs_neither_pydicom_nor_numpy():
    imports = "import sys, boneage_ray.archives.open, boneage_ray.archives.read\n"
    code = f"{imports}print({{'pydicom', 'pydantic', 'numpy', 'cv2', 'ray', 'torch'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
