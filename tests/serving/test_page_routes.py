"""What the page is served with: its files, its headers, and the routes that it asks besides those for scores."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fake_model import PNG, problem

import boneage_ray.serving
from boneage_ray.anatomy.growth import SCHEMES
from boneage_ray.decoding.decode import decode
from boneage_ray.decoding.reasons import MEANINGS
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.records.flags import FLAG_MEANINGS
from boneage_ray.serving.page import SAMPLES
from boneage_ray.serving.tokens import token_hash
from boneage_ray.serving.web import WebConfig

STATIC = Path(boneage_ray.serving.__file__).parent / "static"


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_may_load_from_this_server_only_and_is_framed_by_nobody(ask, path):
    response = ask("GET", path, WebConfig(token_hashes=(token_hash("one"),)))
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert response.headers["referrer-policy"] == "no-referrer"
    for place in re.findall(r'(?:src|href)="(?!#|docs)([^"]+)"', response.text):
        there = ask("GET", f"/{place}")
        assert there.status_code == 200
        assert there.headers["x-content-type-options"] == "nosniff"


def test_no_file_of_the_page_names_another_host():
    for path in STATIC.iterdir():
        hosts = set(re.findall(r"https?://([^/\"' ]+)", path.read_text("utf-8")))
        assert hosts <= {"www.w3.org"}, path  # the name space of SVG, which nobody loads


def test_files_beside_the_page_are_out_of_reach(ask):
    for path in ("/static/nothing.js", "/static/..%2fweb.py", "/static/%2e%2e/page.py"):
        assert problem(ask("GET", path)) == (404, "not_found")


def test_the_meanings_of_codes_need_no_token(ask):
    about = ask("GET", "/v1/about", WebConfig(token_hashes=(token_hash("one"),))).json()
    assert (about["reasons"], about["flags"]) == (MEANINGS, FLAG_MEANINGS)
    assert about["stages"] == {name: list(scheme.classes) for name, scheme in SCHEMES.items()}
    assert [sample["kind"] for sample in about["samples"]] == [sample.kind for sample in SAMPLES]


def test_a_sample_is_a_phantom_of_what_it_is_said_to_be(ask):
    response = ask("GET", "/v1/sample?number=1")
    assert response.headers["content-type"] == "image/png"
    sample = SAMPLES[1]
    drawn = hand_phantom(sample.seed, sample.age_months, sample.sex, 800).image
    assert (decode(response.content, 10).pixels == drawn).all()
    head = ask("GET", f"/v1/sample?number={len(SAMPLES) - 1}").content
    assert decode(head, 10).pixels.shape == (800, 645)


@pytest.mark.parametrize("number", ["-1", str(len(SAMPLES)), "x"])
def test_a_sample_that_there_is_not_is_refused(ask, number):
    assert problem(ask("GET", f"/v1/sample?number={number}")) == (422, "bad_number")


def test_a_row_in_words_is_what_reports_say(ask):
    row = ask("POST", "/v1/predict?sex=F&chronological_age_months=30", content=b"x" * 40, headers=PNG).json()
    row |= {"age_low_months": 31.0, "age_high_months": 52.0, "interval_coverage": 0.9, "flags": ["sex_unknown"]}
    row["chronological_age_months"] = 30.0
    said = ask("POST", "/v1/report", json=row).json()
    assert (said["bone_age"], said["interval"], said["chronological_age"]) == (
        "3 y 4 m",
        "2 y 7 m to 4 y 4 m, 90 %",
        "2 y 6 m",
    )
    assert said["text"].splitlines() == [
        "Bone age 3 y 4 m (2 y 7 m to 4 y 4 m, 90 %)",
        "Sex that the bone age is predicted for: female",
        "Chronological age 2 y 6 m",
        "Warnings: sex unknown",
        "Model fake 000000000000, boneage-ray 1",
        "NOT FOR DIAGNOSIS. For research, not a medical device. Unverified.",
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", (422, "bad_row")),
        (b"no json", (422, "bad_row")),
        (b"", (400, "empty_body")),
        (b" " * 2**21, (413, "body_too_large")),
    ],
    ids=["no row", "no json", "empty", "large"],
)
def test_what_is_no_row_is_refused(ask, body, expected):
    assert problem(ask("POST", "/v1/report", content=body)) == expected


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/sample?number=0"), ("POST", "/v1/report")])
def test_only_the_bearer_of_a_token_has_work_done(ask, method, path):
    assert problem(ask(method, path, WebConfig(token_hashes=(token_hash("one"),)))) == (401, "unauthorized")
