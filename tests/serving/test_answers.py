"""Results by `Accept`: JSON, CSV and FHIR of one and the same rows."""

from __future__ import annotations

import csv
import io

import pytest
from fake_model import PNG, problem

from boneage_ray.export.tabular import COLUMNS
from boneage_ray.serving.answers import CSV, FHIR, JSON, chosen_type

FILES = [("f", ("one.png", b"1")), ("f", ("two.png", b"333"))]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ([], JSON),
        ([""], JSON),
        (["*/*"], JSON),
        (["text/csv"], CSV),
        (["text/*"], CSV),
        (["Application/FHIR+json; fhirVersion=4.0"], FHIR),
        (["application/json;q=0.5, text/csv"], CSV),
        (["text/csv;q=0.5, */*;q=0.1"], CSV),
        (["application/*"], JSON),
        (["application/json;q=0, application/*"], FHIR),
        (["image/png", "text/csv"], CSV),
    ],
)
def test_the_type_that_is_liked_best_is_chosen(accept, kind):
    assert chosen_type(accept) == kind


@pytest.mark.parametrize("accept", ["image/png", "application/xml", "text/csv;q=0", "text/csv;q=much", "csv", ";"])
def test_anything_else_is_not_acceptable(ask, model, accept):
    answer = ask("POST", "/v1/predict", content=b"1", headers=PNG | {"Accept": accept})
    assert problem(answer) == (406, "not_acceptable")
    assert model.seen == []


def test_csv_has_the_lines_of_the_export(ask):
    answer = ask("POST", "/v1/predict", files=[*FILES, ("f", ("=three.png", b"bad"))], headers={"Accept": CSV})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.content.startswith("\ufeff".encode())
    lines = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert tuple(lines[0]) == COLUMNS
    assert [(line["input"], line["bone_age_months"], line["code"]) for line in lines] == [
        ("one.png", "1.0", ""),
        ("two.png", "3.0", ""),
        ("'=three.png", "", "truncated"),
    ]


def test_fhir_is_a_transaction_of_the_observations(ask):
    answer = ask("POST", "/v1/predict", files=FILES, headers={"Accept": FHIR})
    assert answer.headers["content-type"] == FHIR
    bundle = answer.json()
    assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "transaction")
    made = [entry["resource"] for entry in bundle["entry"]]
    kinds = [resource["resourceType"] for resource in made]
    assert sorted(kinds) == ["Device", "DiagnosticReport", "DiagnosticReport", "Observation", "Observation"]
    ages = [resource["valueQuantity"] for resource in made if resource["resourceType"] == "Observation"]
    assert [(age["value"], age["code"]) for age in ages] == [(1.0, "mo"), (3.0, "mo")]


def test_fhir_leaves_out_no_file_in_silence(ask):
    files = [*FILES, ("f", ("three.png", b"bad"))]
    answer = ask("POST", "/v1/predict", files=files, headers={"Accept": FHIR})
    assert problem(answer) == (422, "no_findings")
    assert "1 of 3 files" in answer.json()["detail"]
    alone = ask("POST", "/v1/predict", content=b"bad", headers=PNG | {"Accept": CSV})
    assert problem(alone) == (422, "truncated")
