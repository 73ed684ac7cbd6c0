"""The five entrypoints of jobs/, submitted to a real Ray through its Jobs API; and job specs that are wrong."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
import yaml
from pipelines.steps import run

from boneage_ray import bundle, storage
from boneage_ray.commands import jobs, service
from boneage_ray.errors import BoneageError, ExitCode, UsageError
from boneage_ray.phantoms.archive import HAND_FOLDER, write_hand_archive
from boneage_ray.scoring.score import results

# Beside the tests that share a Ray: the two that need one start their own.
pytestmark = pytest.mark.xdist_group("ray-of-its-own")
JOBS = Path(__file__).resolve().parents[2] / "jobs"
NAMES = ("prepare", "train", "evaluate", "score", "serve")
PATIENCE_S = 90


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def wait_until(holds, what):
    """Wait until a condition holds; connection errors count as false."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"not within {PATIENCE_S} s: {what}")


@pytest.fixture(scope="module")
def dashboard():
    """The URL of a Ray head of its own, with four logical CPUs; it ends with the tests."""
    # Sockets lie in it, and their paths must be short.
    folder = tempfile.mkdtemp(prefix="ray-jobs-", dir="/tmp")
    gcs, board, agent, agent_http, client = free_ports(5)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        *(f"--temp-dir={folder}", "--num-cpus=4", "--object-store-memory=300000000", "--node-ip-address=127.0.0.1"),
        *(f"--port={gcs}", f"--dashboard-port={board}", f"--dashboard-agent-grpc-port={agent}"),
        *(f"--dashboard-agent-listen-port={agent_http}", f"--ray-client-server-port={client}"),
    ]
    with open(f"{folder}.log", "wb") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{board}"
    try:
        wait_until(lambda: httpx.get(f"{url}/api/jobs/").status_code == 200, "the dashboard answers")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_AUTH_MODE", "disabled")
            yield url
    finally:
        head.terminate()
        head.wait(60)
        shutil.rmtree(folder, ignore_errors=True)
        Path(f"{folder}.log").unlink()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Forty synthetic hands of 96 px and the places of what is made of them."""
    root = tmp_path_factory.mktemp("jobs")
    write_hand_archive(str(root / "hands"), 40, seed=9, size=96)
    return {name: str(root / name) for name in ("hands", "data", "model", "evaluation", "scores", "specs")}


@pytest.fixture(scope="module")
def submit(dashboard, places):
    """submit(name, flags, follow) submits the entrypoint jobs/NAME.py by a spec; returns the command's answer."""

    def hand_in(name, flags, follow=True):
        spec = {
            "entrypoint": f"{sys.executable} {name}.py {flags}",
            "runtime_env": {"working_dir": str(JOBS)},
            "metadata": {"step": name},
            "entrypoint_num_cpus": 0.1,
        }
        path = f"{places['specs']}/{name}.yaml"
        storage.write_text(path, yaml.safe_dump(spec))
        return run(service.submit, service.SubmitArguments(path, dashboard, follow)).answer

    return hand_in


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_five_entrypoints_do_the_whole_way_as_jobs(submit, places, dashboard):
    hands, data, model = places["hands"], places["data"], places["model"]
    client = jobs.jobs_client(dashboard)
    done = [
        submit(
            "prepare", f"{hands}/{HAND_FOLDER} --labels {hands}/boneage-training-dataset.csv --recipe demo --out {data}"
        ),
        submit("train", f"--recipe demo --data {data} --out {model} --set stage.epochs=1"),
        submit("evaluate", f"--model {model} --data {data} --split test --out {places['evaluation']}"),
        submit("score", f"{hands}/{HAND_FOLDER} --model {model} --out {places['scores']} --sex F"),
    ]
    assert [answer["status"] for answer in done] == ["SUCCEEDED"] * 4
    assert sum(storage.read_json(f"{data}/manifest.json")["counts"][s] for s in ("train", "val", "test")) == 40
    assert len(bundle.load(model).metrics["history"]) == 1
    assert storage.read_json(f"{places['evaluation']}/metrics.json")["n"] > 0
    rows = {row["input_uri"]: row for table in results(places["scores"]) for row in table.to_pylist()}
    assert len(rows) == 40

    (port,) = free_ports(1)
    served = submit("serve", f"--model {model} --port {port}", follow=False)
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200, "the service is ready")
    first = min(rows)
    answer = httpx.post(f"{url}/v1/predict?sex=F", content=Path(first.removeprefix("file://")).read_bytes(), timeout=60)
    assert (answer.json()["age_months"], answer.json()["model_sha256"]) == (
        rows[first]["age_months"],
        rows[first]["model_sha256"],
    )
    client.stop_job(served["submission_id"])
    wait_until(lambda: client.get_job_status(served["submission_id"]).is_terminal(), "the job has ended")
    wait_until(lambda: not listens(port), "nobody listens any more")


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_that_fails_ends_the_follower_with_its_own_code_and_last_line(submit, places, capsys):
    with pytest.raises(BoneageError, match="holds no model bundle") as caught:
        submit("score", f"{places['hands']} --model {places['hands']} --out {places['specs']}/none")
    assert caught.value.exit_code == ExitCode.USAGE
    assert "submitted raysubmit_" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_every_entrypoint_has_the_flags_of_its_command(name):
    shown = [
        subprocess.run([sys.executable, *command, "--help"], capture_output=True, text=True, check=True).stdout
        for command in ([str(JOBS / f"{name}.py")], ["-c", "from boneage_ray.cli import main; main()", name])
    ]
    assert "--model" in shown[0] or "--recipe" in shown[0]
    assert options(shown[0]) == options(shown[1])


