"""`boneage export`: what is written where, what is left out and why, what is refused; the same files from one process and two."""

from __future__ import annotations

import csv
import json

import cv2
import pydicom
import pytest
from made_up_scores import HAND, HEAD, dicom_file, picture, row_of, write_scored

from boneage_ray.cli import main
from boneage_ray.errors import StorageError
from boneage_ray.export import objects
from boneage_ray.export.scored import open_run

BLANK = {"status": "rejected", "step": "quality", "reason": "blank", "message": "nothing is to be seen"}


@pytest.fixture
def one_core(monkeypatch):
    """No process of its own: starting one takes seconds."""
    monkeypatch.setattr(objects.os, "sched_getaffinity", lambda _: {0})


def everything(path):
    """A run with a hand, a head, a copy of the hand, and one of each thing that has no DICOM object."""
    files = {
        name: dicom_file(path / "in" / f"{name}.dcm", seed)
        for seed, name in enumerate(("hand", "head", "blank", "new", "gone"))
    }
    copy = path / "in" / "copy.dcm"
    copy.write_bytes(files["hand"].read_bytes())
    png = path / "in" / "a.png"
    cv2.imwrite(str(png), picture())
    rows = [
        row_of(files["hand"], HAND),
        row_of(files["head"], HEAD),
        row_of(copy, HAND),
        row_of(files["blank"], {}, **BLANK),
    ]
    rows += [row_of(files["new"], HAND), row_of(files["gone"], HAND), row_of(png, HAND)]
    dicom_file(files["new"], 77)
    files["gone"].unlink()
    return write_scored(path / "out", rows[:3], rows[3:])


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_reports_and_pictures_lie_in_a_folder_for_each_study(tmp_path, one_core, capsys):
    out, to = everything(tmp_path), tmp_path / "to"
    command = ["export", str(out), "--format", "dicom-sr", "--format", "dicom-sc", "--to", str(to), "--json"]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "rows": 7,
        "dicom-sr": 2,
        "dicom-sc": 2,
        "already there": {"dicom-sr": 1, "dicom-sc": 1},
        "not exported": {"blank": 1, "changed": 1, "not_found": 1, "not_dicom": 1},
    }
    assert "storescu" in captured.err
    with (to / "not_exported.csv").open(encoding="utf-8") as file:
        listed = [(line["input"].rsplit("/", 1)[1], line["reason"]) for line in csv.DictReader(file)]
    assert listed == [("blank.dcm", "blank"), ("new.dcm", "changed"), ("gone.dcm", "not_found"), ("a.png", "not_dicom")]
    found = {path: pydicom.dcmread(path) for path in to.rglob("*.dcm")}
    assert sorted(made.Modality for made in found.values()) == ["OT", "OT", "SR", "SR"]
    assert all(path.parent.name == made.StudyInstanceUID for path, made in found.items())
    assert all(path.stem.partition("-")[2] == made.SOPInstanceUID for path, made in found.items())
    assert len({made.SeriesInstanceUID for made in found.values()}) == 4
    before = {name: (to / name).read_bytes() for name in names(to)}
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["already there"] == {"dicom-sr": 3, "dicom-sc": 3}
    assert {name: (to / name).read_bytes() for name in names(to)} == before


@pytest.mark.slow
def test_two_processes_write_the_same_files_as_one(tmp_path):
    files = [dicom_file(tmp_path / "in" / f"{k}.dcm", k) for k in range(10)]
    run = open_run(
        str(write_scored(tmp_path / "out", [row_of(path, HEAD if k % 2 else HAND) for k, path in enumerate(files)]))
    )
    for processes in (1, 2):
        job = objects.ObjectsJob(["dicom-sr", "dicom-sc"], str(tmp_path / f"to{processes}"), run.ended)
        accounts = list(objects.export_objects(run, job, processes))
        assert sum(account.written["dicom-sr"] for account in accounts) == 10
    one, two = tmp_path / "to1", tmp_path / "to2"
    assert len(names(one)) == 20
    assert {name: (one / name).read_bytes() for name in names(one)} == {
        name: (two / name).read_bytes() for name in names(two)
    }


