"""cluster/serve.yaml: no key that Serve would pass over, the same in the RayService, and deployed to a real Ray."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from processes import kill_tree
from pydantic import BaseModel
from ray._common.utils import import_attr
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.schema import ServeDeploySchema

from boneage_ray.errors import UsageError
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.phantoms.png import encode_gray_png
from boneage_ray.serving.arguments import TOKENS, read_arguments

FILE = Path(__file__).parents[2] / "cluster" / "serve.yaml"
PATIENCE_S = 600


def config():
    return yaml.safe_load(FILE.read_text("utf-8"))


def unknown_keys(model, values, place=""):
    """Keys that the model has not, at any depth. Serve itself takes them and does nothing with them."""
    found = [f"{place}{key}" for key in values if key not in model.model_fields]
    for key in set(values) & set(model.model_fields):
        inner = _model_in(model.model_fields[key].annotation)
        items = values[key] if isinstance(values[key], list) else [values[key]]
        nested = [item for item in items if inner and isinstance(item, dict)]
        found += [name for item in nested for name in unknown_keys(inner, item, f"{place}{key}.")]
    return found


def _model_in(annotation):
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def test_serve_knows_every_key():
    ServeDeploySchema.model_validate(config())
    assert unknown_keys(ServeDeploySchema, config()) == []


def test_a_planted_key_that_serve_would_pass_over_is_found():
    values = config()
    values["http_options"]["prot"] = 8000
    values["applications"][0]["deployments"] = [{"name": "ingress", "max_ongoin_requests": 3}]
    ServeDeploySchema.model_validate(values)
    found = {"http_options.prot", "applications.deployments.max_ongoin_requests"}
    assert set(unknown_keys(ServeDeploySchema, values)) == found


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "dev"])
def test_the_ray_service_deploys_the_same_application(overlay, manifests):
    (service,) = [d for d in manifests(overlay) if d["kind"] == "RayService"]
    served = yaml.safe_load(service["spec"]["serveConfigV2"])
    assert unknown_keys(ServeDeploySchema, served) == []
    expected = config()
    if overlay == "gpu":
        expected["applications"][0]["args"] |= {"cpus_per_model": 4, "gpus_per_model": 1}
    assert served == expected


def test_its_arguments_are_taken_and_a_typo_in_them_is_not(monkeypatch):
    monkeypatch.setenv(TOKENS, "secret")
    args = config()["applications"][0]["args"]
    assert read_arguments(args).models == ["s3://bucket/model"]
    builder = import_attr(config()["applications"][0]["import_path"])
    with pytest.raises(UsageError, match="unknown key replica; nearest known: replicas"):
        call_user_app_builder_with_args_if_necessary(builder, {**args, "replica": 2})  # as Serve calls it


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def wait_for(ask, what):
    """The first answer that is not None; connection errors count as not yet."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if (found := ask()) is not None:
                return found
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"not within {PATIENCE_S} s: {what}")


@contextmanager
def ray_head(environment):
    """The dashboard's URL of a Ray of its own, in a process group of its own; other Rays of the machine are left alone."""
    folder = tempfile.mkdtemp(prefix="ray-serve-", dir="/tmp")  # sockets lie in it: its path must be short
    gcs, board, agent, agent_http, client = free_ports(5)
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        *(f"--temp-dir={folder}", "--num-cpus=4", "--object-store-memory=200000000", "--node-ip-address=127.0.0.1"),
        *(f"--port={gcs}", f"--dashboard-port={board}", f"--dashboard-agent-grpc-port={agent}"),
        *(f"--dashboard-agent-listen-port={agent_http}", f"--ray-client-server-port={client}"),
    ]
    with open(f"{folder}.log", "wb") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{board}"
        wait_for(lambda: httpx.get(f"{url}/api/serve/applications/").is_success or None, "the dashboard answers")
        yield url
    finally:
        kill_tree(head)
        shutil.rmtree(folder, ignore_errors=True)
        Path(f"{folder}.log").unlink()


def serve(url, environment, *words):
    command = [sys.executable, "-m", "ray.serve.scripts", *words, "--address", url]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.ray
@pytest.mark.slow
def test_serve_deploy_answers_a_radiograph(tiny_model, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", TOKENS: "correct-horse"}
    (port,) = free_ports(1)
    values = config()
    values["http_options"] = {"host": "127.0.0.1", "port": port}
    values["applications"][0]["args"] = {"models": [tiny_model], "replicas": 2, "cpus_per_model": 0.5}
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(values))
    with ray_head(environment) as url:
        told = serve(url, environment, "deploy", str(path))
        assert told.returncode == 0, told.stderr

        def ended():
            found = httpx.get(f"{url}/api/serve/applications/").json()["applications"].get("boneage", {})
            return found if found.get("status") in ("RUNNING", "DEPLOY_FAILED") else None

        state = wait_for(ended, "the application runs or is given up")
        assert state["status"] == "RUNNING", state["message"]
        assert len(state["deployments"]["model-1"]["replicas"]) == 2
        place, body = f"http://127.0.0.1:{port}/v1/predict?sex=F", encode_gray_png(hand_phantom(7, 120, "F", 128).image)
        assert httpx.post(place, content=body, timeout=60).status_code == 401
        answer = httpx.post(place, content=body, headers={"Authorization": "Bearer correct-horse"}, timeout=60)
        row = answer.json()
        assert (answer.status_code, row["status"], row["sex"], row["model"]) == (200, "scored", "F", "demo")
        assert 0 < row["age_months"] < 240
