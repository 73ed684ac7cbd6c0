"""Requests, images and the queue as the web app counts them."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fake_model import PNG, FakeModel, served

from boneage_ray.runtime.metrics import ROUTES
from boneage_ray.serving.problems import UnavailableError
from boneage_ray.serving.web import WebConfig, create_app


def test_requests_are_counted_by_route_and_status_and_images_by_what_became_of_them(ask, recorded):
    files = [("a", ("one.png", b"1")), ("a", ("two.png", b"bad"))]
    for body in ({"content": b"1", "headers": PNG}, {"content": b"bad", "headers": PNG}, {"files": files}):
        ask("POST", "/v1/predict", **body)
    ask("GET", "/healthz")
    ask("GET", "/Doe^Jane.dcm")
    totals = recorded.totals()
    requests = {key[1:]: count for key, count in totals.items() if key[0] == "boneage_serve_requests"}
    assert requests == {
        ("/v1/predict", "200"): 2,
        ("/v1/predict", "422"): 1,
        ("/healthz", "200"): 1,
        ("other", "404"): 1,
    }
    images = {key[1:]: count for key, count in totals.items() if key[0] == "boneage_serve_images"}
    assert images == {("fake", "scored", "none"): 2, ("fake", "failed", "truncated"): 2}
    timed = [route for name, _, *labels in recorded if name == "boneage_serve_request_seconds" for route in labels]
    assert timed == ["/v1/predict", "/v1/predict", "/v1/predict", "/healthz", "other"]
    queue = [value for name, value, *_ in recorded if name == "boneage_serve_open_requests"]
    assert queue == [1, 0] * 3


@pytest.mark.parametrize(("error", "status"), [(UnavailableError(), "503"), (ZeroDivisionError(), "500")])
def test_an_error_is_counted_as_what_the_client_sees(ask, recorded, error, status):
    assert str(ask("POST", "/v1/predict", models=[FakeModel(error=error)], content=b"1").status_code) == status
    assert recorded.totals()["boneage_serve_requests", "/v1/predict", status] == 1


def test_a_client_that_leaves_is_no_error_of_ours(model, recorded):
    app = create_app([served(model)], WebConfig())

    async def leave():
        model.gate = asyncio.Event()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            asked = asyncio.create_task(client.post("/v1/predict", content=b"1"))
            while not model.seen:
                await asyncio.sleep(0)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked

    asyncio.run(leave())
    assert recorded.totals()["boneage_serve_requests", "/v1/predict", "499"] == 1
    assert recorded[-1][:2] != ("boneage_serve_open_requests", 1)


def test_every_route_of_the_app_is_one_that_is_counted(model):
    # Files of pages are counted as `other`.
    paths = {route.path for route in create_app([served(model)], WebConfig()).routes}
    assert paths - {"/static"} == set(ROUTES)
