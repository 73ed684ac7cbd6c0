"""A bare folder: every file is an input, whatever it is."""

from __future__ import annotations

import pytest

from boneage_ray.archives.files import FilesArchive
from boneage_ray.errors import NoUsableInputError, StorageError


@pytest.fixture
def folder(tmp_path):
    """A folder of four files, one of them no image, one nested."""
    root = tmp_path / "films"
    (root / "left").mkdir(parents=True)
    for name in ("2.png", "1.png", "notes.txt", "left/3.jpg"):
        (root / name).write_bytes(b"bytes")
    return root


def names(archive):
    return [item.uri.rsplit("/films/", 1)[1] for item in archive.inputs()]


def test_every_file_is_an_input_in_the_order_of_names(folder):
    assert names(FilesArchive(f"{folder}/")) == ["1.png", "2.png", "left/3.jpg", "notes.txt"]


def test_without_metadata_nothing_is_known(folder):
    item = next(iter(FilesArchive(str(folder)).inputs()))
    assert (item.record_id, item.sex, item.sex_source) == ("1", None, "unknown")
    assert (item.age_months, item.pixel_spacing_mm, item.pixel_spacing_source) == (None, None, None)


@pytest.mark.parametrize("key", ["3", "3.jpg", "left/3.jpg", "{folder}/left/3.jpg"])
def test_metadata_names_a_file_by_stem_name_path_or_uri(folder, tmp_path, key):
    table = tmp_path / "metadata.csv"
    table.write_text(f"file,sex,spacing\n{key.format(folder=folder)},F,0.2\n")
    archive = FilesArchive(str(folder), str(table))
    items = {item.record_id: item for item in archive.inputs()}
    assert (items["3"].sex, items["3"].sex_source, items["3"].pixel_spacing_mm) == ("F", "metadata", 0.2)
    assert items["1"].sex is None
    assert archive.unmatched() == []


def test_the_table_itself_is_no_input_also_when_paths_are_relative(folder, monkeypatch):
    (folder / "meta.csv").write_text("id,sex\n1,M\nabsent,F\n")
    monkeypatch.chdir(folder.parent)
    archive = FilesArchive("films", "films/meta.csv")
    assert names(archive) == ["1.png", "2.png", "left/3.jpg", "notes.txt"]
    assert [(m.record_id, m.reason) for m in archive.unmatched()] == [("absent", "no_image")]


def test_rows_that_contradict_each_other_leave_the_sex_unknown(folder, tmp_path):
    table = tmp_path / "metadata.csv"
    table.write_text("id,sex\n1,M\n1,F\n2,M\n2,M\n")
    archive = FilesArchive(str(folder), str(table))
    sexes = {item.record_id: item.sex for item in archive.inputs()}
    assert (sexes["1"], sexes["2"]) == (None, "M")
    assert [(m.record_id, m.reason) for m in archive.unmatched()] == [("1", "duplicate_id")]


def test_options_stand_over_metadata_and_say_so(folder, tmp_path):
    table = tmp_path / "metadata.csv"
    table.write_text("id,sex,spacing\n1,M,0.1\n")
    item = next(iter(FilesArchive(str(folder), str(table), sex="F", spacing_mm=0.3).inputs()))
    assert (item.sex, item.sex_source) == ("F", "option")
    assert (item.pixel_spacing_mm, item.pixel_spacing_source) == (0.3, "option")


def test_one_file_is_an_archive_of_one(folder):
    assert names(FilesArchive(str(folder / "1.png"))) == ["1.png"]


def test_an_empty_folder_and_an_absent_one_are_refused(tmp_path):
    with pytest.raises(NoUsableInputError, match="holds no file"):
        list(FilesArchive(str(tmp_path)).inputs())
    with pytest.raises(StorageError, match="absent"):
        list(FilesArchive(str(tmp_path / "absent")).inputs())
