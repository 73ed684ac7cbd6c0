"""The overlays as kustomize builds them, and the schemas that they must fit."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml
from crd_schema import strict
from programs import tool

CLUSTER = Path(__file__).parents[2] / "cluster"
KINDS = {"RayCluster": "rayclusters", "RayJob": "rayjobs", "RayService": "rayservices"}


@cache
def build(overlay):
    """The manifests of an overlay."""
    command = [tool("kubectl"), "kustomize", str(CLUSTER / "kuberay" / "overlays" / overlay)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert built.stderr == "", "kustomize warns of what it will drop"
    return list(yaml.safe_load_all(built.stdout))


@pytest.fixture
def manifests():
    """manifests(overlay) -> the documents that `kubectl apply -k` would send."""
    return build


@pytest.fixture(scope="session")
def ray_schemas(real_data):
    """Kind -> the strict schema of KubeRay's definition; skips where the definitions are absent."""
    folder = real_data / "kuberay-crds"
    if not folder.exists():
        pytest.skip(f"no KubeRay definitions at {folder}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    schemas = {}
    for kind, plural in KINDS.items():
        definition = yaml.load((folder / f"ray.io_{plural}.yaml").read_text("utf-8"), loader)
        (version,) = [v for v in definition["spec"]["versions"] if v["name"] == "v1"]
        schemas[kind] = strict(version["schema"]["openAPIV3Schema"])
    return schemas


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A bundle of the demo recipe that was never trained."""
    import torch

    from boneage_ray import bundle
    from boneage_ray.models.regressor import Regressor
    from boneage_ray.recipes import find_recipe

    place = str(tmp_path_factory.mktemp("bundle") / "model")
    recipe = find_recipe("demo")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Regressor(recipe.model, with_weights=False)
    bundle.save(place, recipe, model.state_dict(), {"val_mae_months": 12.5, "history": [{"epoch": 1}]})
    return place
