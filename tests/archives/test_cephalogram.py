"""The cephalogram layout: images joined with both kinds of annotation and with tables."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest

from boneage_ray import storage
from boneage_ray.archives.cephalogram import CephalogramArchive
from boneage_ray.archives.open import open_archive
from boneage_ray.archives.read import read_input
from boneage_ray.errors import NoUsableInputError
from boneage_ray.phantoms.archive import image_seed, write_cephalogram_archive
from boneage_ray.phantoms.cephalogram import cephalogram_phantom

DATA = Path(os.environ.get("BONEAGE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "cephalograms"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small phantom archive and its truth; tests must not change it."""
    root = tmp_path_factory.mktemp("heads")
    return root, write_cephalogram_archive(str(root), 3, seed=5, size=256)


@pytest.fixture
def archive(written, tmp_path):
    """A copy that a test may change."""
    for info in storage.list_files(str(written[0])):
        storage.write_bytes(f"{tmp_path}/{info.uri.removeprefix(f'{written[0]}/')}", storage.read_bytes(info.uri))
    return tmp_path


def notes(root, **options):
    return [(i.record_id, i.problem[0]) for i in CephalogramArchive(str(root), **options).inputs() if not i.uri]


def test_what_the_phantoms_write_is_read_back_exactly(written):
    root, entries = written
    items = list(open_archive(str(root)).inputs())
    assert [item.uri for item in items] == [f"{root}/images/{entry.image}" for entry in entries]
    for k, (item, entry) in enumerate(zip(items, entries, strict=True)):
        phantom = cephalogram_phantom(image_seed(5, k), int(entry.stage[-1]), 256)
        assert item.vertebral == tuple(map(tuple, phantom.vertebral.tolist()))
        assert item.facial == tuple(map(tuple, phantom.facial.tolist()))
        assert (item.pixel_spacing_mm, item.pixel_spacing_source) == (entry.pixel_spacing_mm, "metadata")
        assert item.problem is None
        assert item.size_bytes == (root / "images" / entry.image).stat().st_size


def test_ages_in_years_and_ratios_join(archive):
    (archive / "ages.csv").write_text("image;age;sex\n001.png;12,5;F\n002;150;M\n009;10;M\n")
    (archive / "pixel_spacing.csv").write_text("image;px_per_cm\n001.png;84.6\n")
    items = list(CephalogramArchive(str(archive)).inputs())
    assert [(i.record_id, i.age_months, i.sex) for i in items[:3]] == [
        ("001", 150.0, "F"),
        ("002", None, "M"),
        ("003", None, None),
    ]
    assert items[0].pixel_spacing_mm == 10 / 84.6
    assert [(i.record_id, i.problem[0]) for i in items[3:]] == [("009", "no_image"), ("002", "bad_label")]
    assert "age '150' counts as unknown" in items[-1].problem[1]


def test_a_table_of_ages_may_lie_elsewhere_and_be_in_months(archive, tmp_path_factory):
    table = tmp_path_factory.mktemp("tables") / "ages.csv"
    table.write_text("id,age_months\n1,1\n001,150\n")
    made = open_archive(str(archive), str(table))
    assert isinstance(made, CephalogramArchive)
    assert next(iter(pickle.loads(pickle.dumps(made)).inputs())).age_months == 150.0


def test_a_table_whose_ids_lost_their_zeros_joins_where_they_can_mean_one_image_only(archive, tmp_path_factory):
    for path in archive.glob("*.csv"):  # the phantoms' own, with their zeros
        path.unlink()
    table = tmp_path_factory.mktemp("tables") / "elsewhere.csv"
    table.write_text("id,age_months\n1,130\n2,140\n77,100\n")
    found = CephalogramArchive(str(archive), str(table))
    found.check_join()
    inputs = list(found.inputs())
    ages = {item.record_id: item.age_months for item in inputs if item.record_id in ("001", "002")}
    assert ages == {"001": 130.0, "002": 140.0}
    said = [(item.record_id, item.problem[0]) for item in inputs if item.record_id in ("1", "2", "77")]
    assert said == [("1", "bad_label"), ("2", "bad_label"), ("77", "no_image")]


def test_tables_that_contradict_each_other_are_not_used(archive):
    (archive / "more.csv").write_text("image,pixel_spacing_mm\n001.png,0.9\n")
    items = list(CephalogramArchive(str(archive)).inputs())
    assert [i.pixel_spacing_mm is None for i in items[:3]] == [True, False, False]
    assert [(i.record_id, i.problem[0]) for i in items[3:]] == [("001", "duplicate_id")]


def test_a_table_with_a_misspelt_id_column_or_with_nothing_but_an_id_is_reported(archive):
    (archive / "ages.csv").write_text("imgae;age\n001.png;12,5\n")
    (archive / "other.csv").write_text("a;b\n1;2\n")
    (archive / "people.csv").write_text("image;Befund\n001.png;x\n")
    assert notes(archive) == [("ages.csv", "bad_label"), ("other.csv", "bad_label"), ("people.csv", "bad_label")]


