"""Recipes whose parts do not go together are refused with a message."""

from __future__ import annotations

import pytest

from boneage_ray.errors import UsageError
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import build_recipe, override

AGE, MASK = find_recipe("timm-regressor"), find_recipe("hand-mask")
TO_MASKS = [
    'model={kind = "hand-mask"}',
    'task={kind = "mask"}',
    "best_by=val_loss",
    "image.mask=hand",
    "image.mask_overlay=false",
]
DIGEST = "0123456789abcdef" * 4


def refusal(recipe, *settings):
    """The message for the settings, without the recipe's name in front."""
    with pytest.raises(UsageError) as caught:
        override(recipe, settings)
    return str(caught.value).removeprefix(f"recipe {recipe.name}: ")


@pytest.mark.parametrize(
    ("recipe", "settings", "said"),
    [
        (AGE, TO_MASKS[:1], 'a hand-mask learns the task mask, not age: give task={kind = "mask"}'),
        (MASK, ['task={kind = "age"}'], 'a hand-mask learns the task mask, not age: give task={kind = "mask"}'),
        (AGE, TO_MASKS[1:], 'a regressor learns the task age, not mask: give task={kind = "age"}'),
        (MASK, ["best_by=val_mae_months"], "the task mask has no ages to go by: give best_by=val_loss"),
        (MASK, ["members=2"], "only age regressors are scored together, this is a hand-mask: give members=1"),
        (
            MASK,
            ["image.mask=none"],
            "a hand-mask learns from masks: give image.mask=file (drawn ones) or image.mask=hand",
        ),
        (
            AGE,
            ["members=2", f"seed={2**31 - 1}"],
            "the members' seeds go up from 2147483647 and would pass 2147483647: give a lower seed",
        ),
    ],
)
def test_parts_of_other_kinds_are_refused(recipe, settings, said):
    assert refusal(recipe, *settings) == said


def test_a_hand_mask_is_not_shown_the_answer():
    said = "a hand-mask would be shown the answer: give image.mask_overlay=false"
    assert said in refusal(find_recipe("hand-mask"), "image.mask_overlay=true")


def test_settings_are_validated_together_in_any_order():
    for settings in (TO_MASKS, TO_MASKS[::-1]):
        made = override(AGE, settings)
        assert (made.model.kind, made.task.kind, made.best_by, made.image.mask) == (
            "hand-mask",
            "mask",
            "val_loss",
            "hand",
        )
    assert override(MASK, ["image.mask=hand", "balance=sex"]).balance == "sex"
    assert override(AGE, ["stage.final_lr=1e-3", "stage.lr=1e-2"]).stages[0].final_lr == 1e-3


def test_a_new_table_can_be_filled_by_further_settings():
    made = override(AGE, ["model={}", "model.backbone.name=resnet10t", "stages=[{}]", "stages.0.epochs=2"])
    assert (made.model.backbone.name, made.stages[0].epochs) == ("resnet10t", 2)


@pytest.mark.parametrize(
    ("recipe", "setting", "said"),
    [
        (
            AGE,
            "model.kind=hand-mask",
            "model.backbone is of the kind regressor, but model.kind is hand-mask; a kind is ",
        ),
        (AGE, "model.encoder=x", "model.encoder is of the kind hand-mask, but model.kind is regressor; a kind is not "),
        (MASK, "model.backbone.name=x", "model.backbone is of the kind regressor, but model.kind is hand-mask; a kind"),
        (AGE, "task.kind=mask", "task.loss is of the kind age, but task.kind is mask; a kind is not switched field by"),
        (AGE, "model.kind=x", "model.kind = 'x': known kinds: regressor, hand-mask"),
        (AGE, "task.kind=x", "task.kind = 'x': known kinds: age, mask"),
        (AGE, "model=hand-mask", "model = 'hand-mask': a table of fields is needed"),
        (AGE, "augment=none", "augment = 'none': a table of fields is needed"),
    ],
)
def test_wrong_kinds_are_explained(recipe, setting, said):
    assert refusal(recipe, setting).startswith(said)


def test_the_suggested_change_of_a_kind_works():
    said = refusal(AGE, "model.kind=hand-mask")
    assert said.endswith("or --set 'model={kind = \"hand-mask\", ...}' with the whole table")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("image.mask=hnad", "image.mask = 'hnad': Input should be 'none', 'hand' or 'file'"),
        ("model.dropout=[0.1, 0.2]", "model: 2 dropouts for 1 hidden layers: give one, or one each"),
        ("model={sex_hidden = [8]}", "model: sex_hidden needs sex_features above 0"),
        ("model.dropout=[3.0]", "model.dropout = 3.0: Input should be less than 1"),
        ("stage.trainable=heads", "stages.0.trainable = 'heads': give all, head, or a number of blocks from 1 up"),
        ("stage.trainable=true", "stages.0.trainable = True: give all, head, or a number of blocks from 1 up"),
        ("stage.final_lr=1", "stages.0: final_lr=1.0 is above lr=0.001: lower final_lr"),
        ("stages=3", "stages = 3: Input should be a valid tuple"),
        ("model.hidden=[0]", "model.hidden.0 = 0: Input should be greater than or equal to 1"),
        ("image.clahe_tiles=65", "image.clahe_tiles = 65: Input should be less than or equal to 64"),
        ("seed=-1", "seed = -1: Input should be greater than or equal to 0"),
        (f"seed={2**31}", "seed = 2147483648: Input should be less than or equal to 2147483647"),
        ("name=", "name = '': it becomes part of file names: letters, digits and . _ + - only"),
        ("name=a/b", "name = 'a/b': it becomes part of file names: letters, digits and . _ + - only"),
        ("name=..", "name = '..': it becomes part of file names: letters, digits and . _ + - only"),
        ("sex_features=0", "unknown key sex_features; nearest known: model.sex_features"),
        ("lr=1", "unknown key lr; nearest known: stage.lr"),
        ("clahe_clp=1", "unknown key clahe_clp; nearest known: image.clahe_clip"),
        ("image.qualty.min_side=1", "--set image.qualty.min_side: no such field; nearest known: quality"),
        (
            f"model.backbone.weights_sha256={DIGEST}",
            "model.backbone: weights_sha256 is checked of a file, but weights=none: name the file, or leave the hash out",
        ),
    ],
)
def test_one_short_line_names_the_key_and_what_is_needed(setting, said):
    assert refusal(AGE, setting) == said


@pytest.mark.parametrize("digest", ["", "00", "g" * 64, f"{DIGEST} ", f"{DIGEST}\n"])
def test_a_hash_has_64_hexadecimal_digits(digest):
    with pytest.raises(UsageError, match="a SHA-256 of 64 hexadecimal digits is needed"):
        AGE.derive(model={"backbone": {"weights": "w.safetensors", "weights_sha256": digest}})


def test_a_hash_may_be_written_in_capitals():
    made = AGE.derive(model={"backbone": {"weights": "w.safetensors", "weights_sha256": DIGEST.upper()}})
    assert made.model.backbone.weights_sha256 == DIGEST


def test_a_file_with_a_key_called_self_is_handled_like_any_other(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "timm-regressor"\nself = 1\n')
    with pytest.raises(UsageError, match="unknown key self"):
        find_recipe(str(path))


def test_a_missing_name_is_reported_without_the_whole_recipe():
    with pytest.raises(UsageError, match=r"^recipe mine.toml: name: Field required$"):
        build_recipe({"summary": "y"}, "mine.toml")


def test_names_of_seeds_and_versions_are_fine():
    assert AGE.derive(name="Mine_2.1+a-seed7").name == "Mine_2.1+a-seed7"
