"""A bare folder: every file is an input."""

from __future__ import annotations

import os
import pickle
import re
import tracemalloc
import unicodedata

import pytest

from boneage_ray import storage
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.read import read_input
from boneage_ray.errors import NoUsableInputError, StorageError, UsageError
from boneage_ray.storage import FileInfo


@pytest.fixture
def folder(tmp_path):
    """A folder of four files, one of them no image, one nested."""
    root = tmp_path / "films"
    (root / "left").mkdir(parents=True)
    for name in ("2.png", "1.png", "notes.txt", "left/3.jpg"):
        (root / name).write_bytes(b"bytes")
    return root


def names(archive):
    return [item.uri.rsplit("/films/", 1)[1] for item in archive.inputs() if item.uri]


def notes(archive):
    """(id, reason) of the notes, which come last."""
    items = list(archive.inputs())
    last = [item for item in items if not item.uri]
    assert items[len(items) - len(last) :] == last
    return [(item.record_id, item.problem[0]) for item in last]


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
    assert notes(archive) == []


def test_the_table_itself_is_no_input_also_when_paths_are_relative(folder, monkeypatch):
    (folder / "meta.csv").write_text("id,sex\n1,M\nabsent,F\n")
    monkeypatch.chdir(folder.parent)
    archive = FilesArchive("films", "films/meta.csv")
    assert names(archive) == ["1.png", "2.png", "left/3.jpg", "notes.txt"]
    assert notes(archive) == [("absent", "no_image")]


def test_rows_that_contradict_each_other_leave_the_sex_unknown(folder, tmp_path):
    table = tmp_path / "metadata.csv"
    table.write_text("id,sex\n1,M\n1,F\n2,M\n2,M\n")
    archive = FilesArchive(str(folder), str(table))
    sexes = {item.record_id: item.sex for item in archive.inputs() if item.uri}
    assert (sexes["1"], sexes["2"]) == (None, "M")
    assert notes(archive) == [("1", "duplicate_id")]


def test_options_take_precedence_over_metadata(folder, tmp_path):
    table = tmp_path / "metadata.csv"
    table.write_text("id,sex,spacing\n1,M,0.1\n")
    item = next(iter(FilesArchive(str(folder), str(table), sex="F", spacing_mm=0.3).inputs()))
    assert (item.sex, item.sex_source) == ("F", "option")
    assert (item.pixel_spacing_mm, item.pixel_spacing_source) == (0.3, "option")


def test_one_file_is_an_archive_of_one(folder):
    assert names(FilesArchive(str(folder / "1.png"))) == ["1.png"]


def test_an_empty_folder_and_an_absent_one_are_refused(tmp_path):
    with pytest.raises(NoUsableInputError, match="holds no input file"):
        list(FilesArchive(str(tmp_path)).inputs())
    with pytest.raises(StorageError, match="absent"):
        list(FilesArchive(str(tmp_path / "absent")).inputs())


def test_sizes_are_those_of_the_listing_and_too_large_is_a_problem(folder, monkeypatch):
    assert [item.size_bytes for item in FilesArchive(str(folder)).inputs()] == [5] * 4
    monkeypatch.setenv("BONEAGE_MAX_INPUT_MB", "1")
    with (folder / "m.png").open("wb") as file:
        file.truncate(2**20 + 1)
    *_, large, other = FilesArchive(str(folder)).inputs()
    assert (large.record_id, large.problem[0], other.problem) == ("m", "too_large", None)
    assert large.problem[1] == "1048577 bytes; at most 1048576 are read (BONEAGE_MAX_INPUT_MB changes that)"


