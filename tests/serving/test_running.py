"""A running service whose models are changed under steady requests, on the Ray of all tests."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest
import ray

from boneage_ray import bundle
from boneage_ray.errors import BoneageError, ExitCode, UsageError
from boneage_ray.serving import running
from boneage_ray.serving.placement import Placement, inspect_models

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def other_model(make_bundle, tmp_path_factory):
    """The model of the next version, of the same recipe."""
    return make_bundle(tmp_path_factory.mktemp("next") / "model", seed=5)


def hash_of(model):
    return bundle.read_manifest(model)[1]


@contextmanager
def steady_requests(service, body, *queries):
    """Requests one after the other from a thread for each query, until the block ends: a count of (query, status, hash)."""
    seen, ended = Counter(), threading.Event()

    def ask(query):
        while not ended.is_set():
            try:
                answer = service.post(f"/v1/predict?{query}", content=body, headers=PNG)
                seen[query, answer.status_code, answer.json().get("model_sha256") or answer.text] += 1
            except httpx.TransportError as error:
                seen[query, 0, repr(error)] += 1
            ended.wait(0.2)

    threads = [threading.Thread(target=ask, args=(query,)) for query in queries]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def boneage(*words):
    """A command that joins this process's Ray."""
    joined = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    command = [sys.executable, "-m", "boneage_ray", *words]
    return subprocess.run(command, env=os.environ | joined, capture_output=True, text=True, check=False, timeout=300)


def test_models_are_changed_without_a_failed_request_and_each_answer_names_its_own(
    service, hands, tiny_model, tiny_ensemble, other_model
):
    body = hands[1]["good"].read_bytes()
    before, after = hash_of(tiny_model), hash_of(other_model)
    both = inspect_models([tiny_ensemble])[0].info.model_sha256
    with steady_requests(service, body, "sex=F", "sex=F&model=demo", "sex=F&model=both") as seen:
        done = boneage("serve", "--update", "--model", other_model, "--model", tiny_ensemble)
        assert done.returncode == ExitCode.OK, done.stderr
        assert done.stdout.splitlines() == [f"demo  serving {after}", f"both  serving {both}"]
        listed = service.get("/v1/models").json()["models"]
        assert [model["model_sha256"] for model in listed] == [after, both]
        running.update([tiny_model, tiny_ensemble])
    unnamed, named = ("sex=F", 200), ("sex=F&model=demo", 200)
    assert set(seen) == {
        *((*unnamed, before), (*unnamed, after), (*named, before), (*named, after)),
        ("sex=F&model=both", 200, both),
    }


def test_of_models_that_never_get_ready_nothing_is_noticed_by_requests(
    service, hands, tiny_model, tiny_ensemble, other_model, monkeypatch
):
    def changed_since(models, coverage):
        """The bundle passes here, and is another one where the replica loads it."""
        (place,) = inspect_models([other_model], coverage)
        return [replace(place, info=place.info.model_copy(update={"model_sha256": "f" * 64}))]

    with monkeypatch.context() as patch, steady_requests(service, hands[1]["good"].read_bytes(), "sex=F") as seen:
        patch.setattr(running, "inspect_models", changed_since)
        with pytest.raises(BoneageError, match="was replaced while it was in use"):
            running.update([other_model])
    assert set(seen) == {("sex=F", 200, hash_of(tiny_model))}
    listed = service.get("/v1/models").json()["models"]
    assert [model["name"] for model in listed] == ["demo", "both"]
    assert service.get("/readyz").status_code == 200
    assert running.running().arguments.models == [tiny_model, tiny_ensemble]


def test_what_an_update_cannot_do_is_refused_before_anything_changes(service, tiny_model, tmp_path, monkeypatch):
    refused = boneage("serve", "--update", "--model", tiny_model, "--port", "9000")
    assert (refused.returncode, refused.stderr.count("give --model only")) == (ExitCode.USAGE, 1)
    started = boneage("serve", "--model", tiny_model, "--port", "8999")
    assert (started.returncode, started.stderr.count("boneage serve --update")) == (ExitCode.USAGE, 1)
    with pytest.raises(UsageError, match="absent"):
        running.update([str(tmp_path / "absent")])
    built = replace(running.running(), placement=Placement(4.0, 0.0, 1))
    with monkeypatch.context() as patch:
        patch.setattr(running, "running", lambda: built)
        with pytest.raises(UsageError, match=r"needs 4 CPU more; the cluster has [\d.]+ free"):
            running.update([tiny_model])
        patch.setattr(running, "running", lambda: replace(built, placement=Placement(0.1, 1.0, 1)))
        with pytest.raises(UsageError, match="needs 1 GPU more; the cluster has 0 free"):
            running.update([tiny_model])
    (_, both) = service.get("/v1/models").json()["models"]
    assert both["name"] == "both"
