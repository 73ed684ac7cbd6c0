"""Small models as built-in ones, for tests: made by the tool that makes the real ones."""

from __future__ import annotations

import json

import pytest
import torch

from boneage_ray import bundle
from boneage_ray.commands import make_builtin as make_builtin_module
from boneage_ray.commands.make_builtin import make_builtin
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.tasks.build import build_model

HAND = override(find_recipe("demo"), ["image.size=64", "model.backbone.name=test_resnet"])
HEAD = override(
    find_recipe("cephalogram-light"), ["image.size=64", "model.encoder=tu-test_resnet", 'model.maps=["facial"]']
)
FIGURE = {"what": "MAE of 9 phantoms", "value": "8.1 months (7.7 to 8.6)", "command": "python measure.py --folds 5"}


def facts(folder, name, /, **more):
    """A file of facts; returns its path."""
    told = {
        "name": name,
        "version": "3",
        "purpose": "bone age from a radiograph of the hand",
        "intended_use": "Research on growth.",
        "not_for": "Diagnosis.",
        "data": ["rsna-2017", "imagenet"],
        "made_by": "boneage train --recipe demo",
        "figures": [FIGURE],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(told | more))
    return str(path)


def trained(folder, recipe=HAND, seed=0):
    """A bundle with random weights; returns its place."""
    torch.manual_seed(seed)
    model = build_model(recipe.model, size=recipe.image.size)
    bundle.save(str(folder), recipe, model.state_dict(), {"val_mae_months": 10.0})
    return str(folder)


def install(tmp_path, name="hand", recipe=HAND):
    """A built-in model below tmp_path / "installed"; returns that folder. Peaks of a random head jump when it is rounded."""
    if recipe is HEAD:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(make_builtin_module, "SMALL", 10**9)
            return _install(tmp_path, name, recipe)
    return _install(tmp_path, name, recipe)


def _install(tmp_path, name, recipe):
    make_builtin(trained(tmp_path / f"{name}-trained", recipe), facts(tmp_path, name), str(tmp_path / "installed"))
    return tmp_path / "installed"