def test_annotations_that_are_absent_bad_or_alone(archive):
    (archive / "vertebral" / "001.json").unlink()
    (archive / "facial" / "001.txt").unlink()
    (archive / "facial" / "002.txt").write_text("1,2\n")
    (archive / "vertebral" / "777.json").write_text("{}")
    (archive / "vertebral" / "readme.md").write_text("notes")
    os.mkfifo(archive / "facial" / "888.txt")
    (archive / "facial" / "sub").mkdir()
    (archive / "facial" / "sub" / "003.txt").write_text("")
    one, two, three, *rest = CephalogramArchive(str(archive)).inputs()
    assert (one.vertebral, one.facial, one.problem) == (None, None, None)
    assert (len(two.vertebral), two.facial, two.problem) == (13, None, None)
    assert (len(three.vertebral), len(three.facial)) == (13, 19)
    assert [(i.uri, i.record_id, i.problem[0]) for i in rest] == [
        ("", "readme", "bad_label"),
        ("", "777", "no_image"),
        ("", "888", "unsupported_format"),
        ("", "003", "duplicate_id"),
        ("", "002", "bad_label"),
    ]
    assert rest[-1].problem[1] == f"{archive}/facial/002.txt: 19 lines x,y are needed, 1 were found"


def test_the_second_image_of_a_name_and_one_outside_the_folders_are_accounted_for(archive):
    (archive / "images" / "001.jpg").write_bytes(b"pixels")
    (archive / "extra.png").write_bytes(b"pixels")
    items = [(Path(i.uri).name, i.problem and i.problem[0]) for i in CephalogramArchive(str(archive)).inputs()]
    assert items == [
        ("001.jpg", None),
        ("001.png", "duplicate_id"),
        ("002.png", None),
        ("003.png", None),
        ("extra.png", None),
    ]


def test_an_unusable_file_leaves_its_id_to_the_next(archive):
    os.mkfifo(archive / "images" / "001.jpg")
    one, two, *_ = CephalogramArchive(str(archive)).inputs()
    assert (Path(one.uri).name, one.problem[0], one.vertebral) == ("001.jpg", "unsupported_format", None)
    assert (Path(two.uri).name, two.problem, len(two.vertebral)) == ("001.png", None, 13)


def test_no_file_vanishes_without_a_row(archive):
    (archive / "old" / "tables").mkdir(parents=True)
    (archive / "old" / "001.png").write_bytes(b"pixels")
    (archive / "old" / "tables" / "ages.csv").write_text("id,age_months\n001,150\n")
    with zipfile.ZipFile(archive / "old" / "more.zip", "w") as packed:
        packed.writestr("004.png", b"pixels")
    with zipfile.ZipFile(archive / "test.zip", "w") as packed:
        packed.writestr("deeper/005.png", b"pixels")
    (archive / ".DS_Store").write_bytes(b"left behind")
    os.mkfifo(archive / "pipe.csv")
    (archive / "lost.csv").symlink_to(archive / "nowhere.csv")
    (archive / "lost.png").symlink_to(archive / "nowhere.png")
    items = [i for i in CephalogramArchive(str(archive)).inputs() if i.uri]
    found = [(i.uri.removeprefix(f"{archive}/"), i.problem and i.problem[0]) for i in items]
    assert found == [
        ("images/001.png", None),
        ("images/002.png", None),
        ("images/003.png", None),
        ("lost.csv", None),
        ("lost.png", "duplicate_id"),
        ("old/001.png", "no_label"),
        ("old/more.zip!/004.png", "no_label"),
        ("old/tables/ages.csv", "no_label"),
        ("pipe.csv", "unsupported_format"),
        ("test.zip!/deeper/005.png", None),
    ]
    assert items[5].problem[1] == "old/ is not read; put images into images/, and tables next to that folder"
    assert (items[5].vertebral, items[5].pixel_spacing_mm, items[0].vertebral is None) == (None, None, False)
    assert read_input(items[3]).reason == "not_found"


def test_a_table_in_another_folder_is_no_image(archive):
    (archive / "tables").mkdir()
    (archive / "tables" / "ages.csv").write_text("id,age_months\n001,150\n")
    items = list(CephalogramArchive(str(archive), str(archive / "tables" / "ages.csv")).inputs())
    assert [(i.record_id, i.age_months) for i in items] == [("001", 150.0), ("002", None), ("003", None)]


def test_one_kind_of_annotation_is_enough_and_no_image_is_refused(archive):
    for file in (archive / "vertebral").iterdir():
        file.unlink()
    made = open_archive(str(archive))
    assert isinstance(made, CephalogramArchive)
    assert [len(i.facial) for i in made.inputs()] == [19] * 3
    for file in (archive / "images").iterdir():
        file.write_bytes(b"")
        file.rename(file.with_name(f"._{file.name}"))
    with pytest.raises(NoUsableInputError, match="holds no image"):
        list(made.inputs())


def test_the_same_on_s3(written, s3_bucket):
    for info in storage.list_files(str(written[0])):
        storage.write_bytes(
            f"{s3_bucket}/heads/{info.uri.removeprefix(f'{written[0]}/')}", storage.read_bytes(info.uri)
        )
    local = list(open_archive(str(written[0])).inputs())
    remote = list(open_archive(f"{s3_bucket}/heads").inputs())
    assert [(i.vertebral, i.facial, i.pixel_spacing_mm) for i in remote] == [
        (i.vertebral, i.facial, i.pixel_spacing_mm) for i in local
    ]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is absent")
def test_the_real_set_is_read_whole():
    items = [item for item in open_archive(str(DATA)).inputs() if item.uri]  # stage_by_model.csv is a note
    assert len(items) == 200
    assert [item.problem for item in items] == [None] * 200
    assert sum(item.vertebral is not None for item in items) == 60
    assert all(len(item.facial) == 19 for item in items)
