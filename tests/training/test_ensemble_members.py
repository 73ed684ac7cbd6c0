"""Members by seed, one after the other; finished ones are kept."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from boneage_ray import bundle
from boneage_ray.datasets.load import PreparedData
from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.models.regressor import Regressor
from boneage_ray.prediction import members
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.training.driver import TrainOptions
from boneage_ray.training.ensemble import member_recipe, train_members

TINY = ["image.size=64", "model.backbone.name=test_resnet", "members=3", "seed=7"]
RECIPE = override(find_recipe("deep-ensemble"), TINY)
DATA = PreparedData("data", {})


class Trainer:
    """Saves random weights instead of training; stops at a given seed."""

    def __init__(self, breaks_at=None):
        self.seeds, self.breaks_at = [], breaks_at

    def __call__(self, recipe, prepared, options):
        assert prepared is DATA
        assert recipe.members == 1
        if recipe.seed == self.breaks_at:
            raise KeyboardInterrupt
        self.seeds.append(recipe.seed)
        torch.manual_seed(recipe.seed)
        weights = Regressor(recipe.model).state_dict()
        bundle.save(options.out, recipe, weights, {"val_mae_months": float(recipe.seed)})


def trained(tmp_path, trainer, recipe=RECIPE):
    return train_members(recipe, DATA, TrainOptions("data", str(tmp_path)), trainer)


def test_each_member_is_a_whole_bundle_of_its_own_seed(tmp_path):
    trainer = Trainer()
    found = trained(tmp_path, trainer)
    assert trainer.seeds == [7, 8, 9]
    assert [(m.folder, m.seed, m.metrics) for m in found] == [
        (f"members/{k}", 7 + k, {"val_mae_months": 7.0 + k}) for k in range(3)
    ]
    recipes = [bundle.load(f"{tmp_path}/members/{k}").recipe for k in range(3)]
    assert recipes == [member_recipe(RECIPE, k) for k in range(3)]
    assert [r.name for r in recipes] == ["deep-ensemble-seed7", "deep-ensemble-seed8", "deep-ensemble-seed9"]


def test_the_trained_members_become_one_bundle(tmp_path):
    folders = [member.folder for member in trained(tmp_path, Trainer())]
    saved = members.save_ensemble(str(tmp_path), RECIPE.name, RECIPE.summary, folders)
    assert json.loads((tmp_path / "manifest.json").read_text())["kind"] == "boneage-ray ensemble"
    models = members.resolve([str(tmp_path)])
    assert (models, models.name) == (saved, "deep-ensemble")
    assert [m.name for m in models.members] == [f"deep-ensemble-seed{seed}" for seed in (7, 8, 9)]


def test_a_finished_member_is_not_trained_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, Trainer(breaks_at=8))
    assert not (tmp_path / "manifest.json").exists()
    trainer = Trainer()
    assert [m.seed for m in trained(tmp_path, trainer)] == [7, 8, 9]
    assert trainer.seeds == [8, 9]
    again = Trainer()
    trained(tmp_path, again)
    assert again.seeds == []


def test_a_member_without_its_manifest_is_not_finished(tmp_path):
    trained(tmp_path, Trainer())
    (tmp_path / "members/1/manifest.json").unlink()
    trainer = Trainer()
    trained(tmp_path, trainer)
    assert trainer.seeds == [8]


def test_a_member_of_another_recipe_is_never_taken(tmp_path):
    trained(tmp_path, Trainer())
    shutil.rmtree(tmp_path / "members/0")
    shutil.copytree(tmp_path / "members/1", tmp_path / "members/0")
    with pytest.raises(MismatchError, match="members/0 holds a member of another recipe or seed"):
        trained(tmp_path, Trainer())


def test_a_recipe_without_an_age_is_refused_before_anything_is_trained(tmp_path):
    trainer = Trainer()
    with pytest.raises(UsageError, match="is a hand-mask: only age regressors"):
        trained(tmp_path, trainer, find_recipe("hand-mask"))
    assert trainer.seeds == []
