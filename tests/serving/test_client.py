"""The client against the real HTTP interface on a port, and its patience against answers in an order of our own."""

from __future__ import annotations

import asyncio
import threading
import time

import httpx
import pytest
import uvicorn
from conftest import free_port
from fake_model import FakeModel, served

from boneage_ray.client import AsyncClient, Client, Said, ServiceError, UnreachableError
from boneage_ray.serving.web import WebConfig, create_app, token_hash

TOKEN = "correct-horse"


@pytest.fixture(scope="module")
def place():
    """The address of a service whose ages are numbers of bytes."""
    config = WebConfig(token_hashes=(token_hash(TOKEN),))
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app([served(FakeModel())], config), port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def test_both_clients_give_typed_rows_pictures_and_problems(place, tmp_path):
    (tmp_path / "hand.png").write_bytes(b"12345")
    said = Said(sex="F", pixel_spacing_mm=0.2)

    async def awaited():
        async with AsyncClient(place, TOKEN) as service:
            row = await service.predict(tmp_path / "hand.png", said)
            rows = await service.predict_all([tmp_path / "hand.png", b"12"], said)
            with pytest.raises(ServiceError) as refused:
                await service.predict(b"bad")
            return row, rows, await service.explain(b"1"), await service.models(), refused.value.problem

    with Client(place, TOKEN) as service:
        row = service.predict(tmp_path / "hand.png", said)
        rows = service.predict_all([tmp_path / "hand.png", b"12"], said)
        with pytest.raises(ServiceError) as refused:
            service.predict(b"bad")
        found = row, rows, service.explain(b"1"), service.models(), refused.value.problem
    assert asyncio.run(awaited()) == found
    assert (row.age_months, row.sex, row.pixel_spacing_mm) == (5.0, "F", 0.2)
    assert [each.age_months for each in rows] == [5.0, 2.0]
    assert rows[0].input_uri == "hand.png"
    assert (found[4].status, found[4].code, found[4].step) == (422, "truncated", "decode")
    assert [model.name for model in found[3]] == ["fake"]


def test_a_wrong_token_is_told_at_once(place, monkeypatch):
    monkeypatch.setenv("BONEAGE_API_TOKEN", "wrong")
    with Client(place) as service, pytest.raises(ServiceError, match="401 unauthorized: give a valid token"):
        service.predict(b"1")


def answering(client, *answers):
    """The client's requests are answered in this order; the requests, and the seconds that it slept, in lists."""
    asked, left = [], list(answers)

    def answer(request):
        asked.append(request)
        now = left.pop(0)
        if isinstance(now, Exception):
            raise now
        return now

    client._http = httpx.Client(transport=httpx.MockTransport(answer))
    return asked


BUSY = httpx.Response(
    503, headers={"Retry-After": "2"}, json={"title": "t", "status": 503, "detail": "d", "code": "overloaded"}
)
MODELS = httpx.Response(200, json={"models": []})


def test_it_comes_again_when_the_service_says_and_longer_and_longer_where_nothing_does(monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with Client("http://service/", patience_s=60) as client:
        asked = answering(client, BUSY, httpx.ConnectError("refused"), httpx.ReadError("gone"), MODELS)
        assert client.models() == []
    assert [str(request.url) for request in asked] == ["http://service/v1/models"] * 4
    assert slept[0] == 2
    assert 0.5 <= slept[1] <= 1 <= slept[2] <= 2


def test_its_patience_ends(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with Client("http://service", patience_s=1) as client:
        answering(client, BUSY)
        with pytest.raises(ServiceError, match="503 overloaded: d"):
            client.models()
        answering(client, *[httpx.ConnectError("refused")] * 20)
        with pytest.raises(UnreachableError, match="http://service: refused"):
            client.models()
        answering(client, httpx.Response(502, text="<html>bad gateway"))
        with pytest.raises(ServiceError, match="502 http_error: Bad Gateway"):
            client.models()


def test_a_column_that_only_a_newer_service_has_is_left_out(place):
    with Client(place, TOKEN) as service:
        row = service.predict(b"123")
    with Client("http://service") as client:
        answering(client, httpx.Response(200, json=row.model_dump(mode="json") | {"carpal_age_months": 1.0}))
        assert client.predict(b"123") == row