def test_a_name_applies_to_the_first_folder_only_and_the_rest_is_reported(folder, tmp_path):
    (folder / "right").mkdir()
    for name in ("left/3.dcm", "right/3.jpg", "right/3.png"):
        (folder / name).write_bytes(b"bytes")
    table = tmp_path / "metadata.csv"
    table.write_text("id,sex\n3,F\n")
    archive = FilesArchive(str(folder), str(table))
    sexes = {item.uri.rsplit("/films/", 1)[-1]: item.sex for item in archive.inputs() if "3." in item.uri}
    assert sexes == {"left/3.dcm": "F", "left/3.jpg": "F", "right/3.jpg": None, "right/3.png": None}
    *_, note = archive.inputs()
    assert (note.uri, note.record_id, note.problem) == (
        "",
        "3",
        (
            "duplicate_id",
            f"2 more files with this name, in other folders than {folder}/left, got no metadata; give paths as ids",
        ),
    )


def test_a_path_is_more_exact_than_a_name_and_may_be_written_as_on_windows(folder, tmp_path):
    table = tmp_path / "metadata.csv"
    table.write_text("id,sex\nleft\\3.jpg,F\n./1.png,M\n3,M\n")
    archive = FilesArchive(str(folder), str(table))
    assert {i.record_id: i.sex for i in archive.inputs() if i.sex} == {"3": "F"} | {"1": "M"}
    assert notes(archive) == [("3", "no_image")]


def test_cells_that_cannot_be_read_are_reported_and_the_file_is_still_there(folder, tmp_path):
    table = tmp_path / "metadata.csv"
    table.write_text("id,sex,spacing\n1,xyz,abc\n")
    items = list(FilesArchive(str(folder), str(table)).inputs())
    assert (items[0].record_id, items[0].sex, items[0].pixel_spacing_mm) == ("1", None, None)
    assert items[-1].record_id == "1"
    assert items[-1].problem == ("bad_label", f"{table}: 'xyz', 'abc' cannot be read and counts as unknown")


def test_ages_in_months_take_precedence_and_bad_ones_are_reported(folder, tmp_path):
    table = tmp_path / "metadata.csv"
    table.write_text("id,age,age_months\n1,10,121\n2,10,\n3,150,\nnotes,,300\n")
    items = list(FilesArchive(str(folder), str(table)).inputs())
    assert [(i.record_id, i.age_months) for i in items if i.uri] == [
        ("1", 121),
        ("2", 120),
        ("3", None),
        ("notes", None),
    ]
    need = "counts as unknown; months in 0..240 (age_months), or years in 0..25 (age) are needed"
    assert [(i.record_id, i.problem) for i in items if not i.uri] == [
        ("3", ("bad_label", f"{table}: age '150' {need}")),
        ("notes", ("bad_label", f"{table}: age '300' {need}")),
    ]


def test_system_files_are_no_input(folder):
    for name in (
        ".DS_Store",
        "Thumbs.db",
        "left/desktop.ini",
        "._1.png",
        "__MACOSX/1.png",
        "._scans.zip",
        "left_$folder$",
        f"left/.{'0a' * 16}.part",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"system")
    assert names(FilesArchive(str(folder))) == ["1.png", "2.png", "left/3.jpg", "notes.txt"]
    assert names(FilesArchive(str(folder / "Thumbs.db"))) == ["Thumbs.db"], "named, it is what is meant"


def test_no_file_ends_the_listing_or_hangs_the_reading(folder):
    (folder / "self.png").symlink_to("self.png")
    (folder / "gone.png").symlink_to("nothing.png")
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe.zip")
    made = list(FilesArchive(str(folder)).inputs())
    answers = {i.record_id: read_input(i) for i in made if i.record_id in ("self", "gone", "pipe")}
    assert {name: (a.step, a.reason) for name, a in answers.items()} == {
        "self": ("read", "not_found"),
        "gone": ("read", "not_found"),
        "pipe": ("list", "unsupported_format"),
    }
    assert answers["pipe"].message == "a named pipe, not a file"
    assert len(made) == 8
    (alone,) = FilesArchive(str(folder / "pipe.png")).inputs()
    assert alone.problem == ("unsupported_format", "a named pipe, not a file")


