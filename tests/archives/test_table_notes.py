"""What became of the rows of a table: counts of all parts, and a line for each row that was not used whole."""

from __future__ import annotations

import csv

import pytest

from boneage_ray.archives.cephalogram import CephalogramArchive
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.in_parts import ArchiveParts, inputs_of
from boneage_ray.archives.notes import (
    caution_of_labels,
    cautions,
    line_of_notes,
    rows_in_words,
    sum_of_notes,
    write_notes,
)
from boneage_ray.archives.rsna import RsnaArchive

TABLE = "id,boneage,sex\n1,2,F\n2,5,M\n3,9,1\n4,old,F\n5,7,M\n6,3,F\n6,4,F\n1,2,F\nghost,8,M\n"


def test_rows_add_up_and_every_note_has_its_line(tmp_path):
    hands = tmp_path / "hands"
    hands.mkdir()
    (tmp_path / "hands.csv").write_text(TABLE)
    for name in "123456":
        (hands / f"{name}.png").write_bytes(b"pixels")
    archive = RsnaArchive(str(hands))
    parts = [inputs_of(part) for part in ArchiveParts(archive, "cases")()]
    lines = [line_of_notes(inputs) for inputs in parts]
    tables = sum_of_notes(lines, archive.accounts)
    # Unused: the label of 4, and the two of 6, which differ. The cell of 3 and the second row of 1 cost nothing.
    assert {name: tables[name] for name in ("rows", "used", "unmatched", "unused")} == {
        "rows": 9,
        "used": 5,
        "unmatched": 1,
        "unused": 3,
    }
    assert rows_in_words(tables) == ["table rows: 9 = 5 used + 1 without a file + 3 not used"]
    assert cautions(tables["read"]) == [
        f"CAUTION: {tmp_path}/hands.csv: 1 cells of 'sex' are not understood ('1' 1) and count as unknown; "
        "say what they mean, such as --value 1=F",
        f"CAUTION: {tmp_path}/hands.csv: the largest bone age is 9: are these years? months are needed",
    ]
    inputs = [item for part in parts for item in part if not item.is_remark]
    assert [(item.record_id, item.problem and item.problem[0]) for item in inputs] == [
        *((name, None) for name in "123"),
        ("4", "bad_label"),
        ("5", None),
        ("6", "duplicate_id"),
        ("ghost", "no_image"),
    ], "notes about the table are no inputs"
    told = write_notes(str(tmp_path), lines)
    assert told[0] == f"notes on what could not be joined or read: 3, in {tmp_path}/table_notes.csv:"
    with (tmp_path / "table_notes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["reason"]) for row in rows] == [
        ("ghost", "no_image"),
        ("1", "duplicate_id"),
        ("3", "bad_label"),
    ]


TORN = "id,age,sex\n1,8,F,9\n1,9,F,9\n2,9,F\n2,9,F,4\nghost,9,M\nghost,9,M\n3,9,q\n"


@pytest.mark.parametrize("kind", ["files", "rsna", "cephalogram"])
def test_rows_add_up_in_every_archive_and_none_is_counted_twice(kind, tmp_path):
    source = tmp_path / "set"
    images = source / "images" if kind == "cephalogram" else source
    images.mkdir(parents=True)
    for name in "123":
        (images / f"{name}.png").write_bytes(b"pixels")
    table = tmp_path / "set.csv"
    table.write_text(TORN.replace("age", "boneage") if kind == "rsna" else TORN)
    kinds = {"files": FilesArchive, "rsna": RsnaArchive, "cephalogram": CephalogramArchive}
    archive = kinds[kind](str(source), str(table))
    parts = [inputs_of(part) for part in ArchiveParts(archive, "cases")()]
    tables = sum_of_notes([line_of_notes(inputs) for inputs in parts], archive.accounts)
    # Both rows of 1 have a cell too many, and one of 2; RSNA labels use no row of an id whose rows differ.
    unused = 4 if kind == "rsna" else 3
    assert [tables[name] for name in ("rows", "used", "unmatched", "unused")] == [7, 5 - unused, 2, unused]
    reading = {item.record_id: item.sex for part in parts for item in part if item.uri}
    assert reading == {"1": None, "2": None if kind == "rsna" else "F", "3": None}


def test_an_age_that_cannot_be_read_is_told_beside_a_bone_age_that_can(tmp_path):
    (tmp_path / "hands").mkdir()
    (tmp_path / "hands" / "1.png").write_bytes(b"pixels")
    (tmp_path / "hands.csv").write_text("id,sex,boneage,age\n1,F,120,abc\n")
    for archive in (
        RsnaArchive(str(tmp_path / "hands")),
        FilesArchive(str(tmp_path / "hands"), str(tmp_path / "hands.csv")),
    ):
        (note,) = [item for item in archive.inputs() if not item.uri]
        assert note.problem[0] == "bad_label"
        assert "age 'abc' counts as unknown" in note.problem[1]


def test_bone_ages_are_no_chronological_ages_and_a_score_says_so():
    accounts = [{"table": "t.csv", "columns": {"id": "id", "age_months": "Alter in Monaten"}, "caution": None}]
    caution_of_labels(accounts)
    assert accounts[0]["caution"].startswith("'Alter in Monaten' is a bone age, and not used")


def test_an_id_with_another_ending_joins_and_two_ids_of_one_file_must_agree(tmp_path):
    source = tmp_path / "films"
    source.mkdir()
    for name in ("0012.dcm", "1.png"):
        (source / name).write_bytes(b"pixels")
    (tmp_path / "t.csv").write_text("id,sex\n0012.png,F\n1,F\n1.png,M\n")
    archive = FilesArchive(str(source), str(tmp_path / "t.csv"))
    assert {item.record_id: item.sex for item in archive.inputs() if item.uri} == {"0012": "F", "1": None}
    parts = [inputs_of(part) for part in ArchiveParts(archive, "cases")()]
    tables = sum_of_notes([line_of_notes(inputs) for inputs in parts], archive.accounts)
    assert [tables[name] for name in ("rows", "used", "unmatched", "unused")] == [3, 1, 0, 2]


def test_without_a_table_there_is_nothing_to_say(tmp_path):
    tables = sum_of_notes([{}], [])
    assert (tables["rows"], rows_in_words(tables), write_notes(str(tmp_path), [{}])) == (0, [], [])
    assert list(tmp_path.iterdir()) == []
