"""A mixed archive: routed rows are those of each model alone, and a triage counts the same without writing anything."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import pyarrow.parquet as pq
import pytest
from pydicom import dcmread

from boneage_ray.archives.archive import Archive, Input
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.in_parts import ArchiveParts
from boneage_ray.cli import main
from boneage_ray.decoding.dicom.read import Origin, origin_in
from boneage_ray.phantoms.archive import write_hand_archive
from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.phantoms.png import encode_gray_png
from boneage_ray.prediction import routing
from boneage_ray.prediction.runtimes import Compute
from boneage_ray.preparation.prepare import Reading
from boneage_ray.records.schema import from_table
from boneage_ray.scoring.score import ScoreOptions
from boneage_ray.scoring.triage import Counted, Sampled, TriageWorker, numbered_sites
from boneage_ray.scoring.worker import ScorePlaces, ScoreWorker

HAND, HEAD = "builtin:hand", "builtin:cephalogram"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Two hands, one of them twice, a head, a text, and DICOM of a hand with a year and an institution."""
    folder = tmp_path_factory.mktemp("mixed")
    write_hand_archive(str(folder / "h"), 2, 3, 256)
    write_hand_archive(str(folder / "d"), 1, 5, 256, dicom=True)
    films = folder / "films"
    films.mkdir()
    hands = sorted((folder / "h").rglob("*.png"))
    for k, path in enumerate([*hands, hands[0]]):
        shutil.copy(path, films / f"{k}{path.suffix}")
    (films / "3.png").write_bytes(
        encode_gray_png(cephalogram_phantom(0, 3, 1024).image)
    )  # the model recognises few phantoms
    (films / "notes.txt").write_text("no picture")
    (made,) = (folder / "d").rglob("*.dcm")
    header = dcmread(made)
    header.StudyDate, header.InstitutionName = "20190402", "St. Anna"
    header.save_as(films / "h.dcm")
    return films


def part_of(films):
    part, *_ = ArchiveParts(FilesArchive(str(films)), "results", files_only=True)()
    return asdict(part)


def worked(kind, films, out, *models):
    """What a worker answers, and its rows by name."""
    route = len(models) > 1
    found = routing.resolve_all(list(models), route)
    places = ScorePlaces(str(films), str(out), "uri", route)
    arguments = (list(models), routing.sha256_of(found), places, Reading(), Compute())
    return kind(**dict(zip(("models", "sha256", "places", "reading", "compute"), arguments, strict=True)))(
        part_of(films)
    )


def rows_of(out):
    (part,) = (out / "results").iterdir()
    return {row["input_uri"].rsplit("/", 1)[-1]: row for row in from_table(pq.read_table(part))}


@pytest.mark.slow
def test_routed_rows_are_those_of_each_model_alone_and_a_triage_counts_them(mixed, tmp_path):
    line = worked(ScoreWorker, mixed, tmp_path / "both", HAND, HEAD)
    both = rows_of(tmp_path / "both")
    worked(ScoreWorker, mixed, tmp_path / "hand", HAND)
    worked(ScoreWorker, mixed, tmp_path / "head", HEAD)
    alone = {"0.png": "hand", "1.png": "hand", "2.png": "hand", "3.png": "head", "h.dcm": "hand"}
    assert {name for name, row in both.items() if row["status"] == "scored"} == alone.keys()
    for name, model in alone.items():
        assert both[name] == rows_of(tmp_path / model)[name]
    assert (both["notes.txt"]["reason"], both["notes.txt"]["model"]) == ("unsupported_format", None)
    assert (line["inputs"], line["scored"], line["reasons"]) == (6, 5, {"unsupported_format": 1})

    counted = Counted()
    counted.taken(worked(TriageWorker, mixed, "", HAND, HEAD))
    answer = counted.as_json()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both", "hand", "head"]
    assert {name: answer[name] for name in ("inputs", "hands", "heads", "other", "unreadable", "duplicates")} == {
        "inputs": 6,
        "hands": 4,
        "heads": 1,
        "other": 1,
        "unreadable": 0,
        "duplicates": 1,
    }
    assert (answer["without_sex"], answer["years"], answer["sites"]) == (4, {"2019": 1}, {"St. Anna": 1})
    assert numbered_sites(answer, names=False)["sites"] == {"site 1": 1}
    assert json.loads(json.dumps(answer)) == answer


def test_of_a_header_a_triage_keeps_the_year_and_the_institution_and_nothing_of_a_broken_one(mixed):
    data = (mixed / "h.dcm").read_bytes()
    assert origin_in(data) == Origin("2019", "St. Anna")
    assert origin_in(data[:300]) == origin_in(b"nothing") == Origin()


def test_a_sample_is_the_same_share_each_time():
    class Many(Archive):
        def inputs(self):
            yield from (Input(f"s3://films/{k}.png", str(k)) for k in range(10_000))
            yield Input("", "a note")

    chosen = [item.uri for item in Sampled(Many(), 0.1).inputs()]
    assert chosen == [item.uri for item in Sampled(Many(), 0.1).inputs()]
    assert 900 < len(chosen) - 1 < 1100
    assert chosen[-1] == ""


def test_a_route_is_a_setting_of_the_results_and_refused_with_one_model(tmp_path, capsys):
    plain, route = (ScoreOptions("s", [HAND, HEAD], "o", route=route).settings("5e") for route in (False, True))
    assert route == plain | {"--route": "given"}
    assert main(["score", str(tmp_path), "--model", "hand", "--route", "--out", str(tmp_path.parent / "o")]) == 2
    assert "--route needs two models or more" in capsys.readouterr().err
    assert main(["triage", str(tmp_path), "--column", "sex=S"]) == 2
    assert "--metadata CSV" in capsys.readouterr().err
