"""Two views of a radiograph: the loss by hand, the spread, and first weights for a regressor."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from boneage_ray import bundle
from boneage_ray.augment.pipeline import Augment
from boneage_ray.datasets.batch import Batch, as_float
from boneage_ray.errors import UsageError
from boneage_ray.findings.task_findings import findings_of
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.tasks.build import build_model, build_task
from boneage_ray.training.optimization import build_optimizer, build_schedule, parameter_groups
from boneage_ray.training.step import Learner, train_step

RESNET = ["model.backbone.name=resnet10t", "model.backbone.weights=none", "image.size=64"]


@pytest.fixture
def recipe():
    return override(find_recipe("two-views-hand"), [*RESNET, "model.width=16"])


def batch_of(count):
    images = torch.randint(0, 256, (count, 1, 64, 64), dtype=torch.uint8)
    unknown = torch.full((count,), torch.nan)
    return Batch(images, torch.full((count,), 2), unknown, tuple(f"case-{k}" for k in range(count)))


def cosine(a, b):
    return (a @ b / a.norm() / b.norm()).item()


def test_each_view_foretells_the_other_one_and_not_itself(recipe):
    task = build_task(recipe.task)
    embedding, foretold = torch.randn(4, 16), torch.randn(4, 16, requires_grad=True)
    embedding.requires_grad_()
    loss = task.losses({"embedding": embedding, "foretold": foretold}, batch_of(2))["views"]
    pairs = [(0, 2), (1, 3), (2, 0), (3, 1)]  # views of two cases: the first ones, then the second ones
    assert loss.item() == pytest.approx(-sum(cosine(foretold[a], embedding[b]) for a, b in pairs) / 4, abs=1e-6)
    loss.backward()
    assert foretold.grad.abs().sum() > 0
    assert embedding.grad is None, "the gradient of what is foretold is stopped"
    alone = task.losses({"embedding": embedding, "foretold": foretold}, batch_of(4))["views"]
    assert alone.item() == pytest.approx(-sum(cosine(foretold[k], embedding[k]) for k in range(4)) / 4, abs=1e-6)


def test_the_spread_tells_a_collapsed_network_from_a_sound_one(recipe):
    task, chance = build_task(recipe.task), torch.Generator().manual_seed(0)
    even = torch.randn(400, 16, generator=chance)
    alike = torch.ones(400, 16) + 1e-3 * torch.randn(400, 16, generator=chance)
    for embedding, expected in ((even, 1.0), (alike, 0.0)):
        halves = [task.summarise(task.predict({"embedding": part}), {})[0]["sums"][0] for part in embedding.split(150)]
        spread = task.metrics({"sums": halves}, {})["spread"]
        unit = (embedding / embedding.norm(dim=1, keepdim=True)).numpy().astype(np.float64)
        assert spread == pytest.approx(unit.std(0).mean() * 4, abs=1e-6)
        assert spread == pytest.approx(expected, abs=0.02)
        assert bool(task.doubts({"val_spread": spread})) == (expected == 0.0)
    assert math.isnan(task.metrics({}, {})["spread"])


def learner_of(recipe, steps):
    model = build_model(recipe.model, with_weights=False, size=64)
    stage = recipe.stages[0]
    optimizer = build_optimizer(stage, parameter_groups(stage, model.head_parameters(), model.blocks()))
    cpu, schedule = torch.device("cpu"), build_schedule(stage, optimizer, steps)
    return Learner(model, model, build_task(recipe.task), Augment(recipe.augment), cpu, None, optimizer, schedule)


def test_the_network_gets_all_first_views_then_all_second_ones(recipe):
    torch.manual_seed(0)
    learner, seen = learner_of(recipe, 1), []
    learner.model.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    train_step(learner, batch_of(4))
    (views,) = seen
    assert views.shape == (8, 1, 64, 64)
    assert all(not torch.equal(views[k], views[k + 4]) for k in range(4))


def test_it_learns_what_one_view_says_of_the_other(recipe):
    torch.manual_seed(0)
    off = [f"augment.{name}=0" for name in ("rotation_deg", "zoom", "shift", "blur", "flip", "contrast", "gamma")]
    learner, batch = learner_of(override(recipe, [*off, "augment.brightness=0.02"]), 40), batch_of(8)
    losses = [train_step(learner, batch).item() for _ in range(40)]
    assert losses[-1] < losses[0] - 0.3


def test_its_encoder_begins_a_regressor_of_the_same_backbone(recipe, tmp_path):
    model = build_model(recipe.model, with_weights=False, size=64)
    bundle.save(str(tmp_path), recipe, model.state_dict(), {})
    weights = f"model.backbone.weights={tmp_path}/weights.safetensors"
    regressor = override(find_recipe("efficientnet-lite-hand"), [*RESNET, weights])
    taken = build_model(regressor.model, size=64).eval()
    assert all(
        torch.equal(value, model.backbone.state_dict()[name]) for name, value in taken.backbone.state_dict().items()
    )
    image = as_float(batch_of(2).image_B1HW)
    shown = (image.expand(-1, 3, -1, -1) - model.mean) / model.std
    assert torch.equal(taken.features(image)[:, : taken.encoder_features], model.eval().network("encoder", shown))


def test_nothing_is_predicted_by_it(recipe):
    with pytest.raises(UsageError, match=r"two-views-hand predicts nothing: .* --set model\.backbone\.weights="):
        findings_of(recipe)
