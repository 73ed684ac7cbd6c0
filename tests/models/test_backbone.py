"""Encoders by name, and weights from a file or an object store."""

from __future__ import annotations

import hashlib

import pytest
import timm
import torch
from safetensors.torch import save

from boneage_ray import storage
from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.models.backbone import build_backbone, fixed_size, load_checked
from boneage_ray.models.config import BackboneConfig

TINY = "test_resnet"


def built(channels=1, **settings):
    return build_backbone(BackboneConfig(name=TINY, **settings), channels, with_weights=True)


@pytest.fixture(scope="module")
def weights():
    """State of a 3-channel encoder, as a safetensors file holds it."""
    torch.manual_seed(1)
    return timm.create_model(TINY, num_classes=0, in_chans=3).state_dict()


@pytest.mark.parametrize("channels", [1, 3])
def test_an_encoder_makes_features_of_images(channels):
    model = built(channels).eval()
    assert model(torch.zeros(2, channels, 64, 64)).shape == (2, model.num_features) == (2, 96)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r"timm has no model 'resnet81'; nearest: .*resnet18"):
        build_backbone(BackboneConfig(name="resnet81"), 1, with_weights=True)


@pytest.mark.parametrize("size", [None, 64])
def test_an_unknown_tag_is_refused_with_the_nearest(size):
    with pytest.raises(
        UsageError, match=r"timm has no tag 'unheard_of' of resnet18; nearest: resnet18\.\w+, .*, resnet18$"
    ):
        build_backbone(BackboneConfig(name="resnet18.unheard_of"), 1, with_weights=True, size=size)


def test_a_known_tag_is_taken():
    model = build_backbone(BackboneConfig(name=f"{TINY}.r160_in1k"), 1, with_weights=False, size=64)
    assert model.num_features == 96


def test_timm_without_weights_of_a_model_is_told_as_that():
    with pytest.raises(UsageError, match=r"^timm has no weights for cspresnet50d: .*weights=none or =URI"):
        build_backbone(BackboneConfig(name="cspresnet50d", weights="timm"), 1, with_weights=True)


def test_a_word_that_names_no_file_is_answered_with_timm():
    with pytest.raises(UsageError, match=r"imagenet.*; for weights of timm's hub give model\.backbone\.weights=timm"):
        built(3, weights="imagenet")


@pytest.mark.parametrize(
    ("name", "layers"), [(TINY, ["fc"]), ("deit_tiny_distilled_patch16_224", ["head", "head_dist"])]
)
def test_the_classifier_in_a_file_of_timm_is_left_out_and_said(tmp_path, capsys, name, layers):
    whole = timm.create_model(name, num_classes=7).state_dict()
    path = tmp_path / "model.safetensors"
    path.write_bytes(save(whole))
    model = build_backbone(BackboneConfig(name=name, weights=str(path)), 3, with_weights=True)
    parts = [f"{layer}.{part}" for layer in layers for part in ("bias", "weight")]
    assert f"{path}: its classifier is left out ({', '.join(parts)})" in capsys.readouterr().err
    assert set(model.state_dict()) == set(whole) - set(parts)
    assert all(torch.equal(value, whole[key]) for key, value in model.state_dict().items())


def test_weights_come_from_a_file_with_its_hash(tmp_path, weights):
    path, data = tmp_path / "encoder.safetensors", save(weights)
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    model = built(3, weights=str(path), weights_sha256=digest.upper())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    with pytest.raises(MismatchError, match=f"{path} has SHA-256 {digest}, the recipe asks for {'0' * 64}"):
        built(3, weights=str(path), weights_sha256="0" * 64)


def test_weights_come_from_an_object_store(s3_bucket, weights):
    uri = f"{s3_bucket}/encoder.safetensors"
    storage.write_bytes(uri, save(weights))
    assert torch.equal(built(3, weights=uri).state_dict()["conv1.0.weight"], weights["conv1.0.weight"])


def test_a_gray_encoder_answers_like_the_colour_one_on_gray(tmp_path, weights):
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(save(weights))
    gray = torch.rand(2, 1, 64, 64)
    colour, single = built(3, weights=str(path)).eval(), built(1, weights=str(path)).eval()
    assert torch.allclose(single(gray), colour(gray.expand(-1, 3, -1, -1)), atol=1e-5)


def test_weights_that_do_not_fit_are_told_by_name(tmp_path, weights):
    state = {name: value for name, value in weights.items() if name != "bn1.weight"}
    state |= {"extra.weight": torch.zeros(2), "bn1.bias": torch.zeros(3)}
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(save(state))
    with pytest.raises(UsageError) as caught:
        built(3, weights=str(path))
    assert str(caught.value) == (
        f"{path} does not fit the model: missing 1 (bn1.weight); unexpected 1 (extra.weight); other shape 1 (bn1.bias)"
    )


def test_what_is_no_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "encoder.pth"
    path.write_bytes(b"\x80\x02pickle")
    with pytest.raises(UsageError, match=r"encoder.pth is not a safetensors file"):
        built(3, weights=str(path))


