"""The client in Python, against the app in this process: rows, problems, patience."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import httpx
import pytest
from fake_model import FakeModel, served

import boneage_ray
from boneage_ray import client as module
from boneage_ray.client import AsyncClient, Client, ClientOptions, ServiceError
from boneage_ray.serving.problems import OverloadedError
from boneage_ray.serving.tokens import token_hash
from boneage_ray.serving.web import WebConfig, create_app

DOCUMENT = Path(boneage_ray.__file__).parent / "serving" / "openapi.json"


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that clients have waited, which pass at once."""
    waited = []
    monkeypatch.setattr(module.time, "sleep", waited.append)

    async def pass_at_once(seconds):
        waited.append(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", pass_at_once)
    return waited


def asynchronously(app, work, token=None, retries=4):
    """What `work(client)` returns of an `AsyncClient` of the app."""

    async def scene():
        options = ClientOptions(retries, transport=httpx.ASGITransport(app))
        async with AsyncClient("http://test", token, options) as client:
            return await work(client)

    return asyncio.run(scene())


def answering(*responses):
    """A client of a service that gives these answers, one after the other; an exception is raised."""
    left = list(responses)

    def answer(request):
        if isinstance(left[0], Exception):
            raise left.pop(0)
        return left.pop(0)

    return Client("http://test", options=ClientOptions(2, transport=httpx.MockTransport(answer)))


def test_rows_pictures_and_models_of_the_app(tmp_path, model):
    (tmp_path / "a.png").write_bytes(b"123")
    app = create_app([served(model)], WebConfig((token_hash("one"),), allowed_uris=(f"{tmp_path}/",)))

    async def work(client):
        one = await client.predict(tmp_path / "a.png", sex="F", pixel_spacing_mm=0.2)
        several = await client.predict_several({"a": b"1", "b": b"bad"}, model="fake")
        by_uri = await client.predict_uri(f"{tmp_path}/a.png", sex="M")
        return one, several, by_uri, await client.explain(b"1"), await client.models()

    one, several, by_uri, picture, models = asynchronously(app, work, "one")
    assert (one.age_months, one.sex, one.pixel_spacing_mm) == (3.0, "F", 0.2)
    assert [(row.input_uri, row.status, row.reason) for row in several] == [
        ("a", "scored", None),
        ("b", "failed", "truncated"),
    ]
    assert (by_uri.input_uri, by_uri.age_months, by_uri.sex) == (f"{tmp_path}/a.png", 3.0, "M")
    assert picture == b"\x89PNG 1"
    assert [info.name for info in models] == ["fake"]


def test_a_problem_is_raised_with_its_code(model):
    app = create_app([served(model)], WebConfig((token_hash("one"),)))
    for body, token, code in ((b"bad", "one", "truncated"), (b"1", None, "unauthorized")):
        with pytest.raises(ServiceError, match=code) as caught:
            asynchronously(app, lambda client, body=body: client.predict(body), token)
        assert caught.value.problem.code == code


def test_an_overloaded_service_is_asked_again_as_it_says(pauses):
    model = FakeModel(error=OverloadedError())
    with pytest.raises(ServiceError, match="overloaded"):
        asynchronously(create_app([served(model)], WebConfig()), lambda client: client.predict(b"1"), retries=3)
    assert (len(model.seen), pauses) == (4, [2.0, 2.0, 2.0])


def test_a_lost_connection_and_a_limit_are_survived(pauses):
    models = httpx.Response(200, json={"models": []})
    with answering(httpx.ConnectError("refused"), httpx.Response(429, headers={"Retry-After": "90"}), models) as client:
        assert client.models() == []
    assert pauses == [0.5, 60.0]


def test_what_cannot_be_reached_is_raised(pauses):
    with answering(*[httpx.ConnectError("refused")] * 3) as client, pytest.raises(httpx.ConnectError):
        client.models()
    assert pauses == [0.5, 1.0]


def test_an_answer_of_something_else_is_an_error_with_its_status():
    with answering(httpx.Response(502, text="<html>")) as client, pytest.raises(ServiceError, match="502 no_problem"):
        client.models()


def test_a_wrong_parameter_is_refused_before_anything_is_sent():
    with answering() as client, pytest.raises(ValueError, match="gender"):
        client.predict(b"1", gender="F")


def test_the_shipped_document_is_that_of_the_app(model):
    document = json.dumps(create_app([served(model)], WebConfig()).openapi(), indent=1) + "\n"
    if os.environ.get("BONEAGE_WRITE_GOLDEN"):
        DOCUMENT.write_text(document, "utf-8")
    assert json.loads(DOCUMENT.read_text("utf-8")) == json.loads(document)
    example = json.loads(document)["components"]["schemas"]["ResultRow"]["example"]
    assert module.ResultRow(**example).age_months == 121.4


def test_a_column_that_only_a_newer_service_has_is_left_out(model):
    row = asynchronously(create_app([served(model)], WebConfig()), lambda client: client.predict(b"123"))
    newer = row.model_dump(mode="json") | {"carpal_age_months": 1.0}
    with answering(httpx.Response(200, json=newer), httpx.Response(200, json={"rows": [newer]})) as client:
        assert client.predict(b"123") == row
        assert client.predict_several({"a": b"123"}) == [row]
