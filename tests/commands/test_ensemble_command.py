"""`boneage ensemble`: bundles that are there become one that needs them no longer."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from boneage_ray import bundle
from boneage_ray.cli import main
from boneage_ray.commands import ensemble
from boneage_ray.datasets.load import PreparedData
from boneage_ray.models.regressor import Regressor
from boneage_ray.prediction import members
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.runtime import runs
from boneage_ray.runtime.runs import Run
from boneage_ray.training import ensemble as training
from boneage_ray.training.driver import TrainOptions

METRICS = {"val_mae_months": 9.0}
RECIPE = override(find_recipe("demo"), ["image.size=64", "model.backbone.name=test_resnet"])


@pytest.fixture(autouse=True)
def keep_ray(monkeypatch):
    """The session's Ray outlives these commands."""
    monkeypatch.setattr(runs, "disconnect", lambda: None)


@pytest.fixture
def two(tmp_path):
    places = [str(tmp_path / "a"), str(tmp_path / "b")]
    for seed, place in enumerate(places):
        torch.manual_seed(seed)
        recipe = RECIPE.derive(name=f"m{seed}", seed=seed)
        bundle.save(place, recipe, Regressor(recipe.model).state_dict(), METRICS)
    return places


def arguments(models, out, *more):
    return ["ensemble", *(part for model in models for part in ("--model", model)), "--out", str(out), *more]


def test_the_joined_bundle_is_whole_in_itself(two, tmp_path, capsys):
    flags = members.resolve(two)
    assert main(arguments(two, tmp_path / "e", "--name", "both", "--json")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["name"], answer["model_sha256"], list(answer["members"])) == ("both", flags.sha256, ["m0", "m1"])
    for place in two:
        shutil.rmtree(place)
    models = members.resolve([str(tmp_path / "e")])
    assert (models.name, models.sha256) == ("both", flags.sha256)
    assert all(bundle.load(member.uri).sha256 == member.sha256 for member in models.members)
    record = json.loads((tmp_path / "e" / "run.json").read_text())
    assert record["members"] == {member.name: member.sha256 for member in models.members}


def test_doctor_verifies_an_ensemble_bundle(two, tmp_path, capsys):
    from boneage_ray.commands.tools import _model

    assert main(arguments(two, tmp_path / "e")) == 0
    assert "2 members, hashes verified" in _model(str(tmp_path / "e"))


def test_what_cannot_be_joined_is_told(two, tmp_path, capsys):
    assert main(arguments(two[:1], tmp_path / "e")) == 2
    assert "repeat --model" in capsys.readouterr().err
    assert main(arguments([two[0], two[0]], tmp_path / "e")) == 2
    assert "give each once" in capsys.readouterr().err
    assert not (tmp_path / "e").exists()


def test_another_out_is_not_overwritten_unasked(two, tmp_path, capsys):
    assert main(arguments(two, tmp_path / "e")) == 0
    assert main(arguments(two, tmp_path / "e")) == 0
    assert main(arguments(two, tmp_path / "e", "--name", "other")) == 5
    assert "--overwrite" in capsys.readouterr().err
    assert main(arguments(two, tmp_path / "e", "--name", "other", "--overwrite")) == 0
    assert members.resolve([str(tmp_path / "e")]).name == "other"


def test_a_member_whose_mae_was_not_finite_does_not_lose_the_others(two, tmp_path, monkeypatch):
    out = str(tmp_path / "e")
    folders = members.copy_members(members.resolve(two), out)
    found = [training.TrainedMember(folders[0], 0, {"val_loss": 1.0}), training.TrainedMember(folders[1], 1, METRICS)]
    monkeypatch.setattr(training, "train_members", lambda recipe, prepared, options: found)
    run = Run("train")
    ensemble.train_ensemble(run, RECIPE, PreparedData("data", {"fingerprint": "f"}), TrainOptions("data", out))
    assert run.answer["val_mae_months of the members"] == "not finite, 9.00"
    assert run.answer["their mean"] == "not finite"
    assert members.resolve([out]).sha256 == run.answer["model_sha256"]


def test_masks_have_no_ensemble_and_nothing_is_claimed(tmp_path, capsys):
    out = tmp_path / "e"
    given = ["--recipe", "hand-mask", "--set", "members=2", "--data", str(tmp_path), "--out", str(out)]
    assert main(["train", *given]) == 2
    assert "members" in capsys.readouterr().err
    assert not out.exists()
