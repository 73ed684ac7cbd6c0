"""The five entrypoints of jobs/, submitted to a real Ray through its Jobs API; and job specs that are wrong."""

from __future__ import annotations

import json
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
from types import SimpleNamespace

import httpx
import pytest
import yaml
from pipelines.steps import run
from processes import kill_tree

from boneage_ray import bundle, storage
from boneage_ray.commands import job_cluster, jobs
from boneage_ray.commands import submit as command
from boneage_ray.errors import BoneageError, ExitCode, MismatchError, UsageError
from boneage_ray.phantoms.archive import HAND_FOLDER, write_hand_archive
from boneage_ray.scoring.score import results

# Beside the tests that share a Ray: the two that need one start their own.
pytestmark = pytest.mark.xdist_group("ray-of-its-own")
JOBS = Path(__file__).resolve().parents[2] / "jobs"
NAMES = ("prepare", "train", "evaluate", "calibrate", "score", "serve")
PATIENCE_S = 400
FOLDERS: dict[str, Path] = {}  # of each head's dashboard: its logs and sockets


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
    FOLDERS[url] = Path(folder)
    try:
        wait_until(lambda: httpx.get(f"{url}/api/jobs/").status_code == 200, "the dashboard answers")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_AUTH_MODE", "disabled")
            yield url
    finally:
        kill_tree(head)
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
        return run(command.submit, command.SubmitArguments(path, dashboard, follow)).answer

    return hand_in


@pytest.mark.ray
@pytest.mark.slow
def test_the_five_entrypoints_do_the_whole_way_as_jobs(submit, places, dashboard):
    hands, data, model = places["hands"], places["data"], places["model"]
    client = job_cluster.jobs_client(dashboard)
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


