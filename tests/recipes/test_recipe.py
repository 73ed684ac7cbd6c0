"""Recipes: round trips, derivation, --set, TOML files, and messages for errors."""

from __future__ import annotations

import json
import tomllib

import pytest
from pydantic import ValidationError

from boneage_ray import storage
from boneage_ray.errors import ExitCode, StorageError, UsageError
from boneage_ray.recipes import RECIPES, find_recipe
from boneage_ray.recipes.recipe import Recipe, build_recipe, override
from boneage_ray.recipes.wording import known_keys

BASE = find_recipe("timm-regressor")


def refusal(action, *arguments):
    """The message of the UsageError that an action must raise."""
    with pytest.raises(UsageError) as caught:
        action(*arguments)
    assert caught.value.exit_code == ExitCode.USAGE
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


@pytest.mark.parametrize("recipe", RECIPES, ids=[r.name for r in RECIPES])
def test_every_recipe_survives_json_and_toml(recipe):
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert build_recipe(json.loads(json.dumps(recipe.model_dump(mode="json"))), "here") == recipe
    assert build_recipe(tomllib.loads(recipe.to_toml()), "here") == recipe


def test_recipes_are_found_by_distinct_names_and_described():
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)
    assert all(find_recipe(recipe.name) is recipe and recipe.summary for recipe in RECIPES)


def test_published_settings_of_the_multitask_recipe():
    recipe = find_recipe("resnet18-multitask")
    (stage,) = recipe.stages
    assert (recipe.image.size, recipe.model.backbone.name, recipe.model.channels) == (256, "resnet18", 3)
    assert (recipe.augment.flip, recipe.augment.rotation_deg, recipe.batch_size) == (0.5, 10, 32)
    assert (stage.epochs, stage.optimizer, stage.lr, stage.weight_decay, stage.clip_norm) == (
        10,
        "adam",
        1e-4,
        1e-5,
        5.0,
    )
    assert (recipe.task.loss, recipe.model.stage_heads, recipe.model.sex_features) == ("l1", ("three",), 0)
    assert recipe.best_by == "val_loss"


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        BASE.batch_size = 7


def test_deriving_changes_what_is_named_and_keeps_the_rest():
    made = BASE.derive(name="mine", model={"backbone": {"name": "resnet50"}}, image={"size": 384})
    assert (made.name, made.model.backbone.name, made.image.size) == ("mine", "resnet50", 384)
    expected = BASE.model_dump()
    expected["name"], expected["model"]["backbone"]["name"], expected["image"]["size"] = "mine", "resnet50", 384
    assert made.model_dump() == expected
    assert BASE.model.backbone.name == "resnet34"


@pytest.mark.parametrize(
    ("setting", "read", "value"),
    [
        ("batch_size=8", lambda r: r.batch_size, 8),
        ("stage.epochs=3", lambda r: r.stages[0].epochs, 3),
        ("stages.0.lr=1e-2", lambda r: r.stages[0].lr, 0.01),
        ("stage.schedule=constant", lambda r: r.stages[0].schedule, "constant"),
        ('model.backbone.name="resnet10t"', lambda r: r.model.backbone.name, "resnet10t"),
        ("model.backbone.name=resnet10t", lambda r: r.model.backbone.name, "resnet10t"),
        ("model.backbone.weights=s3://site/encoder.safetensors", lambda r: r.model.backbone.weights[:9], "s3://site"),
        ("model.hidden=[64, 32]", lambda r: r.model.hidden, (64, 32)),
        ('model.stage_heads=["three", "four"]', lambda r: r.model.stage_heads, ("three", "four")),
        ("augment = {flip = 0.25}", lambda r: (r.augment.flip, r.augment.rotation_deg), (0.25, 0.0)),
        ("image.quality.min_side=32", lambda r: r.image.quality.min_side, 32),
        (" seed = 5 ", lambda r: r.seed, 5),
        ("task.loss=huber", lambda r: r.task.loss, "huber"),
        ("summary=a=b", lambda r: r.summary, "a=b"),
    ],
)
def test_forms_of_set(setting, read, value):
    assert read(override(BASE, [setting])) == value


def test_settings_add_up_and_leave_everything_else():
    made = override(BASE, ["batch_size=8", "seed=2", "batch_size=16"])
    assert made == BASE.derive(batch_size=16, seed=2)


