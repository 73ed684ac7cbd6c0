"""Named heads, the sex input, and normalisation."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from boneage_ray.errors import UsageError
from boneage_ray.models.config import BackboneConfig, RegressorConfig
from boneage_ray.models.regressor import AGE_MEAN_YEARS, Regressor
from boneage_ray.recipes import find_recipe

TINY = BackboneConfig(name="test_resnet")
IMAGE = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def regressor(**settings):
    torch.manual_seed(0)
    return Regressor(RegressorConfig(**{"backbone": TINY, **settings})).eval()


def test_outputs_are_named_and_shaped_by_the_recipe():
    outputs = regressor(stage_heads=("three", "four"), hidden=(16,), dropout=0.1)(IMAGE)
    shapes = {name: tuple(value.shape) for name, value in outputs.items()}
    assert shapes == {"age_years": (3,), "stage_three": (3, 3), "stage_four": (3, 4)}
    assert list(regressor()(IMAGE)) == ["age_years"]


def test_a_new_head_starts_at_the_mean_age():
    model = regressor()
    torch.nn.init.zeros_(model.age.weight)
    torch.nn.init.zeros_(model.age.bias)
    assert torch.allclose(model(IMAGE)["age_years"], torch.full((3,), AGE_MEAN_YEARS))


def test_sex_matters_where_it_is_an_input_and_nowhere_else():
    with_sex, without = regressor(sex_features=8), regressor()
    one = IMAGE[:1].expand(3, -1, -1, -1)
    assert len(set(with_sex(one, torch.tensor([0, 1, 2]))["age_years"].tolist())) == 3
    assert len(set(without(one, torch.tensor([0, 1, 2]))["age_years"].round(decimals=4).tolist())) == 1


def test_sex_that_is_not_given_is_unknown_and_never_female():
    model = regressor(sex_features=8)
    silent = model(IMAGE)["age_years"]
    assert torch.equal(silent, model(IMAGE, torch.full((3,), 2))["age_years"])
    assert not torch.equal(silent, model(IMAGE, torch.zeros(3, dtype=torch.long))["age_years"])


def test_the_sex_embedding_stands_behind_the_image_features():
    model = regressor(sex_features=8)
    features = model.features(IMAGE, torch.tensor([0, 1, 2]))
    assert features.shape == (3, 96 + 8)
    assert torch.equal(features[:, 96:], model.sex.weight)


def test_gray_is_repeated_and_normalised_for_three_channels_only():
    seen = {}

    def look(channels):
        model = regressor(channels=channels)
        model.backbone.register_forward_pre_hook(lambda _, inputs: seen.update({channels: inputs[0]}))
        model(torch.full((1, 1, 64, 64), 0.5))

    look(1)
    look(3)
    assert torch.equal(seen[1], torch.full((1, 1, 64, 64), 0.5))
    expected = [(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    assert seen[3].shape == (1, 3, 64, 64)
    assert seen[3][0, :, 0, 0].tolist() == pytest.approx(expected)


def test_normalisation_constants_are_not_weights():
    assert not {"mean", "std"} & set(regressor().state_dict())


def test_head_parameters_are_everything_behind_the_encoder():
    model = regressor(sex_features=4, hidden=(16,), stage_heads=("three",))
    head = {id(p) for p in model.head_parameters()}
    names = {name.split(".")[0] for name, p in model.named_parameters() if id(p) in head}
    assert names == {"sex", "trunk", "age", "stages"}
    assert not head & {id(p) for p in model.backbone.parameters()}


def test_an_encoder_of_one_image_size_says_which():
    model = regressor(backbone=BackboneConfig(name="vit_tiny_patch16_224"))
    with pytest.raises(UsageError, match=r"takes 224 px images only, these have 64 x 64: .* --set image.size=224"):
        model(IMAGE)
    assert model(torch.rand(1, 1, 224, 224))["age_years"].shape == (1,)


@pytest.mark.parametrize("wrong", [{"channels": 2}, {"stage_heads": ("five",)}, {"dropout": 1.0}, {"sex_features": -1}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        RegressorConfig(**wrong)


def test_sex_may_pass_through_layers_of_its_own():
    model = regressor(sex_features=16, sex_hidden=(8,), hidden=(4,))
    assert model.sex(torch.tensor([0, 1, 2])).shape == (3, 8)
    assert model.trunk[0].in_features == 96 + 8
    one = IMAGE[:1].expand(3, -1, -1, -1)
    assert len(set(model(one, torch.tensor([0, 1, 2]))["age_years"].tolist())) == 3


def test_each_hidden_layer_has_its_dropout():
    layers = regressor(hidden=(16, 8), dropout=(0.3, 0.2)).trunk
    assert [layer.p for layer in layers if isinstance(layer, torch.nn.Dropout)] == [0.3, 0.2]
    with pytest.raises(ValidationError, match="2 dropouts for 1 hidden layers"):
        RegressorConfig(hidden=(16,), dropout=(0.3, 0.2))
    with pytest.raises(ValidationError, match="sex_hidden needs sex_features"):
        RegressorConfig(sex_hidden=(8,))


def test_a_mirroring_model_predicts_the_mean_of_both_sides_and_trains_on_one():
    plain, mirroring = regressor(stage_heads=("three",)), regressor(stage_heads=("three",), mirror=True)
    straight, turned = plain(IMAGE), plain(IMAGE.flip(-1))
    for name, value in mirroring(IMAGE).items():
        assert torch.allclose(value, (straight[name] + turned[name]) / 2, atol=1e-5)
        assert torch.allclose(value, mirroring(IMAGE.flip(-1))[name], atol=1e-5)
    mirroring.backbone.eval()
    mirroring.training = True
    assert torch.allclose(mirroring(IMAGE)["age_years"], straight["age_years"], atol=1e-5)


def test_blocks_are_the_encoder_from_the_stem_to_the_top():
    model = regressor(hidden=(4,))
    blocks = model.blocks()
    names = {id(p): name for name, p in model.named_parameters()}
    assert len(blocks) == 5
    assert names[id(blocks[0][0])].startswith("backbone.conv1")
    assert names[id(blocks[-1][0])].startswith("backbone.layer4")
    everything = [*model.head_parameters(), *(p for block in blocks for p in block)]
    assert sorted(map(id, everything)) == sorted(map(id, model.parameters()))


@pytest.mark.parametrize(("name", "millions"), [("densenet121", 7.1), ("resnet34-cbam", 22.6)])
def test_parameter_counts_are_near_the_published_ones(name, millions):
    model = Regressor(find_recipe(name).model, with_weights=False)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.15)
