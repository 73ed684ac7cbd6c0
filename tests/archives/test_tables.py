"""CSV tables: headers, cells, and errors."""

from __future__ import annotations

import re

import pytest

from boneage_ray.archives.cells import parse_age
from boneage_ray.archives.columns import read_choices
from boneage_ray.archives.listing import Found
from boneage_ray.archives.tables import (
    cautions_in_words,
    in_words,
    labelled,
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
    "text", [b"", b"\n", b"PK\x03\x04\xff\xfe", "id,boneage".encode("utf-16-le"), b"id;boneage\nM\xfcller;2\n"]
)
def test_a_file_that_is_no_table_is_refused(table, text):
    with pytest.raises(UsageError):
        list(read_table(table(text), needs_age=True))


def test_an_absent_table_says_so(tmp_path):
    with pytest.raises(StorageError, match=r"labels\.csv") as caught:
        list(read_table(str(tmp_path / "labels.csv"), needs_age=True))
    assert caught.value.reason == "not_found"


def test_short_rows_keep_what_they_say_and_long_ones_are_not_guessed(table):
    rows = list(read_table(table("id,boneage,male\n1\n2,20\n3,30,True,,\n4,40,5,True\n"), needs_age=True))
    assert [(r.record_id, r.age_text, r.sex) for r in rows] == [
        ("1", None, None),
        ("2", "20", None),
        ("3", "30", "M"),
        ("4", None, None),
    ]
    assert rows[3].torn == (
        "line 5 has more cells than there are headings; is a decimal comma or a text not in quotes?"
    )


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
        UsageError, match=f"has several columns for the same value: {re.escape(both)}; keep one of them, or choose with"
    ):
        read_table(table(f"{header}\n1,2,3,4\n"), needs_age=True)


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
        read_table(uri, needs_age=True)
    with pytest.raises(UsageError, match=rf"labels\.csv, line {line}: "):
        list(read_table(uri, needs_age=True))


@pytest.mark.parametrize("text", ["id,boneage\n", "id,boneage", "id,boneage\n\n\n"])
def test_a_table_without_rows_is_refused(table, text):
    with pytest.raises(UsageError, match=r"labels\.csv holds no row, only a header"):
        read_table(table(text), needs_age=True)


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


