"""The examples of docs/service.md, as they stand there, against a real service."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TOKEN

PAGE = Path(__file__).parents[2] / "docs" / "service.md"
ADDRESS = "http://127.0.0.1:8000"
pytestmark = pytest.mark.ray


def example(language, holding):
    """The one block of this language that holds these words."""
    (found,) = [
        text for text in re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL) if holding in text
    ]
    return found


@pytest.fixture
def said(service, hands, tmp_path):
    """said(program, text, name) runs an example in a folder with hand.png; what it prints. And the row that HTTP gives."""
    hand = min(hands[0].glob("*.png"))
    shutil.copy(hand, tmp_path / "hand.png")
    row = service.post("/v1/predict?sex=F", content=hand.read_bytes()).json()

    def run(program, text, name):
        (tmp_path / name).write_text(text.replace(ADDRESS, str(service.base_url).rstrip("/")))
        environment = os.environ | {"BONEAGE_API_TOKEN": TOKEN}
        done = subprocess.run(
            [program, name], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run, row


def test_the_example_of_curl(said):
    run, row = said
    assert json.loads(run("bash", example("bash", "--data-binary"), "ask.sh")) == row


def test_the_example_of_python(said):
    run, row = said
    first, *rows = run(sys.executable, example("python", "Client("), "ask.py").splitlines()
    assert first == f"{row['age_months']} None None {row['flags']}"
    assert rows == [f"hand.png scored None {row['age_months']}"] * 2


@pytest.mark.skipif(not shutil.which("node") and not os.environ.get("CI"), reason="Node.js is not installed")
def test_the_example_of_javascript(said):
    run, row = said
    assert float(run("node", example("javascript", "fetch("), "ask.mjs")) == row["age_months"]