def test_stage_means_all_stages_and_stages_k_means_one():
    two = BASE.derive(stages=[{"epochs": 1, "trainable": "head"}, {"epochs": 2}])
    assert [s.lr for s in override(two, ["stage.lr=0.5"]).stages] == [0.5, 0.5]
    assert [s.lr for s in override(two, ["stages.1.lr=0.5"]).stages] == [1e-4, 0.5]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("batchsize=8", "unknown key batchsize; nearest known: batch_size"),
        ("stage.epoch=3", "unknown key stages.0.epoch; nearest known: epochs"),
        ("model.backbone.nme=x", "unknown key model.backbone.nme; nearest known: name"),
        ("image.siez=9", "unknown key image.siez; nearest known: size"),
        ("modle.channels=1", "--set modle.channels: no such field; nearest known: model"),
        ("stage.epochs=many", "stages.0.epochs = 'many'"),
        ("stage.epochs=0", "stages.0.epochs = 0"),
        ("stage.epochs=2.5", "stages.0.epochs = 2.5"),
        ("augment.flip=2", "augment.flip = 2"),
        ("model.channels=2", "model.channels = 2"),
        ("stage.optimizer=lion", "stages.0.optimizer = 'lion'"),
        ("stages=[]", "stages = []"),
        ("batch_size", "give key=value, for example stage.epochs=3"),
        ("stage=3", "--set stage: no such field"),
        ("stages.0=3", "name a field of one entry, for example stages.0.lr"),
        ("stages.7.lr=1", "--set stages.7.lr: no such field; number of stages: 1, counted from 0"),
        ("batch_size.more=1", "--set batch_size.more: no such field"),
        ("", "give key=value"),
    ],
)
def test_wrong_settings_name_the_key_and_the_fix(setting, said):
    assert said in refusal(override, BASE, [setting])


def test_unknown_keys_far_from_any_known_one_get_no_false_hint():
    message = refusal(build_recipe, {"name": "x", "summary": "y", "zzzzqqqq": 1}, "mine.toml")
    assert message == "recipe mine.toml: unknown key zzzzqqqq"


def test_missing_fields_are_named():
    assert "name" in refusal(build_recipe, {"summary": "y"}, "mine.toml")


def test_known_keys_reach_every_field():
    keys = known_keys(Recipe)
    assert {"batch_size", "stages.lr", "image.quality.min_side", "model.backbone.weights", "task.loss"} <= set(keys)
    assert len(keys) == len(set(keys))


def test_a_toml_file_names_a_base_and_overrides_fields(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "timm-regressor"\nname = "mine"\nbatch_size = 4\n[model.backbone]\nname = "resnet10t"\n')
    made = find_recipe(str(path))
    assert made == BASE.derive(name="mine", batch_size=4, model={"backbone": {"name": "resnet10t"}})


def test_a_toml_file_may_build_upon_another_and_lie_on_s3(s3_bucket):
    storage.write_text(f"{s3_bucket}/a.toml", 'base = "timm-regressor"\nname = "a"\nseed = 1\n')
    storage.write_text(f"{s3_bucket}/b.toml", f'base = "{s3_bucket}/a.toml"\nname = "b"\nbatch_size = 2\n')
    assert find_recipe(f"{s3_bucket}/b.toml") == BASE.derive(name="b", seed=1, batch_size=2)


def test_what_recipes_prints_is_a_recipe_file(tmp_path):
    path = tmp_path / "copy.toml"
    path.write_text(BASE.to_toml())
    assert find_recipe(str(path)) == BASE


def test_errors_of_a_recipe_file_are_reported(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("name = \n")
    assert f"{path} is not TOML" in refusal(find_recipe, str(path))
    path.write_bytes(b"\xff\xfe")
    assert f"{path} is not TOML" in refusal(find_recipe, str(path))
    path.write_text('base = "timm-regressr"\n')
    assert "did you mean timm-regressor?" in refusal(find_recipe, str(path))
    path.write_text('base = "timm-regressor"\nbatchsize = 1\n')
    assert "unknown key batchsize; nearest known: batch_size" in refusal(find_recipe, str(path))
    with pytest.raises(StorageError, match=r"absent\.toml"):
        find_recipe(str(tmp_path / "absent.toml"))


def test_an_unknown_recipe_is_refused_with_the_nearest():
    assert refusal(find_recipe, "resnet18-multitsk") == (
        "no recipe 'resnet18-multitsk'; did you mean resnet18-multitask? (or give a TOML file)"
    )
    assert f"known: {', '.join(r.name for r in RECIPES)} (or" in refusal(find_recipe, "zzz")