NAMED = {
    "gender": "id,gender\n1,female\n2,male\n",
    "female": "id,female\n1,1\n2,0\n",
    "german": "id;Geschlecht\n1;w\n2;m\n",
    "spreadsheet": "\ufeffsep=;\r\nDateiname;Geschlecht\r\n1;weiblich\r\n2;Männlich\r\n",
    "french": "Fichier,Sexe\n1,féminin\n2,masculin\n",
    "spanish": "archivo\tsexo\n1\tmujer\n2\thombre\n",
    "italian": "id;Sesso\n1;femmina\n2;maschio\n",
    "portuguese": "arquivo;Gênero\n1;feminino\n2;masculino\n",
    "dicom": "file;Patient's Sex\n1;F\n2;M\n",
    "separator in a heading": "id;Geschlecht;Bemerkung (a, b, c, d)\n1;w;x\n2;m;y\n",
    "formula": 'id,sex\n="1",F\n"=""2""",M\n',
    "other separator": "sep=|\nid|sex\n1|F\n2|M\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("text", NAMED.values(), ids=NAMED)
def test_the_usual_names_and_values_of_the_sex_are_read(table, text, encoding):
    rows = list(read_table(table(text.encode(encoding)), needs_age=False))
    assert [(row.record_id, row.sex) for row in rows] == [("1", "F"), ("2", "M")]


@pytest.mark.parametrize(
    ("text", "ages"),
    [
        ("id;boneage\n1;126,125\n2;60\n", [126.125, 60.0]),  # a spreadsheet's semicolons come with decimal commas
        ("id\tboneage\n1\t126,125\n2\t60,5\n", [126.125, 60.5]),  # 60,5 shows what the commas are
        ('id,boneage\n1,"126,125"\n2,60\n', [None, 60.0]),
        ("id,boneage\n1,10Y6M\n2,63M\n", [126.0, 63.0]),
    ],
)
def test_a_decimal_comma_is_read_where_the_table_shows_that_it_is_one(table, text, ages):
    assert [parse_age(row.age_text) for row in read_table(table(text), needs_age=True)] == ages


def test_flags_name_columns_and_values(table):
    uri = table("Nr,Knochen,G,sex,Notiz\n7,120,1,x,a\n8,60,2,y,b\n9,70,9,z,c\n")
    choices = read_choices(["id=nr", "age_months=Knochen", "sex=G"], ["1=M", "2=F", "9=unknown"])
    read = read_table(uri, True, choices)
    assert [(row.record_id, row.age_text, row.sex, row.unusable) for row in read] == [
        ("7", "120", "M", ()),
        ("8", "60", "F", ()),
        ("9", "70", None, ()),
    ]
    assert in_words(read.account()) == (
        f"{uri}: 3 rows; id from 'Nr', age_months from 'Knochen', sex from 'G' (1 = M, 2 = F); not read: 'sex', 'Notiz'"
    )


def test_cells_that_are_not_understood_are_counted_and_the_flag_is_named(table):
    uri = table("id,sex\n1,1\n2,2\n3,1\n4,F\n5,unknown\n6,A long name of a person\n")
    read = read_table(uri, needs_age=False)
    assert [row.unusable for row in read] == [("1",), ("2",), ("1",), (), (), ("A long name of a person",)]
    assert cautions_in_words(read.account()) == [
        f"CAUTION: {uri}: 4 cells of 'sex' are not understood ('1' 2, '2' 1) and count as unknown; "
        "say what they mean, such as --value 1=F"
    ]


@pytest.mark.parametrize(
    ("columns", "values", "said"),
    [
        (["sex=Gruppe"], [], r"--column sex=Gruppe: .*labels\.csv has no such column \(found: id, Sx\)"),
        (["sexx=Sx"], [], "--column sexx=Sx: NAME=HEADING is needed, NAME one of id, .*; did you mean sex\\?"),
        (["sex"], [], "--column sex: NAME=HEADING is needed"),
        (["sex=Sx", "sex=id"], [], "--column sex is given twice: 'Sx' and 'id'"),
        (["sex=Sx"], ["w"], "--value w: CELL=F, CELL=M or CELL=unknown is needed"),
        (["sex=Sx"], ["w=girlish"], "--value w=girlish: CELL=F"),
        (["sex=Sx"], ["w=F", "W=M"], "--value W is given twice"),
        ([], [], r"no column but the id is understood \(found: id, Sx\); known are age_months, .*--column sex=HEADING"),
    ],
)
def test_flags_that_fit_no_table_and_tables_of_which_nothing_is_understood_are_refused(table, columns, values, said):
    with pytest.raises(UsageError, match=said):
        read_table(table("id,Sx\n1,w\n"), False, read_choices(columns, values))


def test_another_separator_is_named(table):
    with pytest.raises(
        UsageError, match=r"no id column \(found: id\|sex\).*is '\|' the separator\? Put a first line sep=\|"
    ):
        read_table(table("id|sex\n1|F\n"), needs_age=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('id,sex,comment\n1,F,"left\n2,M,x\n3,F,right"\n', r"line 2: the cell 'comment' .* is a quote missing"),
        ("id,G,G\n1,F,M\n", r"several columns 'G': rename one"),
        ("id,age\n1,8\n", r"--value: .* has no column of the sex"),
    ],
)
def test_what_would_be_lost_without_a_word_is_refused(table, text, said):
    choices = read_choices(["sex=G"] if ",G" in text else [], ["w=F"] if "age" in text else [])
    with pytest.raises(UsageError, match=said):
        read_table(table(text), needs_age=False, choices=choices)


def test_a_comment_of_several_lines_and_empty_rows_at_the_end_are_fine(table):
    found = read_table(table('id,sex,comment\n1,F,"left\nhand"\n,,\n,,\n'), needs_age=False)
    assert [(row.record_id, row.sex) for row in found] == [("1", "F")]


def test_a_column_of_folds_is_not_told_as_a_split(table):
    account = read_table(table("id,sex,fold\n1,F,1\n2,M,3\n"), needs_age=False).account()
    assert (account["columns"], account["not_read"]) == ({"id": "id", "sex": "sex"}, ["fold"])
