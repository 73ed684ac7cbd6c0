"""A tiny bundle, one phantom archive and one real Ray Serve for all serving tests."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess

import httpx
import pytest
import torch
from fake_model import FakeModel, served

from boneage_ray import bundle
from boneage_ray.models.regressor import Regressor
from boneage_ray.phantoms.archive import HAND_FOLDER, write_hand_archive
from boneage_ray.prediction import members
from boneage_ray.recipes import find_recipe
from boneage_ray.serving.arguments import TOKENS, ServiceArguments
from boneage_ray.serving.backend import Served
from boneage_ray.serving.placement import inspect_models
from boneage_ray.serving.tls import TlsFiles
from boneage_ray.serving.web import WebConfig, create_app

TOKEN = "correct-horse"


@pytest.fixture(scope="session")
def hands(tmp_path_factory):
    """Six good hands and the planted faults: (folder, kind -> path of the first file of that kind)."""
    folder = tmp_path_factory.mktemp("hands")
    entries = write_hand_archive(str(folder), 6, 3, 128, bad=True)
    files = folder / HAND_FOLDER
    by_kind = {entry.kind: files / f"{entry.id}.png" for entry in reversed(entries) if entry.stored}
    return files, by_kind


@pytest.fixture(scope="session")
def make_bundle():
    """make_bundle(path, seed, **changes) saves a bundle of the changed demo recipe; its random heads tell every image apart."""
    return _make_bundle


@pytest.fixture(scope="session")
def tiny_model(make_bundle, tmp_path_factory):
    """The bundle that is served."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "model", seed=1)


def _make_bundle(path, seed, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        recipe = find_recipe("demo").derive(**changes)
        model = Regressor(recipe.model, with_weights=False)
        for name, parameter in model.named_parameters():
            if not name.startswith("backbone."):
                torch.nn.init.normal_(parameter, std=0.1)
    bundle.save(str(path), recipe, model.state_dict(), {"val_mae_months": 12.5, "history": [{"epoch": 1}]})
    return str(path)


@pytest.fixture(scope="session")
def tiny_ensemble(make_bundle, tiny_model, tmp_path_factory):
    """An ensemble bundle of that model and one that wants smaller images."""
    root = tmp_path_factory.mktemp("ensemble")
    other = make_bundle(root / "other", seed=2, image={"size": 64})
    out = str(root / "both")
    folders = members.copy_members(members.resolve([tiny_model, other]), out)
    members.save_ensemble(out, "both", "two that are served as one", folders)
    return out


@pytest.fixture(scope="session")
def tls(tmp_path_factory):
    """A new certificate of 127.0.0.1 that signs itself."""
    folder = tmp_path_factory.mktemp("tls")
    files = TlsFiles(str(folder / "cert.pem"), str(folder / "key.pem"))
    wanted = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=boneage", "-days", "2"]
    named = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", files.key, "-out", files.certificate]
    subprocess.run(["openssl", "req", "-x509", *wanted, *named], check=True, capture_output=True)
    return files


@pytest.fixture(scope="session")
def service(local_ray, tiny_model, tiny_ensemble, tls):
    """A running service over TLS with a model, an ensemble and a token; an HTTP client that is allowed in."""
    import ray

    from boneage_ray.serving.app import built_for, deployed
    from boneage_ray.serving.running import serve_at, start

    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKENS, TOKEN)
        arguments = ServiceArguments(models=[tiny_model, tiny_ensemble], max_upload_mb=1)
        built = built_for(arguments, inspect_models(arguments.models), ray.cluster_resources())
    trusted = ssl.create_default_context(cafile=tls.certificate)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with serve_at("127.0.0.1", port, tls):
        start(deployed(built))
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", headers=headers, timeout=60, verify=trusted) as client:
            yield client


def free_port():
    """A port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def model():
    return FakeModel()


@pytest.fixture
def ask(model):
    """ask(method, path, config=..., models=..., **request) -> response."""

    def send(method, path, config=None, models=None, **request):
        app = create_app([m if isinstance(m, Served) else served(m) for m in models or [model]], config or WebConfig())

        async def once():
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **request)

        return asyncio.run(once())

    return send
