"""POST /v1/explain over a fake model: a picture, under the rules that hold for predicting."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256

import httpx
import pytest
from fake_model import PNG, FakeModel, problem, served

from boneage_ray.serving.bodies import BodyLimits
from boneage_ray.serving.problems import OverloadedError
from boneage_ray.serving.tokens import token_hash
from boneage_ray.serving.web import WebConfig, create_app

WHERE = "/v1/explain"


def test_a_raw_body_answers_a_picture(ask, model):
    response = ask("POST", f"{WHERE}?sex=M&pixel_spacing_mm=0.2", content=b"12345", headers=PNG)
    assert (response.status_code, response.content) == (200, b"\x89PNG 12345")
    assert response.headers["content-type"] == "image/png"
    assert (model.seen[0].sex, model.seen[0].pixel_spacing_mm, model.seen[0].uri) == ("M", 0.2, "request")


def test_a_form_of_one_file_does_too_of_two_it_does_not(ask, model):
    one, two = ("f", ("one.png", b"1")), ("f", ("two.png", b"22"))
    assert ask("POST", WHERE, files=[one]).content == b"\x89PNG 1"
    assert model.seen[0].uri == "one.png"
    response = ask("POST", WHERE, files=[one, two])
    assert problem(response) == (400, "bad_form")
    assert "holds 2 files" in response.json()["detail"]
    assert len(model.seen) == 1


@pytest.mark.parametrize(
    ("query", "request_", "expected"),
    [
        ("", {"content": b"bad", "headers": PNG}, (422, "truncated")),
        ("", {"content": b"bug", "headers": PNG}, (500, "internal_error")),
        ("", {"headers": PNG}, (400, "empty_body")),
        ("", {"content": b"1", "headers": {"Content-Type": "text/html"}}, (415, "unsupported_media_type")),
        ("", {"content": b"x" * 11, "headers": PNG}, (413, "body_too_large")),
        ("", {"files": [("f", ("a", b"x" * 11))]}, (413, "body_too_large")),
        ("?sex=f", {"content": b"1", "headers": PNG}, (422, "bad_sex")),
        ("?model=other", {"content": b"1", "headers": PNG}, (422, "unknown_model")),
    ],
)
def test_what_predicting_refuses_is_refused(ask, query, request_, expected):
    assert problem(ask("POST", f"{WHERE}{query}", WebConfig(bodies=BodyLimits(10)), **request_)) == expected


def test_only_the_bearer_of_a_token_gets_a_picture(ask):
    config = WebConfig(token_hashes=(token_hash("one"),))
    assert problem(ask("POST", f"{WHERE}?sex=f", config, content=b"1", headers=PNG)) == (401, "unauthorized")
    allowed = PNG | {"Authorization": "Bearer one"}
    assert ask("POST", WHERE, config, content=b"1", headers=allowed).status_code == 200


def test_a_model_that_cannot_or_does_not_answer_is_503(ask, model):
    busy = ask("POST", WHERE, models=[FakeModel(error=OverloadedError())], content=b"1", headers=PNG)
    assert problem(busy) == (503, "overloaded")
    model.gate = asyncio.Event()
    assert problem(ask("POST", WHERE, WebConfig(predict_timeout_s=0.05), content=b"1", headers=PNG)) == (
        503,
        "unavailable",
    )


def test_requests_for_pictures_count_too(ask, model):
    assert problem(ask("POST", WHERE, WebConfig(max_requests=0), content=b"1", headers=PNG)) == (503, "overloaded")
    assert model.seen == []


def test_an_ensemble_has_no_one_picture():
    alone, several = FakeModel("alone"), FakeModel("several")
    app = create_app([served(several, members=2), served(alone)], WebConfig())

    async def once(path):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.post(path, content=b"1", headers=PNG)

    refused = asyncio.run(once(WHERE))
    assert problem(refused) == (422, "not_explainable")
    assert "several is an ensemble" in refused.json()["detail"]
    assert several.seen == []
    assert asyncio.run(once(f"{WHERE}?model=alone")).status_code == 200


def test_the_documentation_names_the_picture(ask):
    post = ask("GET", "/openapi.json").json()["paths"][WHERE]["post"]
    assert list(post["responses"]["200"]["content"]) == ["image/png"]
    assert {"image/png", "multipart/form-data"} <= set(post["requestBody"]["content"])
    assert {"200", "400", "401", "408", "413", "415", "422", "429", "503"} == set(post["responses"])


def test_the_line_of_the_request_has_the_hashes_of_input_and_model(ask, monkeypatch, capfd):
    monkeypatch.setenv("BONEAGE_LOG", "json")
    ask("POST", WHERE, content=b"bad", headers=PNG)
    line = json.loads(capfd.readouterr().err)
    assert (line["status"], line["inputs"], line["model"]) == (422, [sha256(b"bad").hexdigest()], "0" * 64)
