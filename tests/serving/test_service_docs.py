"""The examples of docs/service.md, as they stand there, against the app on a real socket."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from browser import serve_app
from fake_model import FakeModel, served

from boneage_ray.serving.web import WebConfig, create_app

TEXT = (Path(__file__).parents[2] / "docs" / "service.md").read_text("utf-8")


@pytest.fixture
def run(tmp_path):
    """run(command, text) -> stdout of a program in a folder with the files of the examples, which reads the text from stdin."""
    for name, data in (("hand.png", b"12345"), ("one.png", b"1"), ("two.dcm", b"22"), ("1377.png", b"333")):
        (tmp_path / name).write_bytes(data)
    app = create_app([served(FakeModel())], WebConfig(allowed_uris=(f"{tmp_path}/",)))
    with serve_app(app) as address:

        def work(command, text):
            text = text.replace("http://127.0.0.1:8000", address).replace("s3://hospital/hands", str(tmp_path))
            paths = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
            done = subprocess.run(
                command, input=text, cwd=tmp_path, env=paths, capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        yield work


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", TEXT, re.M | re.S)


def program(name):
    if found := shutil.which(name):
        return found
    return (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed")


def test_the_python_of_the_page_prints_an_age_and_a_code(run):
    (block,) = blocks("python")
    assert run([sys.executable, "-"], block) == "5.0 []\nempty_body\n"


def test_the_javascript_of_the_page_prints_an_age(run):
    (block,) = blocks("javascript")
    assert run([program("node"), "--input-type=module", "-"], block) == "5\n"


def test_every_curl_of_the_page_gets_rows(run):
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("curl")]
    sent, table, by_uri = [run(["bash", "-e"], f"{program('curl')} -sS{line.removeprefix('curl')}") for line in lines]
    assert json.loads(sent)["age_months"] == 5.0
    assert [line.split(",")[0] for line in table.lstrip("\ufeff").splitlines()] == ["input", "one.png", "two.dcm"]
    assert json.loads(by_uri)["age_months"] == 3.0
