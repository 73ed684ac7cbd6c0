"""CSV that a spreadsheet opens right, Parquet as the rows are, FHIR R4 by its JSON schema; and no patient in any of them."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
from jsonschema import Draft6Validator
from made_up_scores import HAND, HEAD, PATIENT, dicom_file, row_of, write_scored

from boneage_ray.export.fhir import by_path, report
from boneage_ray.export.fhir_files import transaction, write_fhir
from boneage_ray.export.scored import open_run
from boneage_ray.export.tabular import COLUMNS, csv_cells, write_csv, write_parquet
from boneage_ray.export.words import age_in_words, findings_in_words
from boneage_ray.records.schema import empty_result, from_table, result_schema

ENDED = datetime(2026, 3, 4, 5, 6, 19, tzinfo=UTC)
REJECTED = {"status": "rejected", "step": "quality", "reason": "blank", "message": "inner gray levels span, 0.1 %"}


def scored(path, drop=()):
    """A run of two parts: a hand and a head, then a rejected file."""
    hand, head, blank = (dicom_file(path / "in" / f"{name}.dcm", seed) for seed, name in enumerate("abc"))
    rows = [row_of(hand, HAND), row_of(head, HEAD)]
    return open_run(str(write_scored(path / "out", rows, [row_of(blank, {}, **REJECTED)], drop=drop)))


def lines(path):
    """Header and lines of a CSV; its mark must be there."""
    text = path.read_bytes().decode("utf-8")
    assert text[0] == "\ufeff"
    return list(csv.DictReader(text[1:].splitlines()))


def test_a_run_knows_its_rows_and_when_it_ended(tmp_path):
    run = scored(tmp_path)
    assert (run.row_count, run.ended, run.is_complete) == (3, ENDED, True)
    assert [(part.start, part.stop) for part in run.slices(1)] == [(0, 1), (1, 2), (0, 1)]
    assert [row["status"] for part in run.slices(1) for row in part.rows()] == ["scored", "scored", "rejected"]


def test_the_csv_says_ages_in_months_and_in_words(tmp_path):
    assert write_csv(scored(tmp_path).tables(), str(tmp_path / "r.csv"), str(tmp_path / "l.csv"), ENDED) == 3
    hand, head, blank = lines(tmp_path / "r.csv")
    assert tuple(hand) == COLUMNS
    said = {
        name: value
        for name, value in hand.items()
        if value and name not in ("input", "model_sha") and "uid" not in name
    }
    assert said == {
        "status": "scored",
        "sex_used": "F",
        "sex_source": "dicom",
        "bone_age_months": "99.4",
        "bone_age": "8 y 3 m",
        "low_months": "86.0",
        "high_months": "112.04",
        "interval": "7 y 2 m to 9 y 4 m, 90 %",
        "interval_level": "0.9",
        "chron_age_months": "110.0",
        "chron_age": "9 y 2 m",
        "difference_months": "-10.6",
        "stage_three": "child",
        "stage_four": "child",
        "mm_per_px": "0.15",
        "spacing_source": "dicom:PixelSpacing",
        "flags": "spacing_at_detector",
        "model": "made-up",
        "package_version": "0.1.0",
        "scored_on": "2026-03-04",
    }
    assert [
        head[name] for name in ("cvm_stage", "cvm_probability", "stage_low", "stage_high", "cvm_typical", "landmarks")
    ] == [*("CS3", "0.8", "CS3", "CS4", "no", "32")]
    assert head["cvm_measurements"] == "C2_depth_mm=1.25; C3_width_to_height=1.5; C4_lower_border_px=130"
    assert [blank[name] for name in ("status", "code", "reason", "bone_age")] == [
        "rejected",
        "blank",
        REJECTED["message"],
        "",
    ]
    points = lines(tmp_path / "l.csv")
    assert len(points) == 32
    assert [points[0][name] for name in ("landmark", "x_px", "y_px", "sigma_px")] == [
        "C2_inferior_posterior",
        "40.0",
        "60.25",
        "1.5",
    ]


def test_a_name_that_a_spreadsheet_would_take_for_a_formula_is_a_text(tmp_path):
    row = (
        empty_result() | HAND | {"input_uri": "=HYPERLINK(1)", "status": "scored", "landmarks": None, "cvm_stage": None}
    )
    write_csv(iter([[row]]), str(tmp_path / "r.csv"), str(tmp_path / "l.csv"), ENDED)
    (line,) = lines(tmp_path / "r.csv")
    assert line["input"] == "'=HYPERLINK(1)"
    assert line["difference_months"] == "-10.6"
    assert not (tmp_path / "l.csv").exists()


def test_parquet_holds_the_rows_as_they_are(tmp_path):
    run = scored(tmp_path)
    assert write_parquet(run.tables(), str(tmp_path / "r.parquet")) == 3
    table = pq.read_table(tmp_path / "r.parquet")
    assert table.schema.equals(result_schema())
    assert from_table(table) == [row for rows in run.tables() for row in rows]
    assert from_table(table)[1]["cvm_probabilities"]["CS4"] == 0.16


def test_results_of_an_older_version_are_exported_without_what_they_lack(tmp_path):
    run = scored(
        tmp_path, drop=("age_low_months", "age_high_months", "interval_coverage", "age_spread_months", "flags")
    )
    (hand, _), _ = run.tables()
    assert hand["flags"] == []
    assert age_in_words(hand) == "8 y 3 m"
    assert csv_cells(hand, "2026-03-04")["interval"] is None
    assert write_parquet(run.tables(), str(tmp_path / "r.parquet")) == 3


def test_findings_are_said_as_a_radiologist_says_them(tmp_path):
    (hand, head), _ = scored(tmp_path).tables()
    assert findings_in_words(hand) == [
        "Bone age 8 y 3 m (7 y 2 m to 9 y 4 m, 90 %)",
        "Sex that the bone age is predicted for: female",
        "Chronological age 9 y 2 m",
        "Bone age minus chronological age -11 months",
    ]
    assert findings_in_words(head) == ["Cervical stage CS3 (80 %), not typical of it", "32 landmarks"]


@cache
def r4():
    schema = json.loads((Path(__file__).parent / "fhir_r4.schema.json").read_text("utf-8"))
    return Draft6Validator(schema)


def faults(resource):
    """What the R4 schema finds wrong in a resource, without what follows from that in every other kind of resource."""
    schema = r4().evolve(
        schema={**r4().schema["definitions"][resource["resourceType"]], "definitions": r4().schema["definitions"]}
    )
    return [f"{list(error.absolute_path)}: {error.message[:200]}" for error in schema.iter_errors(resource)]


def test_fhir_is_valid_r4(tmp_path):
    run = scored(tmp_path)
    assert write_fhir(run.tables(), str(tmp_path / "f"), run.ended) == 2
    texts = [path.read_text("utf-8") for path in sorted((tmp_path / "f" / "ndjson").iterdir())]
    bulk = [json.loads(line) for text in texts for line in text.splitlines()]
    assert [one["resourceType"] for one in bulk] == [
        "Device",
        "DiagnosticReport",
        "DiagnosticReport",
        "Observation",
        "Observation",
    ]
    (part,) = (tmp_path / "f" / "transactions").iterdir()
    whole = json.loads(part.read_text("utf-8"))
    assert [fault for one in (*bulk, whole) for fault in faults(one)] == []
    assert [entry["request"]["url"] for entry in whole["entry"]] == [
        *("Device", "DiagnosticReport", "Observation", "DiagnosticReport", "Observation")
    ]
    assert faults({**bulk[1], "status": "done", "age": 3}) != []
    assert faults({**whole, "entry": [{"resource": {"resourceType": "Observation", "colour": 1}}]}) != []


def test_fhir_says_the_bone_age_with_its_interval_and_where_it_belongs(tmp_path):
    (hand, head), _ = scored(tmp_path).tables()
    whole, age = report(hand, ENDED, by_path)
    assert age["code"]["coding"] == [{"system": "http://loinc.org", "code": "85151-9", "display": "XR Bone age"}]
    months = {"unit": "month", "system": "http://unitsofmeasure.org", "code": "mo"}
    assert age["valueQuantity"] == {"value": 99.4, **months}
    parts = {part["code"]["coding"][0]["code"]: part for part in age["component"]}
    assert parts["AGEINTERVAL"]["valueRange"] == {"low": {"value": 86.0, **months}, "high": {"value": 112.04, **months}}
    assert parts["AGECOVERAGE"]["valueQuantity"]["value"] == 90.0
    assert parts["424144002"]["valueQuantity"]["value"] == 110.0
    assert parts["SEXUSED"]["valueCodeableConcept"]["text"] == "Female"
    study = {"type": "ImagingStudy", "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{hand['study_uid']}"}}
    assert (whole["imagingStudy"], age["derivedFrom"]) == ([study], [study])
    assert whole["result"] == [{"reference": f"Observation/{age['id']}"}]
    assert whole["status"] == age["status"] == "preliminary"
    assert "subject" not in whole
    _, stage = report(head, ENDED, by_path)
    assert stage["valueCodeableConcept"]["text"] == "Cervical stage CS3"


def test_a_transaction_sent_twice_creates_nothing_twice(tmp_path):
    (hand, head), _ = scored(tmp_path).tables()
    first, again = transaction([hand, head], ENDED), transaction([hand | {"input_uri": "elsewhere"}, head], ENDED)
    assert first == again
    made = {entry["fullUrl"]: entry["request"] for entry in first["entry"]}
    assert len(made) == 5
    assert all(request["ifNoneExist"] == f"identifier=urn:ietf:rfc:3986|{url}" for url, request in made.items())
    results = [entry["resource"]["result"][0]["reference"] for entry in first["entry"] if "result" in entry["resource"]]
    assert set(results) < set(made)


def test_no_patient_is_in_a_table_or_a_fhir_resource(tmp_path):
    run = scored(tmp_path)
    write_csv(run.tables(), str(tmp_path / "e" / "r.csv"), str(tmp_path / "e" / "l.csv"), ENDED)
    write_fhir(run.tables(), str(tmp_path / "e"), ENDED)
    write_parquet(run.tables(), str(tmp_path / "e" / "r.parquet"))
    files = [path for path in (tmp_path / "e").rglob("*") if path.is_file()]
    assert len(files) == 7
    words = [*PATIENT.values(), "Nobody", "Nora", "ACC-99"]
    found = [(path.name, word) for path in files for word in words if word.encode() in path.read_bytes()]
    assert found == []
    assert b"Nobody" in (tmp_path / "in" / "a.dcm").read_bytes()
