"""RSNA layout: images joined with labels, and a report of whatever does not join."""

from __future__ import annotations

import os
import pickle
import zipfile

import pytest

from boneage_ray.archives.read import read_input
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
    """(labelled inputs, (id, reason) of what did not join, by id)."""
    items = list(archive.inputs())
    found = [(i.record_id, i.age_months, i.sex) for i in items if not i.problem]
    return found, sorted((i.record_id, i.problem[0]) for i in items if i.problem)


TABLE = "id,boneage,male\n1,12,True\n2,130.5,False\n3,228,\n"


@pytest.mark.parametrize("nested", [True, False])
def test_images_meet_their_labels(archive, nested):
    found, missed = read(archive(TABLE, nested=nested))
    assert found == [("1", 12.0, "M"), ("2", 130.5, "F"), ("3", 228.0, None)]
    assert missed == []


def test_labels_without_images_and_images_without_labels_are_listed(archive):
    made = archive(TABLE, images=("2", "9"))
    assert read(made) == ([("2", 130.5, "F")], [("1", "no_image"), ("3", "no_image"), ("9", "no_label")])
    assert read(made) == read(made), "a second reading must not double the list"
    (alone,) = [i for i in made.inputs() if i.record_id == "9"]
    assert alone.uri.endswith("/9.png")
    assert alone.problem == ("no_label", f"no row of {made.labels} has this id")
    assert [i.uri for i in made.inputs() if i.problem and i.problem[0] == "no_image"] == ["", ""]


def test_ids_may_be_written_with_the_extension(archive):
    found, missed = read(archive("id,boneage,male\n1.png,12,True\n2.PNG,24,True\n", images=("1", "2")))
    assert (found, missed) == ([("1", 12.0, "M"), ("2", 24.0, "M")], [])


def test_a_repeated_row_of_equal_content_is_used_once_and_reported(archive):
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
def test_a_label_that_is_no_age_is_reported_with_the_expected_range(archive, age):
    made = archive(f"id,boneage,male\n1,{age},True\n2,24,True\n", images=("1", "2"))
    assert read(made) == ([("2", 24.0, "M")], [("1", "bad_label")])
    shown = repr(age) if age else "None"
    bad, _ = made.inputs()
    assert (bad.record_id, bad.problem[1]) == ("1", f"bone age {shown}: months in 0..240 are needed")
    assert bad.uri.endswith("/1.png"), "the image is accounted for once, with its label's problem"


def test_any_name_may_be_an_image_and_nothing_vanishes(archive, tmp_path):
    names = ("1.PNG", "2.dcm", "notes.txt", ".DS_Store", "Thumbs.db", "._1.png", "__MACOSX/x.png")
    made = archive(TABLE, images=names)
    (tmp_path / "rsna" / NAME / NAME / "3").write_bytes(b"DICOM without an ending")
    found, missed = read(made)
    assert [record_id for record_id, _, _ in found] == ["1", "2", "3"]
    assert missed == [("notes", "no_label")]


def test_the_table_itself_is_no_image(tmp_path):
    (tmp_path / "labels.csv").write_text(TABLE)
    (tmp_path / "other.csv").write_text("a,b\n")
    (tmp_path / "1.png").write_bytes(b"pixels")
    found, missed = read(RsnaArchive(str(tmp_path)))
    assert (found, missed) == ([("1", 12.0, "M")], [("2", "no_image"), ("3", "no_image"), ("other", "no_label")])


def test_the_table_says_the_split_and_else_the_top_folder(tmp_path):
    for name in ("train/1.png", "validation/2.png", "other/3.png", "test/4.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"pixels")
    table = tmp_path / "labels.csv"
    table.write_text("id,boneage,split,patient\n1,10,,a\n2,10,test,b\n3,10,,\n4,10,,\n")
    items = {i.record_id: (i.split, i.patient) for i in RsnaArchive(str(tmp_path)).inputs()}
    assert items == {"1": ("train", "a"), "2": ("test", "b"), "3": (None, None), "4": ("test", None)}


def test_images_may_come_in_a_zip_file_next_to_their_table(tmp_path):
    (tmp_path / f"{NAME}.csv").write_text(TABLE)
    with zipfile.ZipFile(tmp_path / f"{NAME}.zip", "w") as made:
        for name in (f"{NAME}/1.png", f"{NAME}/2.png", "__MACOSX/._1.png"):
            made.writestr(name, b"pixels")
    for source in (tmp_path, tmp_path / f"{NAME}.zip"):
        archive = RsnaArchive(str(source))
        assert read(archive) == ([("1", 12.0, "M"), ("2", 130.5, "F")], [("3", "no_image")])
        assert read_input(next(iter(archive.inputs()))) == b"pixels"


def test_an_image_with_a_problem_of_its_own_keeps_it_and_its_label_is_not_lost(tmp_path):
    (tmp_path / "labels.csv").write_text(TABLE)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("1.zip", b"")
        made.writestr("2.png", b"pixels")
        made.writestr("3.png", b"pixels")
    assert read(RsnaArchive(str(tmp_path)))[1] == [("1", "unsupported_format")]


def test_an_archive_travels(archive):
    made = archive(TABLE)
    assert list(pickle.loads(pickle.dumps(made)).inputs()) == list(made.inputs())


def test_the_folder_named_like_the_table_comes_first_and_the_rest_is_listed_too(archive, tmp_path):
    made = archive(TABLE)
    for name in ("a-test-dataset/4360.png", "full-size/2.png", "notes.csv", f"{NAME}.txt"):
        path = tmp_path / "rsna" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"pixels")
    items = [(i.uri.rsplit("/rsna/", 1)[1], i.problem and i.problem[0]) for i in made.inputs()]
    assert items == [
        (f"{NAME}/{NAME}/1.png", None),
        (f"{NAME}/{NAME}/2.png", None),
        (f"{NAME}/{NAME}/3.png", None),
        ("a-test-dataset/4360.png", "no_label"),
        (f"{NAME}.txt", "no_label"),
        ("full-size/2.png", "duplicate_id"),
        ("notes.csv", "no_label"),
    ]


