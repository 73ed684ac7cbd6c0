"""CSV tables: headers, cells, and errors."""

from __future__ import annotations

import re

import pytest

from boneage_ray.archives.listing import Found
from boneage_ray.archives.tables import (
    check_table,
    labelled,
    parse_age,
    parse_ratio,
    parse_spacing,
    parse_years,
    read_table,
    split_of_folder,
)
from boneage_ray.errors import StorageError, UsageError


@pytest.fixture
def table(tmp_path):
    """table(text) is the URI of a CSV with this text (or these bytes)."""

    def write(text):
        path = tmp_path / "labels.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


@pytest.mark.parametrize(
    "text",
    [
        "id,boneage,male\n1377,180,False\n",
        "Image ID,male,Bone Age (months)\n1377,FALSE,180\n",
        "Case ID,Sex,Ground truth bone age (months)\n1377,F,180\n",
        " ID , BoneAge , MALE \n 1377 , 180 , 0 \n",
        "sex,bone_age,id\nfemale,180.0,1377\n",
        "\ufeffid,boneage,male\r\n1377,180,False\r\n",
        "id;boneage;male\n1377;180;False\n",
        "id,boneage,male\r1377,180,False\r",
        'id,note,boneage,male\n1377,"a, b\nc",180,False\n',
    ],
    ids=["training", "validation", "test", "spaces", "order", "excel", "semicolons", "old-mac", "quoted"],
)
def test_published_schemas_and_their_variants_say_the_same(table, text):
    (row,) = read_table(table(text), needs_age=True)
    assert (row.record_id, parse_age(row.age_text), row.sex) == ("1377", 180.0, "F")


@pytest.mark.parametrize(
    ("header", "cell", "sex"),
    [
        ("male", "1", "M"),
        ("male", "0", "F"),
        ("male", "", None),
        ("male", "NaN", None),
        ("sex", "M", "M"),
        ("Sex", "f", "F"),
        ("sex", "0", None),
        ("sex", "1", None),
        ("sex", "9", None),
        ("sex", "other", None),
    ],
)
def test_sex_unknown_is_never_female(table, header, cell, sex):
    (row,) = read_table(table(f"id,boneage,{header}\n1,100,{cell}\n"), needs_age=True)
    assert row.sex == sex
    assert labelled(Found("a/1.png", "1.png", "1", 5), row).sex_source == ("metadata" if sex else "unknown")


def test_a_table_without_sex_leaves_it_unknown(table):
    (row,) = read_table(table("id,boneage\n1,100\n"), needs_age=True)
    assert row.sex is None


@pytest.mark.parametrize(
    "text", ["-1", "-0.1", "240.1", "300", "NaN", "inf", "-inf", "abc", "", None, "12 months", "1e9"]
)
def test_unusable_ages(text):
    assert parse_age(text) is None


@pytest.mark.parametrize(("text", "months"), [("0", 0.0), ("240", 240.0), ("100.5", 100.5), ("1e2", 100.0)])
def test_usable_ages_are_months(text, months):
    assert parse_age(text) == months


@pytest.mark.parametrize(("text", "mm"), [("0.143", 0.143), ("0", None), ("-1", None), ("nan", None), (None, None)])
def test_spacing_is_positive_or_unknown(text, mm):
    assert parse_spacing(text) == mm


def test_a_missing_column_is_named_with_those_found(table):
    with pytest.raises(UsageError, match=r"no id column \(found: name, boneage\); name it id"):
        list(read_table(table("name,boneage\n1,2\n"), needs_age=True))
    with pytest.raises(UsageError, match=r"no bone age column \(found: id, male\); name it boneage, in months"):
        list(read_table(table("id,male\n1,True\n"), needs_age=True))


