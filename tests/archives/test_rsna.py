"""RSNA layout: images joined with labels, and an account of whatever does not join."""

from __future__ import annotations

import pytest

from boneage_ray.archives.rsna import RsnaArchive
from boneage_ray.errors import NoUsableInputError, UsageError

NAME = "boneage-training-dataset"


@pytest.fixture
def archive(tmp_path):
    """archive(table, images, nested) writes one as published and opens it."""

    def write(table, images=("1", "2", "3"), nested=True):
        folder = tmp_path / "rsna"
        inner = folder / NAME / NAME if nested else folder / NAME
        inner.mkdir(parents=True)
        (folder / f"{NAME}.csv").write_text(table)
        for name in images:
            path = inner / (name if "." in name else f"{name}.png")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"pixels")
        return RsnaArchive(str(folder))

    return write


def read(archive):
    """(labelled inputs, (id, reason) of what did not join)."""
    found = [(i.record_id, i.age_months, i.sex) for i in archive.inputs()]
    return found, [(m.record_id, m.reason) for m in archive.unmatched()]


TABLE = "id,boneage,male\n1,12,True\n2,130.5,False\n3,228,\n"


@pytest.mark.parametrize("nested", [True, False])
def test_images_meet_their_labels(archive, nested):
    found, missed = read(archive(TABLE, nested=nested))
    assert found == [("1", 12.0, "M"), ("2", 130.5, "F"), ("3", 228.0, None)]
    assert missed == []


def test_labels_and_images_that_stand_alone_are_listed(archive):
    made = archive(TABLE, images=("2", "9"))
    assert read(made) == ([("2", 130.5, "F")], [("1", "no_image"), ("3", "no_image"), ("9", "no_label")])
    assert read(made) == read(made), "a second reading must not double the list"
    (alone,) = [m for m in made.unmatched() if m.record_id == "9"]
    assert alone.uri.endswith("/9.png")
    assert alone.message == f"no row of {made.labels} has this id"


def test_ids_may_be_written_with_the_extension(archive):
    found, missed = read(archive("id,boneage,male\n1.png,12,True\n2.PNG,24,True\n", images=("1", "2")))
    assert (found, missed) == ([("1", 12.0, "M"), ("2", 24.0, "M")], [])


def test_a_repeated_row_of_equal_content_is_used_once_and_told(archive):
    found, missed = read(archive(TABLE + "1,12,True\n"))
    assert [record_id for record_id, _, _ in found] == ["1", "2", "3"]
    assert missed == [("1", "duplicate_id")]


@pytest.mark.parametrize("other", ["1,13,True", "1,12,False"])
def test_rows_that_contradict_each_other_are_not_used_at_all(archive, other):
    found, missed = read(archive(f"{TABLE}{other}\n"))
    assert [record_id for record_id, _, _ in found] == ["2", "3"]
    assert missed == [("1", "duplicate_id")]


def test_the_second_image_of_an_id_is_not_used(archive):
    found, missed = read(archive(TABLE, images=("1", "1.jpg", "2", "3")))
    assert [record_id for record_id, _, _ in found] == ["1", "2", "3"]
    assert missed == [("1", "duplicate_id")]


@pytest.mark.parametrize("age", ["NaN", "-1", "300", "ten years", ""])
def test_a_label_that_is_no_age_is_told_with_what_is_needed(archive, age):
    made = archive(f"id,boneage,male\n1,{age},True\n2,24,True\n", images=("1", "2"))
    assert read(made) == ([("2", 24.0, "M")], [("1", "bad_label")])
    shown = repr(age) if age else "None"
    assert made.unmatched()[0].message == f"bone age {shown}; months in 0..240 are needed"


def test_endings_are_those_of_images_in_any_case(archive):
    found, missed = read(archive(TABLE, images=("1.PNG", "2.jpeg", "3.tif", "notes.txt")))
    assert [record_id for record_id, _, _ in found] == ["1", "2", "3"]
    assert missed == []


def test_only_the_folder_named_like_the_table_is_read(archive, tmp_path):
    made = archive(TABLE)
    other = tmp_path / "rsna" / "boneage-test-dataset"
    other.mkdir()
    (other / "4360.png").write_bytes(b"pixels")
    assert read(made)[1] == []


def test_a_relative_path_reads_the_same(archive, tmp_path, monkeypatch):
    whole = archive(TABLE)
    expected = list(whole.inputs())
    monkeypatch.chdir(tmp_path)
    assert list(RsnaArchive("rsna").inputs()) == expected
    assert list(RsnaArchive("rsna/", f"rsna/{NAME}.csv").inputs()) == expected
    monkeypatch.chdir(tmp_path / "rsna")
    assert list(RsnaArchive(NAME).inputs()) == expected, "the table lies beside the folder"


def test_an_archive_without_images_is_refused(archive):
    made = archive(TABLE, images=())
    with pytest.raises(NoUsableInputError, match=r"holds no image \(\.png, "):
        list(made.inputs())
    assert [m.reason for m in made.unmatched()] == ["no_image"] * 3


def test_a_missing_table_says_what_it_should_hold(tmp_path):
    with pytest.raises(NoUsableInputError, match="give --labels CSV with columns id, boneage, male"):
        RsnaArchive(str(tmp_path))


def test_several_tables_have_to_be_chosen_from(archive, tmp_path):
    made = archive(TABLE)
    (tmp_path / "rsna" / "second.csv").write_text(TABLE)
    with pytest.raises(UsageError, match=r"several label tables .*second\.csv.*--labels"):
        RsnaArchive(made.source)


def test_a_table_without_ages_is_not_taken_for_labels(tmp_path):
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match=r"no table in .* has an id and a bone age column"):
        RsnaArchive(str(tmp_path))


def test_the_order_is_that_of_the_uris_every_time(archive):
    made = archive(
        "id,boneage,male\n" + "".join(f"{k},10,True\n" for k in range(30)), images=[str(k) for k in range(30)]
    )
    uris = [item.uri for item in made.inputs()]
    assert uris == sorted(uris) == [item.uri for item in made.inputs()]
    assert len(uris) == 30