def options(text):
    return [line.split()[0] for line in text.splitlines() if line.strip().startswith("--")]


@pytest.mark.parametrize("name", NAMES)
def test_every_spec_of_the_repository_is_valid_and_starts_its_entrypoint(name):
    spec = jobs.read_job(str(JOBS / f"{name}.yaml"))
    assert spec.entrypoint.startswith(f"python {name}.py ")
    assert spec.runtime_env is not None
    assert spec.runtime_env.working_dir == str(JOBS)
    assert spec.metadata == {"step": name}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "entrypoint: a\nentry_point_num_cpus: 1",
            "unknown key entry_point_num_cpus; nearest known: entrypoint_num_cpus",
        ),
        (
            "entrypoint: a\nruntime_env: {workingdir: .}",
            "unknown key runtime_env.workingdir; nearest known: working_dir",
        ),
        ("entrypoint: a\nzzz: 1", "unknown key zzz; known: entrypoint, runtime_env"),
        ("metadata: {a: b}", "entrypoint is missing"),
        ("entrypoint: a\nentrypoint_num_cpus: many", "entrypoint_num_cpus = 'many'"),
        ("entrypoint: a\nentrypoint_num_cpus: -1", "entrypoint_num_cpus = -1"),
        ("just a line", "holds no job spec"),
        ("a: [", "is not YAML"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_a_wrong_spec_is_refused_by_name(tmp_path, text, said):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        jobs.read_job(str(path))
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("address", ["head:8265", "ray://head:10001", "auto"])
def test_an_address_that_is_no_url_is_refused(address):
    with pytest.raises(UsageError, match="the URL of a Ray dashboard"):
        jobs.jobs_client(address)


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "wants a token: set RAY_AUTH_MODE=token"), (404, "404"), (500, "500"), (200, "Expecting value")],
)
def test_a_server_that_refuses_or_is_no_dashboard_is_named(status, said):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UsageError) as caught:
            jobs.jobs_client(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert f"127.0.0.1:{server.server_port}" in str(caught.value)
    assert said in str(caught.value)


def test_a_cluster_that_does_not_answer_is_named():
    (port,) = free_ports(1)
    with pytest.raises(UsageError, match=f"http://127.0.0.1:{port}: no Ray dashboard answers"):
        jobs.jobs_client(f"http://127.0.0.1:{port}")
