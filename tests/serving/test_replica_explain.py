"""What a model's replica answers when it is asked for a picture. No Ray is started."""

from __future__ import annotations

import asyncio

import torch
from pictures import encoded

from boneage_ray import bundle
from boneage_ray.archives.archive import Input
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.serving.app import ModelReplica
from boneage_ray.serving.placement import Placement, inspect_models
from boneage_ray.tasks.build import build_model

HAND = encoded(hand_phantom(1, 100, "F", 160).image)


def answer(place, data):
    replica = ModelReplica(*inspect_models([place]), Placement(1, 0, 1))
    try:
        return asyncio.run(replica.explain(data, Input("request", "request")))
    finally:
        for pool in replica.pools:
            pool.close()


def test_a_picture_or_the_row_that_says_why_there_is_none(make_bundle, tmp_path, one_thread):
    place = make_bundle(tmp_path / "a", seed=1, model={"backbone": {"name": "test_resnet"}}, image={"size": 64})
    assert answer(place, HAND).startswith(b"\x89PNG")
    row = answer(place, b"no picture")
    assert (row["status"], row["step"], row["reason"]) == ("failed", "decode", "unsupported_format")
    place = make_bundle(tmp_path / "b", seed=1, model={"backbone": {"name": "test_vit"}}, image={"size": 160})
    row = answer(place, HAND)
    assert (row["status"], row["reason"]) == ("failed", "not_explainable")
    assert "no feature maps" in row["message"]


def test_all_replicas_compute_as_the_service_decided_whatever_their_node_could(make_bundle, tmp_path, one_thread):
    place = make_bundle(tmp_path / "a", seed=1, model={"backbone": {"name": "test_resnet"}}, image={"size": 64})
    (model,) = inspect_models([place])
    for auto, expected in (("float32", None), ("bfloat16", torch.bfloat16)):
        replica = ModelReplica(model, Placement(1, 0, 1, auto))
        assert replica.predictors[0].precision == expected
        for pool in replica.pools:
            pool.close()


def test_a_cephalogram_model_warms_up_on_a_head_and_answers(tmp_path, one_thread):
    recipe = override(find_recipe("cephalogram-light"), ["image.size=64", "precision=float32"])
    place = str(tmp_path / "heads")
    bundle.save(place, recipe, build_model(recipe.model, with_weights=False).state_dict(), {"val_loss": 1.0})
    row = answer(place, HAND)  # untrained: it recognises no neck, and says so
    assert (row["status"], row["step"], row["reason"]) == ("rejected", "predict", "out_of_distribution")
