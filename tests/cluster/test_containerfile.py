"""cluster/Containerfile: clean by hadolint, pinned, non-root; its versions satisfy the package; its health check answers."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from programs import tool

ROOT = Path(__file__).parents[2]
FILE = ROOT / "cluster" / "Containerfile"
TEXT = FILE.read_text("utf-8")


def lint(path):
    return subprocess.run([tool("hadolint"), "--no-color", str(path)], capture_output=True, text=True, check=False)


def test_hadolint_finds_nothing():
    told = lint(FILE)
    assert (told.returncode, told.stdout) == (0, "")


def test_hadolint_would_find_a_planted_fault(tmp_path):
    bad = tmp_path / "Containerfile"
    bad.write_text(TEXT + "RUN sudo boneage --version\n")
    assert "DL3004" in lint(bad).stdout


def stages():
    """Name -> the instructions of each stage, one line each."""
    joined = re.sub(r"\\\n\s*", "", TEXT)
    found = {}
    for line in joined.splitlines():
        if start := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            found[start[2]] = [line]
        elif found and line and not line.startswith("#"):
            found[list(found)[-1]].append(line)
    return found


def test_both_images_are_non_root_and_take_nothing_but_the_environment_from_stages_that_build():
    found = stages()
    for name in ("cpu", "gpu"):
        lines = found[name]
        assert lines[0] == f"FROM runtime AS {name}"
        assert f"COPY --from={name}-environment /opt/boneage /opt/boneage" in lines
        assert "USER 1000:1000" in lines
        assert not any(line.startswith("USER") for line in lines[lines.index("USER 1000:1000") + 1 :])
    assert any(line.startswith("HEALTHCHECK") for line in found["runtime"])
    assert not re.search(r"apt-get|build-essential", TEXT)


def test_the_base_is_pinned_to_a_patch_release_of_a_python_that_the_package_supports():
    (image,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", TEXT, re.M)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+", image)
    bases = {line.split()[1] for lines in stages().values() for line in lines if line.startswith("FROM")}
    assert bases == {"${PYTHON_IMAGE}", "environment", "runtime"}


def test_the_images_versions_satisfy_the_package():
    lines = (ROOT / "cluster" / "constraints.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    wanted = [
        Requirement(text) for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    ]
    missing = [str(r) for r in wanted if r.name not in pinned or not r.specifier.contains(pinned[r.name])]
    assert missing == [], "give cluster/constraints.txt the version that the tests run with"


@pytest.fixture
def answering():
    """answering(status) starts a server that answers with it; returns its port."""
    servers = []

    def start(status):
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status if self.path == "/healthz" else 404)
                self.end_headers()

            def log_message(self, *_):
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Answer))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1].server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_health_check_tells_a_service_that_answers_from_one_that_does_not(answering):
    healthy = runpy.run_path(str(ROOT / "cluster" / "healthcheck.py"))["healthy"]
    good, bad = (f"http://127.0.0.1:{answering(status)}/healthz" for status in (200, 503))
    nobody = "http://127.0.0.1:9/healthz"
    assert [healthy([good]), healthy([bad]), healthy([nobody]), healthy([nobody, good])] == [True, False, False, True]


def test_the_health_check_asks_the_port_that_the_environment_names(answering):
    command = [sys.executable, str(ROOT / "cluster" / "healthcheck.py")]
    environment = {"BONEAGE_PORT": str(answering(200))}
    assert subprocess.run(command, env=environment, check=False).returncode == 0
