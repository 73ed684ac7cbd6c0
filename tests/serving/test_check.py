"""`boneage serve --check`: the answers of a started service against the rows of `score`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from s3server import free_port

from boneage_ray.client import ServiceError
from boneage_ray.commands import service_check as check
from boneage_ray.errors import ExitCode
from boneage_ray.prediction.members import resolve
from boneage_ray.prediction.runtimes import Compute
from boneage_ray.preparation.prepare import AS_THE_RECIPE_SAYS
from boneage_ray.serving.arguments import TOKENS
from boneage_ray.serving.placement import inspect_models


@pytest.fixture(scope="module")
def rows(tiny_model):
    """The rows of `score` for the demo images of the tiny model."""
    models = resolve([tiny_model])
    return check.rows_as_scored(models, check.demo_images(models), Compute(), AS_THE_RECIPE_SAYS)


@pytest.fixture
def compare(tiny_model, rows, monkeypatch):
    """compare(change) -> what is found where the service answers these rows, changed by `change(row)`."""

    def found(change):
        answers = [{**row} for row in rows]
        for row in answers:
            change(row)
        monkeypatch.setattr(check, "rows_as_scored", lambda *_: rows)
        monkeypatch.setattr(check, "_rows_of_service", lambda *_: answers)
        (place,) = inspect_models([tiny_model])
        return check.check_model(place, Compute(), AS_THE_RECIPE_SAYS, check.client_of_check("127.0.0.1", 1, ""))

    return found


def test_demo_images_are_of_the_models_kind_and_one_cannot_be_read(tiny_model, rows):
    images = check.demo_images(resolve([tiny_model]))
    assert [image.name for image in images] == [f"sample-{k}.png" for k in range(4)] + ["warm-up.png", "broken-off.png"]
    assert [image.sex for image in images] == ["M", "F", "M", "F", None, None]
    assert [row["input_uri"] for row in rows] == [image.name for image in images]
    assert {row["reason"] for row in rows} == {None, "truncated"}
    ages = [row["age_months"] for row in rows if row["status"] == "scored"]
    assert len(set(ages)) == 5


def test_equal_rows_agree(compare):
    found = compare(lambda row: None)
    assert found == check.Checked(images=6, scored=5, difference=0.0)
    assert found.agrees
    assert found.in_words() == "largest difference 0.00 (5 of 6 demo images scored)"


def test_the_largest_difference_counts_and_one_that_shows_is_a_mismatch(compare):
    def change(row):
        if row["status"] == "scored":
            row["age_months"] += 0.25 if row["input_uri"] == "sample-2.png" else 0.125

    found = compare(change)
    assert found.difference == pytest.approx(0.25)
    assert not found.agrees
    assert found.in_words().startswith("largest difference 0.25 ")
    assert compare(lambda row: row.update(flags=["inverted"])).unlike == ("flags",)
    assert not compare(lambda row: row.update(age_months=None)).agrees


def test_a_service_that_refuses_is_named_with_its_words(tiny_model):
    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(503)
            self.end_headers()
            problem = {"title": "Busy", "status": 503, "detail": "too many requests", "code": "overloaded"}
            self.wfile.write(json.dumps(problem).encode())

        def log_message(self, *_):
            pass

    (place,) = inspect_models([tiny_model])
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = check.client_of_check("127.0.0.1", server.server_port, "")
        with client, pytest.raises(ServiceError, match="503 overloaded: too many requests"):
            check.check_model(place, Compute(), AS_THE_RECIPE_SAYS, client)
        server.shutdown()


@pytest.mark.ray
@pytest.mark.xdist_group("serve-check")
def test_a_started_service_answers_as_score_does_and_is_stopped(tiny_model, tiny_ensemble):
    """In a process and a Ray of its own: Serve runs once in a cluster, and that of the other tests has one."""
    command = ["serve", "--model", tiny_model, "--model", tiny_ensemble, "--port", str(free_port()), "--check"]
    environment = os.environ | {"BONEAGE_CPUS": "2", TOKENS: "not asked for", "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-m", "boneage_ray", *command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == ExitCode.OK, done.stderr
    assert done.stdout.splitlines() == [
        "demo  largest difference 0.00 (5 of 6 demo images scored)",
        "both  largest difference 0.00 (5 of 6 demo images scored)",
    ]
    assert done.stderr.splitlines()[-1] == "stopping"
