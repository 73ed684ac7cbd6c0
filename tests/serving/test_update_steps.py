"""What an update of models does and refuses, step by step, on a fake of Ray Serve."""

from __future__ import annotations

from dataclasses import replace

import pytest

from boneage_ray import bundle
from boneage_ray.commands import service as command
from boneage_ray.errors import BoneageError, UsageError
from boneage_ray.serving import running
from boneage_ray.serving.app import Built
from boneage_ray.serving.arguments import ServiceArguments
from boneage_ray.serving.placement import Placement, inspect_models
from boneage_ray.serving.web import WebConfig


@pytest.fixture
def serve(tiny_model, monkeypatch):
    """A service of one model: what was `deployed` one after the other, its `built`, `free` resources, models that `fail`."""

    class Serve:
        built = Built(
            ServiceArguments(models=[tiny_model]), inspect_models([tiny_model]), Placement(0.25, 0, 1), WebConfig()
        )
        free, deployed, fail = {"CPU": 0.25}, [], ()

        def start(self, built, stopped=lambda: False):
            self.deployed.append([place.info.model_sha256 for place in built.places])
            if built.places[0].uri in self.fail:
                raise BoneageError("the service did not start: no such file")

    fake = Serve()
    fake.deployed = []
    monkeypatch.setattr(running, "running", lambda: fake.built)
    monkeypatch.setattr(running, "deployed", lambda built: built)
    monkeypatch.setattr(running, "start", fake.start)
    monkeypatch.setattr(running.ray, "available_resources", lambda: fake.free)
    monkeypatch.setattr(running.autoscaler, "is_there", lambda: False)
    return fake


@pytest.fixture
def other_model(make_bundle, tmp_path):
    return make_bundle(tmp_path / "next", seed=5)


def hash_of(model):
    return bundle.read_manifest(model)[1]


def test_the_new_models_are_deployed_and_named(serve, other_model):
    (place,) = running.update([other_model])
    assert (place.info.name, place.info.model_sha256) == ("demo", hash_of(other_model))
    assert serve.deployed == [[hash_of(other_model)]]


def test_of_models_that_do_not_start_the_ones_before_are_deployed_again(serve, tiny_model, other_model):
    serve.fail = (other_model,)
    with pytest.raises(BoneageError, match="did not start: no such file"):
        running.update([other_model])
    assert serve.deployed == [[hash_of(other_model)], [hash_of(tiny_model)]]


def test_an_interrupted_update_goes_back_too(serve, tiny_model, other_model):
    with pytest.raises(KeyboardInterrupt):
        running.update([other_model], lambda: True)
    assert serve.deployed[-1] == [hash_of(tiny_model)]


@pytest.mark.parametrize(
    ("placement", "missing"),
    [
        (Placement(0.5, 0.0, 1), "needs 0.5 CPU more; the cluster has 0.25 free"),
        (Placement(0.1, 1.0, 1), "needs 1 GPU more; the cluster has 0 free"),
    ],
)
def test_without_room_for_a_second_replica_nothing_is_deployed(serve, other_model, placement, missing):
    serve.built = replace(serve.built, placement=placement)
    with pytest.raises(UsageError, match=missing):
        running.update([other_model])
    assert serve.deployed == []


def test_a_damaged_bundle_is_refused_before_anything_is_deployed(serve, tmp_path):
    with pytest.raises(BoneageError, match="absent"):
        running.update([str(tmp_path / "absent")])
    assert serve.deployed == []


def test_an_update_changes_models_and_nothing_else(tiny_model):
    with pytest.raises(UsageError, match="give --model only"):
        command.serve(None, command.ServeArguments([tiny_model], port=9000, update=True))