def test_linked_folders_outside_are_read_and_circles_end(folder, tmp_path):
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "7.png").write_bytes(b"bytes")
    (tmp_path / "mounted" / "back").symlink_to(folder)
    (folder / "left" / "outside").symlink_to(tmp_path / "mounted")
    (folder / "left" / "up").symlink_to(folder)
    (folder / "left" / "here").symlink_to(folder / "left")
    assert names(FilesArchive(str(folder))) == ["1.png", "2.png", "left/3.jpg", "left/outside/7.png", "notes.txt"]


def test_patient_split_and_source_come_with_metadata(folder, tmp_path):
    table = tmp_path / "metadata.csv"
    table.write_text("id,patient,split,site\n1,p1,val,north\n")
    item = next(iter(FilesArchive(str(folder), str(table)).inputs()))
    assert (item.patient, item.split, item.source) == ("p1", "val", "north")


def test_an_archive_travels_and_lists_the_same_again(folder):
    archive = FilesArchive(str(folder))
    assert list(pickle.loads(pickle.dumps(archive)).inputs()) == list(archive.inputs())


def test_listing_is_lazy(folder, monkeypatch):
    listed = []

    def slowly(uri):
        for number in range(1000):
            listed.append(number)
            yield FileInfo(f"{uri}/{number}.png", 1)

    monkeypatch.setattr(storage, "list_files", slowly)
    next(iter(FilesArchive(str(folder)).inputs()))
    assert len(listed) <= 2


def test_a_listing_holds_nothing(folder, monkeypatch):
    monkeypatch.setattr(storage, "list_files", lambda uri: (FileInfo(f"{uri}/{k}.png", 1) for k in range(50_000)))
    archive = FilesArchive(str(folder))
    tracemalloc.start()
    assert sum(1 for _ in archive.inputs()) == 50_000
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()


def test_an_s3_prefix_reads_the_same(s3_bucket):
    for name in ("b/2.png", "a.png"):
        storage.write_bytes(f"{s3_bucket}/scans/{name}", b"12345")
    storage.write_bytes(f"{s3_bucket}/scans/meta.csv", b"id,sex\n2,F\n")
    items = list(FilesArchive(f"{s3_bucket}/scans/", f"{s3_bucket}/scans/meta.csv").inputs())
    assert [(i.uri, i.sex, i.size_bytes) for i in items] == [
        (f"{s3_bucket}/scans/a.png", None, 5),
        (f"{s3_bucket}/scans/b/2.png", "F", 5),
    ]
    assert [read_input(item) for item in items] == [b"12345"] * 2


def test_names_are_compared_without_regard_to_how_accents_are_stored(folder, tmp_path):
    (folder / unicodedata.normalize("NFD", "Müller")).mkdir()
    for name in ("Zoë.png", "Müller/Grün.png"):
        (folder / unicodedata.normalize("NFD", name)).write_bytes(b"bytes")
    table = tmp_path / "metadata.csv"
    table.write_text("id,sex\nZoë,F\nMüller/Grün.png,M\n")
    archive = FilesArchive(str(folder), str(table))
    assert {i.record_id: i.sex for i in archive.inputs() if i.sex} == {"Zoë": "F", "Grün": "M"}
    assert notes(archive) == []