def test_ages_are_needed_only_where_asked_for(table):
    (row,) = read_table(table("stem,sex,spacing\n7,M,0.1\n"), needs_age=False)
    made = labelled(Found("a/7.png", "7.png", "7", 5), row)
    assert (made.record_id, made.age_months, made.sex, made.pixel_spacing_mm) == ("7", None, "M", 0.1)
    assert (made.pixel_spacing_source, made.size_bytes) == ("metadata", 5)


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"PK\x03\x04\xff\xfe", "id,boneage\n1,2".encode("utf-16"), "id,boneage".encode("utf-16-le")]
)
def test_a_file_that_is_no_table_is_refused(table, text):
    with pytest.raises(UsageError):
        list(read_table(table(text), needs_age=True))


def test_an_absent_table_says_so(tmp_path):
    with pytest.raises(StorageError, match=r"labels\.csv") as caught:
        list(read_table(str(tmp_path / "labels.csv"), needs_age=True))
    assert caught.value.reason == "not_found"


def test_short_and_long_rows_keep_what_they_say(table):
    rows = list(read_table(table("id,boneage,male\n1\n2,20\n3,30,True,more\n"), needs_age=True))
    assert [(r.record_id, r.age_text, r.sex) for r in rows] == [("1", None, None), ("2", "20", None), ("3", "30", "M")]


@pytest.mark.parametrize("patient", ["patient", "Patient ID", "subject"])
@pytest.mark.parametrize(
    ("split", "cell", "name"), [("split", "Training", "train"), ("Set", "valid", "val"), ("fold", "test", "test")]
)
def test_patient_split_and_source_go_along(table, patient, split, cell, name):
    (row,) = read_table(table(f"id,boneage,{patient},{split},site\n1,100,p7,{cell},north\n"), needs_age=True)
    made = labelled(Found("a/1.png", "1.png", "1", 5), row)
    assert (made.patient, made.split, made.source, row.unusable) == ("p7", name, "north", ())


def test_a_number_of_a_fold_is_no_split_and_a_wrong_word_is_reported(table):
    rows = list(read_table(table("id,fold,sex,spacing\n1,3,M,0.1\n2,holdout,xyz,abc\n"), needs_age=False))
    assert [(row.split, row.unusable) for row in rows] == [(None, ()), (None, ("xyz", "abc", "holdout"))]


@pytest.mark.parametrize("name", ["px_per_cm", "Pixels per cm", "pixel-to-cm", "px/cm"])
def test_pixels_per_centimetre_are_never_rounded(table, name):
    (row,) = read_table(table(f"image;{name}\n001.jpg;84,6\n"), needs_age=False)
    assert (row.image_id, row.spacing_mm) == ("001", 10 / 84.6)


@pytest.mark.parametrize(
    ("text", "mm"), [("100", 0.1), ("0", None), ("-5", None), ("0.01", None), ("inf", None), ("", None)]
)
def test_ratios_are_plausible_or_unknown(text, mm):
    assert parse_ratio(text) == mm


@pytest.mark.parametrize(
    ("text", "months"), [("12.5", 150.0), ("0", 0.0), ("25", 300.0), ("150", None), ("-1", None), ("x", None)]
)
def test_years_become_months(text, months):
    assert parse_years(text) == months


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train/1.png", "train"),
        ("Training_2/a/1.png", "train"),
        ("set/validation/1.png", "val"),
        ("val1/1.png", "val"),
        ("test.zip!/1.png", "test"),
        ("testing/1.png", "test"),
        ("boneage-training-dataset/1.png", None),
        ("values/1.png", None),
        ("trainee/1.png", None),
        ("a/b/train/1.png", None),
        ("train.png", None),
    ],
)
def test_top_folders_may_say_the_split(path, split):
    assert split_of_folder(path) == split


def test_a_table_can_be_checked_before_work_begins(table):
    check_table(table("id,boneage\n1,2\n"), needs_age=True)
    with pytest.raises(UsageError, match="no bone age column"):
        check_table(table("id,sex\n"), needs_age=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8,5", 8.5),
        ("100,25", 100.25),
        ("0,143", 0.143),
        (",5", 0.5),
        (" 12. ", 12.0),
        ("+7", 7.0),
        ("1,200", None),
        ("12,000", None),
        ("10_0", None),
        ("1,2,3", None),
        ("1.234,5", None),
        ("\u0661\u0662", None),
        ("0x10", None),
    ],
)
def test_numbers_are_plain_decimals(text, value):
    assert parse_age(text) == value
    assert parse_spacing(text) == (value if value is not None and value <= 10 else None)


