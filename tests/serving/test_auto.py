"""`model=auto`: the row of the served model that an image fits, as `boneage score --route` chooses it."""

from __future__ import annotations

import asyncio

import pytest
from fake_model import PNG, FakeModel, problem, served

from boneage_ray.archives.archive import Input
from boneage_ray.prediction.routing import routed
from boneage_ray.serving.backend import Served, automatic


class Picky(FakeModel):
    """Scores files that begin with its name; finds others out of distribution, unless they cannot be read."""

    async def predict(self, data, item):
        row = await super().predict(data, item)
        if row["status"] == "scored" and not data.startswith(self.name.encode()) and data != b"both":
            row |= {"status": "rejected", "step": "predict", "reason": "out_of_distribution", "age_months": None}
            row |= {"message": f"no {self.name}"}
        return row

    async def explain(self, data, item):
        return b"\x89PNG of " + self.name.encode()


def with_facts(model, task, sha256, members=1):
    facts = {"task": task, "model_sha256": sha256, "members": members}
    return Served(served(model).info.model_copy(update=facts), model)


@pytest.fixture
def models():
    return [with_facts(Picky("hand"), "age", "2" * 64), with_facts(Picky("head"), "cephalogram", "1" * 64)]


@pytest.mark.parametrize("data", [b"hand 1", b"head 1", b"both", b"none", b"bad"])
def test_the_row_is_that_of_the_route(models, data):
    (auto,) = automatic(models)
    rows = [asyncio.run(model.backend.predict(data, Input("x", "x"))) for model in reversed(models)]  # by hash
    assert asyncio.run(auto.backend.predict(data, Input("x", "x"))) == routed(rows)


def test_an_image_is_answered_by_the_model_that_it_fits(ask, models):
    post = {"models": models, "headers": PNG}
    assert ask("POST", "/v1/predict?model=auto", content=b"head 1", **post).json()["model"] == "head"
    assert ask("POST", "/v1/predict?model=auto&sex=F", content=b"hand 1", **post).json()["sex"] == "F"
    assert ask("POST", "/v1/explain?model=auto", content=b"head 1", **post).content == b"\x89PNG of head"
    assert problem(ask("POST", "/v1/predict?model=auto", content=b"none", **post)) == (422, "out_of_distribution")
    assert problem(ask("POST", "/v1/explain?model=auto", content=b"both", **post)) == (422, "out_of_distribution")
    assert problem(ask("POST", "/v1/predict?model=auto", content=b"bad", **post)) == (422, "truncated")
    assert [model["name"] for model in ask("GET", "/v1/models", models=models).json()["models"]] == ["hand", "head"]


def test_a_form_has_a_row_for_what_fits_none(ask, models):
    files = [("files", (f"{k}.png", data)) for k, data in enumerate((b"head 1", b"none", b"hand 1"))]
    rows = ask("POST", "/v1/predict?model=auto", models=models, files=files).json()["rows"]
    assert [row["model"] for row in rows] == ["head", None, "hand"]
    assert (rows[1]["reason"], rows[1]["model_sha256"]) == ("out_of_distribution", None)
    assert rows[1]["message"] == "head: no head; hand: no hand"
    report = ask("POST", "/v1/report", models=models, json=rows[1]).json()
    assert "Model none that the image fits, boneage-ray" in report["text"]


def test_an_ensemble_that_an_image_fits_has_no_picture(ask, models):
    models[1] = with_facts(Picky("head"), "cephalogram", "1" * 64, members=2)
    answer = ask("POST", "/v1/explain?model=auto", models=models, content=b"head 1", headers=PNG)
    assert problem(answer) == (422, "not_explainable")


def test_where_two_models_are_for_one_region_there_is_no_auto(ask, models):
    models[1] = with_facts(Picky("head"), "age", "1" * 64)
    answer = ask("POST", "/v1/predict?model=auto", models=models, content=b"hand", headers=PNG)
    assert problem(answer) == (422, "unknown_model")
    assert automatic(models[:1]) == []