def test_a_table_goes_to_a_file_or_into_a_folder_and_replaces_nothing_unasked(tmp_path, capsys):
    out = everything(tmp_path)
    assert main(["export", str(out), "--format", "csv", "--to", str(tmp_path / "t" / "my.csv")]) == 0
    assert names(tmp_path / "t") == ["my.csv", "my.landmarks.csv"]
    both = ["export", str(out), "--format", "csv", "--format", "parquet", "--to", str(tmp_path / "f")]
    assert main(both) == 0
    assert names(tmp_path / "f") == ["landmarks.csv", "results.csv", "results.parquet"]
    capsys.readouterr()
    assert main(both) == 2
    assert "results.csv exists: give another --to, or --overwrite to replace it" in capsys.readouterr().err
    assert main([*both, "--overwrite"]) == 0


def test_only_what_no_pacs_could_take_is_told_and_ends_with_3(tmp_path, one_core, capsys):
    png = tmp_path / "a.png"
    cv2.imwrite(str(png), picture())
    out = write_scored(tmp_path / "out", [row_of(png, HAND)])
    assert main(["export", str(out), "--format", "dicom-sr", "--to", str(tmp_path / "to")]) == 3
    assert "none of the 1 rows" in (told := capsys.readouterr().err)
    assert "there is no study to add an object to" in told
    assert names(tmp_path / "to") == ["not_exported.csv"]
    assert main(["export", str(out), "--format", "fhir", "--to", str(tmp_path / "fhir")]) == 0


def test_an_odd_header_costs_its_own_object_only(tmp_path, one_core, capsys, monkeypatch):
    files = [dicom_file(tmp_path / "in" / f"{k}.dcm", k) for k in range(2)]
    out = write_scored(
        tmp_path / "out", [row_of(path, HAND | {"age_months": 50.0 + k}) for k, path in enumerate(files)]
    )
    make = objects.make_object

    def fails_once(kind, source, ended):
        if source.row["age_months"] == 50.0:
            raise KeyError("Nobody^Nora")
        return make(kind, source, ended)

    monkeypatch.setattr(objects, "make_object", fails_once)
    assert main(["export", str(out), "--format", "dicom-sr", "--to", str(tmp_path / "to"), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["not exported"] == {"internal_error": 1}
    assert "no sr could be made of this file (KeyError)" in captured.err
    assert "Nora" not in captured.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--format", "xlsx"], 2, "--format xlsx: one of csv, parquet, fhir, dicom-sr, dicom-sc, dicom-pr is needed"),
        (["--format", "csv", "OUT"], 2, "does not exist: give the --out of a `boneage score`"),
        ([], 2, "Missing option"),
    ],
)
def test_what_cannot_be_exported_is_said(tmp_path, capsys, arguments, code, said):
    out = tmp_path / "nowhere" if "OUT" in arguments else everything(tmp_path)
    arguments = [word for word in arguments if word != "OUT"]
    assert main(["export", str(out), *arguments, "--to", str(tmp_path / "to")]) == code
    assert said in capsys.readouterr().err


def test_a_place_without_results_and_an_unfinished_run_are_named(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["export", str(tmp_path / "empty"), "--format", "csv", "--to", str(tmp_path / "to")]) == 3
    assert "holds no results/" in capsys.readouterr().err
    out = everything(tmp_path)
    (out / "summary.json").unlink()
    assert main(["export", str(out), "--format", "csv", "--to", str(tmp_path / "to")]) == 0
    assert "holds 7 rows of a run that has not ended" in capsys.readouterr().err


def test_dicom_sr_without_its_extra_names_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("boneage_ray.commands.export.importlib.util.find_spec", lambda _: None)
    out = everything(tmp_path)
    assert main(["export", str(out), "--format", "dicom-sr", "--to", str(tmp_path / "to")]) == 2
    assert "pip install 'boneage-ray[export]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_place_that_fails_in_a_process_ends_the_export_with_its_own_words(tmp_path, capsys):
    files = [dicom_file(tmp_path / "in" / f"{k}.dcm", k) for k in range(2)]
    rows = [row_of(path, HAND) for path in files]
    out, to = write_scored(tmp_path / "out", rows), tmp_path / "to"
    to.mkdir()
    for row in rows:
        (to / row["study_uid"]).write_text("a file where a folder is needed")
    run = open_run(str(out))
    job = objects.ObjectsJob(["dicom-sc"], str(to), run.ended)
    with pytest.raises(StorageError, match="there is a file where a folder is needed") as caught:
        list(objects.export_objects(run, job, processes=2))
    assert caught.value.__cause__ is None