@pytest.mark.parametrize(
    ("text", "value"), [("0.001", 0.001), ("10", 10.0), ("1e-9", None), ("10.5", None), ("0", None)]
)
def test_a_spacing_that_no_pixel_has_is_none(text, value):
    assert parse_spacing(text) == value


@pytest.mark.parametrize(
    ("header", "both"),
    [
        ("id,boneage,boneage", "'boneage', 'boneage'"),
        ("id,boneage,Bone Age", "'boneage', 'Bone Age'"),
        ("id,boneage,Bone Age (months)", "'boneage', 'Bone Age (months)'"),
        ("id,ID,boneage", "'id', 'ID'"),
        ("id,boneage,male,sex", "'male', 'sex'"),
        ("id,boneage,spacing,pixel_spacing_mm", "'spacing', 'pixel_spacing_mm'"),
    ],
)
def test_two_columns_of_one_meaning_are_refused(table, header, both):
    with pytest.raises(
        UsageError, match=f"has several columns for the same value: {re.escape(both)}; keep one of them"
    ):
        check_table(table(f"{header}\n1,2,3,4\n"), needs_age=True)


def test_columns_of_other_meaning_or_none_may_occur_together(table):
    (row,) = read_table(table("id,image,boneage,age,note,note\n1,x.png,100,8,a,b\n"), needs_age=True)
    assert (row.record_id, row.age_text, row.years_text) == ("1", "100", "8")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('id,boneage,male\n1,10,True\n2,"20,True\n3,30,True\n4,40,True\n', 3),
        ('id,boneage,male\n1,10,True\n2,"20,True\n3,30",True\n4,40,True\n', 3),
        ('id,boneage,male\n1,10,True\n2,"20"x,True\n', 3),
        ('id,boneage,note\n1,10,"a\nb"\n2,20,"c\n3,30,d\n', 4),
        ("id,boneage,note\n1,10," + "x" * 140_000 + "\n", 2),
        ('id,"boneage,male\n1,10,True\n', 1),
        ("id,boneage," + "x" * 140_000 + "\n1,10\n", 1),
    ],
    ids=["to the end", "to another", "text after", "multi-line note before", "long cell", "header", "long header"],
)
def test_text_that_is_not_csv_is_reported_with_its_line(table, text, line):
    uri = table(text)
    with pytest.raises(UsageError, match=rf"labels\.csv, line {line}: .*is a quote missing\?"):
        check_table(uri, needs_age=True)
    with pytest.raises(UsageError, match=rf"labels\.csv, line {line}: "):
        list(read_table(uri, needs_age=True))


@pytest.mark.parametrize("text", ["id,boneage\n", "id,boneage", "id,boneage\n\n\n"])
def test_a_table_without_rows_is_refused(table, text):
    with pytest.raises(UsageError, match=r"labels\.csv holds no row, only a header"):
        check_table(table(text), needs_age=True)


@pytest.mark.parametrize(
    "text",
    [
        '"id","boneage","male"\r\n"1377","180","False"\r\n',
        '\ufeff"id";"Bone Age (months)";"male"\r\n1377;"180,0";False\r\n',
        '\ufeff"id";"boneage";"a, note, quoted, with, commas";"male"\n1377;180;x;False\n',
        'id, "boneage", male\n1377, "180", False\n',
        '"id";"boneage";"a, b";"male"\r1377;180;;False\r',
    ],
)
def test_quoted_headers_in_every_spelling(table, text):
    (row,) = read_table(table(text), needs_age=True)
    assert (row.record_id, parse_age(row.age_text), row.sex) == ("1377", 180.0, "F")
