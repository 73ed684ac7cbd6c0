"""What became of the rows of a table: counts of all parts, and a line for each row that was not used whole."""

from __future__ import annotations

import csv

from boneage_ray.archives.in_parts import ArchiveParts, inputs_of
from boneage_ray.archives.notes import cautions, line_of_notes, rows_in_words, sum_of_notes, write_notes
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


def test_without_a_table_there_is_nothing_to_say(tmp_path):
    tables = sum_of_notes([{}], [])
    assert (tables["rows"], rows_in_words(tables), write_notes(str(tmp_path), [{}])) == (0, [], [])
    assert list(tmp_path.iterdir()) == []