@pytest.mark.parametrize(
    ("ids", "sexes"),
    [
        ([r"D:\films\left\3.jpg", r"D:\films\1.png"], {"left/3.jpg": "F", "1.png": "M"}),
        ([r"\\server\films\left\3.jpg", r"\\server\films\1.png"], {"left/3.jpg": "F", "1.png": "M"}),
        ([r"D:\left\3.jpg"], {"left/3.jpg": "F"}),
        ([r"D:\other\3.jpg", r"D:\films\1.png"], {}),
        ([r"D:\films\1.png", r"E:\films\1.png"], {}),
    ],
)
def test_paths_of_a_windows_machine_are_read_below_the_folder_they_share(folder, tmp_path, ids, sexes):
    table = tmp_path / "metadata.csv"
    table.write_text("id,sex\n" + "".join(f"{name},{sex}\n" for name, sex in zip(ids, "FM", strict=False)))
    archive = FilesArchive(str(folder), str(table))
    assert {i.uri.rsplit("/films/", 1)[1]: i.sex for i in archive.inputs() if i.sex} == sexes
    assert len(notes(archive)) == len(ids) - len(sexes)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("12", "there is 0012.png: did a spreadsheet change the id? Keep ids as text, with their zeros"),
        ("0012.0", "there is 0012.png: did a spreadsheet change the id? Keep ids as text, with their zeros"),
        ("right/0012.png", "there is 0012.png, in another folder: give its path"),
        ("absent", ""),
    ],
)
def test_ids_that_come_near_several_files_get_a_hint_and_are_not_guessed(folder, tmp_path, name, hint):
    for path in ("0012.png", "a.zip.d/00012.png"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(b"bytes")
    table = tmp_path / "metadata.csv"
    table.write_text(f"id,sex\n{name},F\n1,M\n")
    archive = FilesArchive(str(folder), str(table))
    archive.check_join()
    assert {i.record_id: i.sex for i in archive.inputs() if i.sex} == {"1": "M"}
    *_, unmatched = archive.inputs()
    assert unmatched.problem == ("no_image", "metadata without a file" + (f"; {hint}" if hint else ""))
    assert unmatched.table_rows == 1
    table.write_text(f"id,sex\n{name},F\n")
    said = rf"none of its 1 ids names a file of .* \(ids: '{name}'; files: '0012.png', '1.png', .*\)"
    said += f"; {re.escape(hint)}" if hint else ""
    with pytest.raises(UsageError, match=said):
        archive.check_join()


@pytest.mark.parametrize(
    ("rows", "files", "joined", "unmatched"),
    [
        (["12", "7"], ["0012", "007"], {"0012": "F", "007": "M"}, []),
        (["12.0", "7.0"], ["12", "0007"], {"12": "F", "0007": "M"}, []),
        (["12", "7"], ["0012", "12", "7"], {"12": "F", "7": "M"}, []),  # the exact name is nearer
        (["12", "7"], ["0012", "00012", "7"], {"7": "M"}, ["12"]),  # two files
        (["12", "012"], ["0012"], {}, ["012", "12"]),  # two ids
        (["ab1", "A2"], ["AB1", "a2"], {"AB1": "F", "a2": "M"}, []),
        (["1.2.840", "7"], ["1.2.84", "7"], {"7": "M"}, ["1.2.840"]),  # another UID
    ],
)
def test_ids_that_lost_their_zeros_are_joined_where_one_file_and_one_id_come_near(
    tmp_path, rows, files, joined, unmatched
):
    archive_folder = tmp_path / "films"
    archive_folder.mkdir()
    for name in files:
        (archive_folder / f"{name}.dcm").write_bytes(b"bytes")
    table = tmp_path / "metadata.csv"
    table.write_text("id,sex\n" + "".join(f"{name},{sex}\n" for name, sex in zip(rows, "FM", strict=True)))
    archive = FilesArchive(str(archive_folder), str(table))
    if joined:
        archive.check_join()
    found = list(archive.inputs())
    assert {item.record_id: item.sex for item in found if item.sex} == joined
    assert [item.record_id for item in found if item.problem and not item.uri and not item.is_remark] == unmatched
    said = {item.record_id: item.problem[1] for item in found if item.is_remark}
    assert len(said) == len(joined.keys() - set(rows))
    assert all("did a spreadsheet change the id?" in message.lower() for message in said.values())


def test_a_row_with_a_cell_too_many_is_counted_and_nothing_of_it_is_used(folder, tmp_path):
    table = tmp_path / "metadata.csv"
    table.write_text("id,age,sex\n1,10,5,F\n2,10,M\nabsent,10,5,F\n")
    items = list(FilesArchive(str(folder), str(table)).inputs())
    assert [(i.record_id, i.age_months, i.sex) for i in items[:2]] == [("1", None, None), ("2", 120.0, "M")]
    lost = [(i.record_id, i.problem[0], i.table_rows, i.is_remark) for i in items if not i.uri]
    assert lost == [("1", "bad_label", 1, True), ("absent", "bad_label", 1, True)]