def test_weights_are_not_fetched_when_others_will_follow(tmp_path):
    config = BackboneConfig(name=TINY, weights=str(tmp_path / "absent.safetensors"))
    assert build_backbone(config, 1, with_weights=False).num_features == 96


def test_loading_is_all_or_nothing(weights):
    model = built(3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UsageError, match="missing 1"):
        load_checked(model, {name: value for name, value in weights.items() if name != "bn1.weight"}, "here")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "size"), [(TINY, None), ("convnext_atto", None), ("vit_tiny_patch16_224", (224, 224))]
)
def test_encoders_of_one_image_size_are_known(name, size):
    assert fixed_size(timm.create_model(name, num_classes=0)) == size


@pytest.fixture
def resnet10(tmp_path):
    """Weights of a plain gray resnet10t, as a file."""
    torch.manual_seed(2)
    state = timm.create_model("resnet10t", num_classes=0, in_chans=1).state_dict()
    path = tmp_path / "resnet10.safetensors"
    path.write_bytes(save(state))
    return str(path), state


def test_attention_is_a_channel_and_a_spatial_module_in_every_block():
    model = build_backbone(BackboneConfig(name="resnet34", attention="cbam"), 1, with_weights=False)
    modules = [block.se for layer in (model.layer1, model.layer2, model.layer3, model.layer4) for block in layer]
    assert len(modules) == 3 + 4 + 6 + 3
    assert {m.channel.fc1.in_channels // m.channel.fc1.out_channels for m in modules} == {16}
    assert {m.spatial.conv.conv.kernel_size for m in modules} == {(7, 7)}


def test_plain_weights_load_into_an_encoder_with_attention_and_what_is_missing_is_said(resnet10, capsys):
    uri, state = resnet10
    config = BackboneConfig(name="resnet10t", attention="cbam", weights=uri)
    model = build_backbone(config, 1, with_weights=True)
    assert torch.equal(model.state_dict()["layer4.0.conv1.weight"], state["layer4.0.conv1.weight"])
    assert "has no cbam layers: 32 tensors start at random (layer1.0.se.channel.fc1.weight" in capsys.readouterr().err


def test_only_the_added_layers_may_be_missing(resnet10, tmp_path):
    _, state = resnet10
    path = tmp_path / "part.safetensors"
    path.write_bytes(save({name: value for name, value in state.items() if not name.startswith("layer4.0.conv1")}))
    config = BackboneConfig(name="resnet10t", attention="cbam", weights=str(path))
    with pytest.raises(UsageError, match=r"missing 1 \(layer4.0.conv1.weight\)"):
        build_backbone(config, 1, with_weights=True)


def test_attention_needs_resnet_blocks():
    with pytest.raises(
        UsageError, match="densenet121 has no ResNet blocks, which attention=cbam and residual_start=zero are for"
    ):
        build_backbone(BackboneConfig(name="densenet121", attention="cbam"), 1, with_weights=False)


def test_the_encoder_of_a_model_bundle_is_taken(resnet10, tmp_path):
    _, state = resnet10
    path = tmp_path / "weights.safetensors"
    whole = {f"backbone.{name}": value for name, value in state.items()} | {"age.weight": torch.zeros(1, 512)}
    path.write_bytes(save(whole))
    model = build_backbone(BackboneConfig(name="resnet10t", weights=str(path)), 1, with_weights=True)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_transformer_is_built_for_the_recipes_size():
    model = build_backbone(BackboneConfig(name="vit_tiny_patch16_224"), 1, with_weights=False, size=96).eval()
    assert fixed_size(model) == (96, 96)
    assert model(torch.zeros(1, 1, 96, 96)).shape == (1, 192)


def test_the_hub_out_of_reach_is_a_clear_error(monkeypatch):
    def refused(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr("timm.models._builder.load_pretrained", refused)
    config = BackboneConfig(name="resnet10t", weights="timm")
    with pytest.raises(UsageError, match=r"the pretrained weights of resnet10t could not be fetched \(OSError\)"):
        build_backbone(config, 1, with_weights=True)


@pytest.mark.parametrize(("start", "scale"), [("zero", 0.0), ("one", 1.0)])
def test_residual_branches_start_at_the_recipes_scale(start, scale):
    model = build_backbone(BackboneConfig(name="resnet10t", residual_start=start), 1, with_weights=False)
    assert model.layer4[0].bn2.weight.unique().tolist() == [scale]


def test_files_without_counters_of_batches_load(tmp_path):
    """As old versions of torch wrote them, and as files of other frameworks are converted."""
    state = timm.create_model(TINY, num_classes=0).state_dict()
    path = tmp_path / "old.safetensors"
    path.write_bytes(save({name: value for name, value in state.items() if "num_batches_tracked" not in name}))
    model = built(3, weights=str(path))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.state_dict()["bn1.num_batches_tracked"].item() == 0


def test_a_batch_norm_that_is_missing_whole_is_still_missing(tmp_path, weights):
    path = tmp_path / "part.safetensors"
    path.write_bytes(save({name: value for name, value in weights.items() if not name.startswith("bn1.")}))
    with pytest.raises(UsageError, match=r"missing 5 \(bn1\.bias, bn1\.num_batches_tracked, bn1\.running_mean\)"):
        built(3, weights=str(path))
