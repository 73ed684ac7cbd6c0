"""The recipe of EfficientNet-B0 as published, and how a blend is set, added and refused."""

from __future__ import annotations

import tomllib

import pytest

from boneage_ray.errors import UsageError
from boneage_ray.models.config import BlendConfig
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import build_recipe, override

PUBLISHED, PLAIN = find_recipe("efficientnet-b0-sex"), find_recipe("timm-regressor")


def test_published_settings():
    model, augment = PUBLISHED.model, PUBLISHED.augment
    assert (PUBLISHED.image.size, model.channels, model.backbone.name) == (384, 3, "efficientnet_b0")
    assert (model.sex_features, model.hidden, model.dropout, model.stage_heads) == (
        32,
        (256, 128),
        (0.3, 0.2),
        ("four",),
    )
    assert (augment.rotation_deg, augment.zoom, augment.brightness, augment.contrast, augment.flip) == (
        15,
        0.1,
        0.15,
        0.15,
        0.5,
    )
    assert (PUBLISHED.task.loss, PUBLISHED.task.huber_delta_years, PUBLISHED.batch_size) == ("huber", 1.0, 16)
    assert PUBLISHED.blend == BlendConfig(cnn_weight="validation")
    for stage in PUBLISHED.stages:
        assert (stage.optimizer, stage.lr, stage.weight_decay) == ("adamw", 1e-4, 1e-5)
        assert (stage.clip_norm, stage.patience) == (1.0, 10)


def test_it_is_tuned_from_the_head_downwards_with_a_lower_rate_for_the_encoder():
    head, top, whole = PUBLISHED.stages
    assert (head.trainable, top.trainable, whole.trainable) == ("head", 3, "all")
    assert top.backbone_lr_scale == whole.backbone_lr_scale == 0.1
    assert (whole.schedule, whole.final_lr) == ("cosine", 1e-6)
    assert whole.warmup * whole.epochs == pytest.approx(5)


def test_a_blend_is_set_like_anything_else():
    made = override(PUBLISHED, ["blend.rounds=50", "blend.cnn_weight=validation"])
    assert (made.blend.rounds, made.blend.cnn_weight, made.blend.depth) == (50, "validation", 6)
    assert build_recipe(tomllib.loads(made.to_toml()), "here") == made


def test_a_blend_is_added_to_a_recipe_without_one():
    made = override(PLAIN, ["blend={}", "blend.rounds=50"])
    assert made.blend == BlendConfig(rounds=50)
    assert PLAIN.blend is None
    assert PLAIN.derive(blend={"rounds": 50}) == made


@pytest.mark.parametrize(
    ("recipe", "setting", "said"),
    [
        (
            PLAIN,
            "blend.rounds=50",
            "--set blend.rounds: this recipe has no blend; give --set blend={} before it to add one",
        ),
        (PUBLISHED, "blend.round=50", "unknown key blend.round; nearest known: rounds"),
        (PUBLISHED, "blend.cnn_weight=1.5", "1.5: Input should be less than or equal to 1"),
        (PUBLISHED, "blend.rounds=0", "blend.rounds = 0"),
        (PUBLISHED, "blend.eta=2", "blend.eta = 2"),
    ],
)
def test_wrong_settings_are_refused_with_the_key(recipe, setting, said):
    with pytest.raises(UsageError) as caught:
        override(recipe, [setting])
    assert said in str(caught.value)


def test_trees_are_not_blended_with_masks():
    values = find_recipe("hand-mask").model_dump() | {"blend": {}}
    with pytest.raises(UsageError, match="only a regressor's age can be blended with trees"):
        build_recipe(values, "mine.toml")


def test_a_bundle_of_before_has_no_blend():
    values = PLAIN.model_dump(mode="json")
    del values["blend"]
    assert build_recipe(values, "recipe.json") == PLAIN
