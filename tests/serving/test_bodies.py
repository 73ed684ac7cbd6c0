"""Bodies that are slow or too many, and the line that each request leaves."""

from __future__ import annotations

import asyncio
import json
import re

import httpx
import pytest
from fake_model import PNG, FakeModel, problem, served

from boneage_ray.serving.bodies import BodyLimits
from boneage_ray.serving.web import WebConfig, create_app

HEAD = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n'


def run(config, work, model=None):
    """`work(client)` against an app over one model."""

    async def once():
        transport = httpx.ASGITransport(create_app([served(model or FakeModel())], config), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await work(client)

    return asyncio.run(once())


async def dripping(pause, first=b"", chunks=3):
    yield first
    for _ in range(chunks):
        yield b"x"
        await asyncio.sleep(pause)


@pytest.mark.parametrize(("limits", "pause"), [({"idle_seconds": 0.05}, 30.0), ({"whole_seconds": 0.1}, 0.08)])
@pytest.mark.parametrize("form", [False, True])
def test_a_slow_body_is_408(limits, pause, form):
    headers = {"Content-Type": "multipart/form-data; boundary=b"} if form else PNG

    async def work(client):
        return await client.post("/v1/predict", content=dripping(pause, HEAD if form else b""), headers=headers)

    assert problem(run(WebConfig(bodies=BodyLimits(**limits)), work)) == (408, "body_too_slow")


def test_slow_bodies_take_no_slot():
    async def work(client):
        stopped = asyncio.Event()

        async def slow():
            yield b"x"
            await stopped.wait()

        waiting = [asyncio.ensure_future(client.post("/v1/predict", content=slow(), headers=PNG)) for _ in range(20)]
        await asyncio.sleep(0.05)
        good = [await client.post("/v1/predict", content=b"1234", headers=PNG) for _ in range(3)]
        stopped.set()
        return good, await asyncio.gather(*waiting)

    good, slow = run(WebConfig(max_requests=2), work)
    assert [answer.json()["age_months"] for answer in good] == [4.0] * 3
    # They were whole at the same moment: what finds no slot then is told to come again.
    assert {answer.status_code for answer in slow} <= {200, 503}


def test_all_bodies_together_are_bounded_and_given_back():
    limits = BodyLimits(bytes_each=100, bytes_held=150)

    async def work(client):
        model.gate = asyncio.Event()
        first = asyncio.ensure_future(client.post("/v1/predict", content=b"x" * 100, headers=PNG))
        await asyncio.sleep(0.05)
        refused = await client.post("/v1/predict", content=b"x" * 60, headers=PNG)
        model.gate.set()
        return await first, refused, await client.post("/v1/predict", content=b"x" * 60, headers=PNG)

    model = FakeModel()
    first, refused, later = run(WebConfig(bodies=limits), work, model)
    assert (first.status_code, later.status_code) == (200, 200)
    assert problem(refused) == (503, "overloaded") and refused.headers["retry-after"] == "2"


def test_a_request_leaves_one_line_without_names(monkeypatch, capsys):
    monkeypatch.setenv("BONEAGE_LOG", "json")

    async def work(client):
        files = {"f": ("Qvorbeck_Zyxwina.png", b"1")}
        named = await client.post("/v1/predict", content=b"12", headers=PNG | {"X-Request-Id": "case-7.a"})
        await client.get("/healthz")
        return named, await client.post("/v1/predict", files=files), await client.get("/Qvorbeck")

    named, form, nowhere = run(WebConfig(), work)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert named.headers["x-request-id"] == "case-7.a"
    assert re.fullmatch("[0-9a-f]{32}", form.headers["x-request-id"])
    assert problem(nowhere) == (404, "not_found") and "x-request-id" in nowhere.headers
    assert [(line["route"], line["status"]) for line in lines] == [
        ("/v1/predict", 200),
        ("/v1/predict", 200),
        ("other", 404),
    ]
    assert lines[0]["request"] == "case-7.a" and lines[0]["model"] == "0" * 64
    assert [len(line.get("inputs", ())) for line in lines] == [1, 1, 0]
    assert "Qvorbeck" not in json.dumps(lines)


@pytest.mark.parametrize("given", ["", "a" * 65, "two words", "a\tb"])
def test_an_id_that_is_no_word_is_replaced(given):
    async def work(client):
        return await client.get("/healthz", headers={"X-Request-Id": given})

    assert re.fullmatch("[0-9a-f]{32}", run(WebConfig(), work).headers["x-request-id"])