def test_a_file_named_like_the_table_is_listed_once(tmp_path):
    (tmp_path / "labels.csv").write_text(TABLE)
    (tmp_path / "labels").write_bytes(b"text")
    (tmp_path / "1.png").write_bytes(b"pixels")
    items = [i.uri.rpartition("/")[2] for i in RsnaArchive(str(tmp_path)).inputs() if i.uri]
    assert items == ["labels", "1.png"]


def test_a_table_may_be_a_link(tmp_path):
    (tmp_path / "hands").mkdir()
    (tmp_path / "hands" / "1.png").write_bytes(b"pixels")
    (tmp_path / "elsewhere.csv").write_text("id,boneage\n1,12\n")
    (tmp_path / "hands" / "labels.csv").symlink_to(tmp_path / "elsewhere.csv")
    assert read(RsnaArchive(str(tmp_path / "hands"))) == ([("1", 12.0, None)], [])


@pytest.mark.parametrize(
    ("ages", "noted"),
    [((4, 9.5, 15), True), ((4, 9.5, 21), False), ((4, 15), False), ((3, 4, 5), False), (("x", 9, 15), False)],
)
def test_bone_ages_that_look_like_years_are_asked_about(archive, ages, noted):
    made = archive("id,boneage\n" + "".join(f"{k},{age}\n" for k, age in enumerate(ages, start=1)))
    (account,) = made.accounts
    assert account["caution"] == ("the largest bone age is 15: are these years? months are needed" if noted else None)
    assert [i for i in made.inputs() if not i.uri] == [], "what is said of the table is no input"
    records = [i.age_months for i in made.inputs() if not i.problem]
    assert records == [float(age) for age in ages if age != "x"], "the images stay records"


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
    with pytest.raises(NoUsableInputError, match=r"holds no image"):
        list(made.inputs())


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
    with pytest.raises(NoUsableInputError, match="no label table"):
        RsnaArchive(str(tmp_path))
    (tmp_path / "notes.csv").write_text("name,boneage\n1,2\n")
    with pytest.raises(UsageError, match=r"no table in .* has an id and a bone age column"):
        RsnaArchive(str(tmp_path))


def test_the_order_is_that_of_the_uris_every_time(archive):
    made = archive(
        "id,boneage,male\n" + "".join(f"{k},10,True\n" for k in range(30)), images=[str(k) for k in range(30)]
    )
    uris = [item.uri for item in made.inputs()]
    assert uris == sorted(uris) == [item.uri for item in made.inputs()]
    assert len(uris) == 30


def test_a_mask_that_is_no_file_is_reported_and_never_opened(archive, tmp_path):
    made = archive(TABLE)
    (tmp_path / "rsna" / "masks").mkdir()
    os.mkfifo(tmp_path / "rsna" / "masks" / "1.png")
    (tmp_path / "rsna" / "masks" / "2.png").write_bytes(b"mask")
    items = list(made.inputs())
    assert [i.mask for i in items if i.uri] == [None, str(tmp_path / "rsna" / "masks" / "2.png"), None]
    assert [(i.record_id, i.problem[0]) for i in items if not i.uri] == [("1", "unsupported_format")]


def test_labels_whose_ids_lost_their_zeros_or_are_windows_paths_are_joined(tmp_path):
    hands = tmp_path / "hands"
    hands.mkdir()
    (tmp_path / "hands.csv").write_text("id,boneage,sex\n7,100,F\n12,50,M\nC:\\films\\a\\0013,60,F\n9,70,F\n")
    for name in ("0007.png", "0012.png", "0013.dcm", "009.png", "09.png"):
        (hands / name).write_bytes(b"bytes")
    archive = RsnaArchive(str(hands))
    archive.check_join()
    found = list(archive.inputs())
    assert {item.record_id: item.age_months for item in found if item.uri} == {
        "0007": 100.0,
        "0012": 50.0,
        "0013": 60.0,
        "009": None,
        "09": None,
    }
    assert [item.record_id for item in found if item.is_remark] == ["12", "7"]
    assert [(item.record_id, item.problem[0]) for item in found if not item.uri and not item.is_remark] == [
        ("9", "no_image")
    ]
    (tmp_path / "hands.csv").write_text("id,boneage\n7,100\n")
    RsnaArchive(str(hands)).check_join()  # no exact id, but one that can mean only one file
