"""One tester over all recipes: it builds, predicts, has finite losses and gradients. A new recipe costs no test code."""

from __future__ import annotations

import pytest
import torch

from boneage_ray.augment.pipeline import Augment
from boneage_ray.datasets.batch import Batch, as_float
from boneage_ray.models.regressor import Regressor
from boneage_ray.optimization import build_optimizer
from boneage_ray.recipes import RECIPES
from boneage_ray.tasks.age import AgeTask


@pytest.mark.parametrize("recipe", RECIPES, ids=[r.name for r in RECIPES])
def test_a_recipe_trains_a_step(recipe):
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    batch = Batch(images, torch.tensor([0, 2]), torch.tensor([100.0, 200.0]), ("a", "b"))
    model, task = Regressor(recipe.model, with_weights=False), AgeTask(recipe.task)
    optimizer = build_optimizer(recipe.stages[0], model.parameters())
    outputs = model(Augment(recipe.augment)(as_float(batch.image_B1HW)).image_B1HW, batch.sex_B)
    losses = task.losses(outputs, batch)
    assert set(losses) == {"age", *(f"stage_{name}" for name in recipe.model.stage_heads)}
    torch.stack(list(losses.values())).sum().backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() for group in optimizer.param_groups for p in group["params"]
    )
    before = model.age.weight.clone()
    optimizer.step()
    assert not torch.equal(model.age.weight, before)
    with torch.inference_mode():
        columns = task.predict(model.eval()(as_float(batch.image_B1HW), batch.sex_B))
    assert len(columns["age_months"]) == len(columns["stages"]) == 2