PROBE = """# boneage_ray.cli
import os, sys, ray
from pathlib import Path
from boneage_ray.runtime.passed import take_passed
take_passed()
ray.init(log_to_driver=False, logging_level="ERROR")
secret = lambda: os.environ["PROBE_SECRET"]
ours = [secret(), *ray.get([ray.remote(num_cpus=0.1)(secret).remote() for _ in range(2)])]
print("processes that agree:", len(ours), len(set(ours)))
done = Path(sys.argv[sys.argv.index("--out") + 1] + ".done")
if not done.exists():
    done.touch()
    sys.exit(7)  # Ray shows the last lines of a job that failed to everyone who may list jobs
print("value:", ours[0])
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_is_continued_under_its_key_and_its_secrets_show_nowhere(dashboard, tmp_path, monkeypatch, capsys):
    secret, out = "s3cr3t-of-the-test", tmp_path / "out"
    (tmp_path / "probe.py").write_text(PROBE)
    path = tmp_path / "job.yaml"
    spec = {"entrypoint": f"{sys.executable} probe.py --out {out}", "runtime_env": {"working_dir": "."}}
    path.write_text(yaml.safe_dump(spec | {"pass_env": ["PROBE_SECRET"], "submission_id": "probe"}))
    monkeypatch.setenv("PROBE_SECRET", secret)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")  # Ray itself would prefer it to --address
    arguments = command.SubmitArguments(str(path), dashboard, follow=True)

    with pytest.raises(BoneageError, match="job probe failed") as caught:
        run(command.submit, arguments)
    assert caught.value.exit_code == 7
    first = capsys.readouterr().err
    assert "to upload: 2 file(s), " in first
    assert first.index("to upload") < first.index("submitted probe\n")
    assert "processes that agree: 3 1" in first

    assert run(command.submit, arguments).answer["submission_id"] == "probe-2"
    second = capsys.readouterr().err
    assert "submitted probe-2, attempt 2" in second
    assert "value: ***" in second
    again = run(command.submit, arguments).answer
    assert (again["submission_id"], again["status"]) == ("probe-2", "SUCCEEDED")
    assert "nothing was submitted" in capsys.readouterr().err
    path.write_text(path.read_text().replace("--out ", "--other --out "))
    with pytest.raises(MismatchError, match="submission_id probe was another job"):
        run(command.submit, arguments)

    kept = {file.name: file.read_text() for file in (tmp_path / "out.logs").iterdir()}
    assert set(kept) == {f"probe{n}.{kind}" for n in ("", "-2") for kind in ("log", "json")}
    assert "value: ***" in kept["probe-2.log"]
    assert json.loads(kept["probe.json"])["exit_code"] == 7
    assert [name for name, text in kept.items() if secret in text] == []
    listed = httpx.get(f"{dashboard}/api/jobs/").text
    assert secret not in listed
    assert "PROBE_SECRET" in listed
    # What the job itself prints stays in its own log on the head; what Ray writes of it holds no value.
    logs = [p for p in FOLDERS[dashboard].glob("session_*/logs/**/*") if p.is_file() and "job-driver" not in p.name]
    assert any(p.name == "runtime_env_agent.log" for p in logs)
    assert [p.name for p in logs if secret.encode() in p.read_bytes()] == []


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


SPECS = sorted(JOBS.rglob("*.yaml"))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: str(path.relative_to(JOBS)))
def test_every_spec_of_the_repository_is_valid_and_starts_its_entrypoint(path):
    name, home = path.stem, path.parent.name
    spec = jobs.read_job(str(path))
    assert spec.entrypoint.startswith(f"python {name}.py ")
    assert spec.env.working_dir == str(JOBS)
    assert spec.metadata == {"step": name}
    assert ("--gpu" in spec.entrypoint) == (home == "gpu")
    assert ("AWS_SECRET_ACCESS_KEY" in spec.pass_env) == (home == "s3")
    assert ("BONEAGE_API_TOKENS" in spec.pass_env) == (name == "serve")
    assert f"boneage submit {path.relative_to(JOBS.parent)} --address http://head:8265" in path.read_text()


def test_there_is_a_spec_for_every_step_and_home():
    homes = {home: sorted(p.stem for p in SPECS if p.parent.name == home) for home in ("jobs", "gpu", "s3")}
    assert homes == {"jobs": sorted(NAMES), "gpu": ["calibrate", "evaluate", "score", "train"], "s3": sorted(NAMES)}


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
        ("entrypoint: a\nruntime_env: {env_vars: {HF_TOKEN: hf_123}}", "HF_TOKEN looks like a secret, and Ray logs"),
        ("entrypoint: a\npass_env: [KEY=hf_123]", "KEY: give the name only"),
        ("entrypoint: a\nimage: b\nruntime_env: {working_dir: .}", "a job in an image takes no working_dir"),
        ("entrypoint: a\nruntime_env: {working_dir: nowhere}", "nowhere does not exist"),
        ("entrypoint: a\nsubmission_id: A/B", "submission_id = 'A/B'"),
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
    assert "hf_123" not in str(caught.value)


@pytest.mark.parametrize("address", ["head:8265", "ray://head:10001", "auto"])
def test_an_address_that_is_no_url_is_refused(address):
    with pytest.raises(UsageError, match="the URL of a Ray dashboard"):
        job_cluster.jobs_client(address)


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
            job_cluster.jobs_client(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert f"127.0.0.1:{server.server_port}" in str(caught.value)
    assert said in str(caught.value)


class Head(BaseHTTPRequestHandler):
    """As much of a head as answers the first questions; keeps what it was asked."""

    asked: list[str] = []  # noqa: RUF012  shared on purpose: a handler lives for one request

    def do_GET(self):
        self.asked.append(f"GET {self.path}")
        version = {"version": "5", "ray_version": "2.40.0", "ray_commit": "c", "session_name": "s"}
        data = {"rayVersion": "2.40.0", "pythonVersion": "3.9.1"}
        text = json.dumps(version if self.path == "/api/version" else {"data": data}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text)

    def do_POST(self):
        self.asked.append(f"{self.command} {self.path}")
        self.send_error(500)

    do_PUT = do_POST

    def log_message(self, *_):
        pass


def test_a_cluster_of_other_versions_is_refused_before_anything_is_uploaded(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("entrypoint: boneage doctor\nruntime_env: {working_dir: .}\n")
    with HTTPServer(("127.0.0.1", 0), Head) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(UsageError, match=r"runs Ray 2.40.0 on Python 3.9.1, here is Ray .*nothing was uploaded"):
            run(command.submit, command.SubmitArguments(str(path), address))
        server.shutdown()
    assert {line.split()[0] for line in Head.asked} == {"GET"}


def test_a_missing_secret_is_named_before_the_cluster_is_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("PROBE_SECRET", raising=False)
    path = tmp_path / "job.yaml"
    path.write_text("entrypoint: boneage doctor\n")
    arguments = command.SubmitArguments(str(path), "http://127.0.0.1:9", pass_env=("PROBE_SECRET", "HOME"))
    with pytest.raises(UsageError, match="pass_env: PROBE_SECRET not set here"):
        run(command.submit, arguments)


def test_an_address_that_swallows_requests_is_given_up_within_seconds(monkeypatch):
    monkeypatch.setattr(job_cluster, "_ANSWER_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        with pytest.raises(UsageError, match=r"no Ray dashboard answers there .*timed out"):
            job_cluster.jobs_client(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("code", "state", "last", "exits", "said"),
    [
        (6, "FAILED", "missed", 6, "job j failed: missed"),
        (-9, "FAILED", "", 137, "job j failed: died"),
        (None, "STOPPED", "", 130, "job j stopped: died"),
        (1, "FAILED", "/usr/bin/python: No module named boneage_ray", 1, "machines or image have no boneage-ray"),
        (127, "FAILED", "/bin/sh: 1: boneage: not found", 127, "machines or image have no boneage-ray"),
    ],
)
def test_a_job_that_ended_badly_ends_the_command_alike(code, state, last, exits, said):
    error = job_cluster.failure_of("j", state, last, SimpleNamespace(driver_exit_code=code, message="died"))
    assert (int(error.exit_code), said in str(error)) == (exits, True)


def test_a_dry_run_prints_the_request_without_asking_anybody_or_showing_a_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("PROBE_SECRET", "hf_123456")
    (tmp_path / "big.bin").write_bytes(b"0" * 3 * 2**20)
    (tmp_path / "skipped.bin").write_bytes(b"0" * 2**20)
    path = tmp_path / "job.yaml"
    path.write_text(
        "entrypoint: boneage score s3://a --model m --out s3://o\npass_env: [PROBE_SECRET]\n"
        "runtime_env: {working_dir: ., excludes: [skipped.bin]}\n"
    )
    printed = yaml.safe_load(run(command.submit, command.SubmitArguments(str(path), dry_run=True)).text)
    assert printed["upload"] == "2 file(s), 3.0 MB"
    assert printed["pass_env"] == {"PROBE_SECRET": "***"}
    assert printed["entrypoint"].startswith("boneage score s3://a")
    assert "hf_123456" not in str(printed)


def test_a_cluster_that_does_not_answer_is_named():
    (port,) = free_ports(1)
    with pytest.raises(UsageError, match=f"http://127.0.0.1:{port}: no Ray dashboard answers"):
        job_cluster.jobs_client(f"http://127.0.0.1:{port}")


class Forgetful:
    """A client whose connection breaks, and comes back or not."""

    def __init__(self, answers):
        self.answers = iter(answers)

    async def tail_job_logs(self, job_id):
        yield "one line\n"
        raise RuntimeError("connection lost")

    def get_job_status(self, job_id):
        raise AssertionError("the log came first")

    def list_jobs(self):
        return next(self.answers)


def test_a_cluster_that_stays_silent_is_no_longer_followed_and_the_job_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(job_cluster, "_SILENT_S", 0.2)
    monkeypatch.setattr(job_cluster, "_STATE_POLL_S", 0.05)
    with pytest.raises(BoneageError, match=r"has not answered for 0 s .*the job j goes on"):
        job_cluster.follow(Forgetful([]), "j")
    assert "the log is interrupted (connection lost); trying again" in capsys.readouterr().err


def test_attempts_are_told_by_their_key_and_numbered_after_the_last():
    def job(name, key, state="FAILED"):
        metadata = {job_cluster.KEY: key} if key else None
        return SimpleNamespace(
            submission_id=name, metadata=metadata, status=SimpleNamespace(value=state), entrypoint="e"
        )

    jobs_there = [job("scores-2026", None), job("scores-2", "scores"), job("scores-x", "scores"), job("a", "a")]
    found = job_cluster.attempts(Forgetful([jobs_there]), "scores")
    assert [(each.number, each.job_id) for each in found] == [(2, "scores-2")]


def test_parts_of_a_passed_value_are_hidden_too():
    spec = jobs.JobSpec(entrypoint="boneage doctor")
    values = {"TOKENS": "ward-token-1,ward-token-2", "KEY": "-----BEGIN\nMIIsecretbody\n-----END"}
    order = command.Order(spec, None, values)
    assert order.clean("bearer ward-token-1 and MIIsecretbody, short") == "bearer *** and ***, short"
