"""The U-Net for cephalograms: named maps, frames, and the second look at the neck."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from boneage_ray.errors import UsageError
from boneage_ray.models.cephalogram import Cephalogram, cut_neck, moved, moved_back
from boneage_ray.models.config import CephalogramConfig
from boneage_ray.models.heatmap import decode_heatmaps
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.tasks.build import build_model

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = "tu-test_resnet"


def model(**settings):
    torch.manual_seed(0)
    return Cephalogram(CephalogramConfig(encoder=TINY, **settings)).eval()


def test_every_map_has_its_name_and_channels():
    with torch.inference_mode():
        outputs = model()(torch.rand(2, 1, 64, 64))
    shapes = {name: tuple(tensor.shape) for name, tensor in outputs.items()}
    assert shapes == {
        "reconstruction": (2, 1, 64, 64),
        "edges": (2, 1, 64, 64),
        "vertebral": (2, 13, 64, 64),
        "facial": (2, 19, 64, 64),
        "frame": (2, 3),
    }
    assert outputs["frame"].tolist() == [[0.0, 0.0, 1.0]] * 2


def test_a_smaller_side_says_where_its_pixels_lie():
    """Pixel centres: the first of 32 pixels over 64 lies between pixels 0 and 1."""
    with torch.inference_mode():
        outputs = model(side=32, maps=("facial",))(torch.rand(1, 1, 64, 64))
    assert set(outputs) == {"facial", "frame"}
    assert outputs["facial"].shape == (1, 19, 32, 32)
    assert moved(torch.tensor([[[0.0, 31.0]]]), outputs["frame"]).tolist() == [[[0.5, 62.5]]]


def test_a_stride_of_two_gives_maps_of_half_the_side_and_says_where_they_lie():
    with torch.inference_mode():
        outputs = model(maps=("vertebral",), side=64, neck=32, stride=2)(torch.rand(1, 1, 128, 128))
    assert outputs["vertebral"].shape == (1, 13, 32, 32)
    assert outputs["neck"].shape == (1, 13, 16, 16)
    assert moved(torch.tensor([[[0.0, 31.0]]]), outputs["frame"]).tolist() == [[[1.5, 125.5]]]


def test_weights_of_a_bundle_are_taken_and_must_fit(tmp_path):
    source = model(maps=("vertebral",), neck=32)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    uri = str(tmp_path / "weights.safetensors")
    torch.manual_seed(1)
    loaded = Cephalogram(CephalogramConfig(encoder=TINY, maps=("vertebral",), neck=32, weights=uri))
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, source.state_dict()[name])
    with pytest.raises(UsageError, match=r"weights.safetensors does not fit the model: unexpected .* other shape"):
        Cephalogram(CephalogramConfig(encoder=TINY, weights=uri))
    (tmp_path / "pickled.pt").write_bytes(b"\x80\x04.")
    with pytest.raises(UsageError, match="is not a safetensors file"):
        Cephalogram(CephalogramConfig(encoder=TINY, weights=str(tmp_path / "pickled.pt")))


def test_the_neck_is_cut_around_the_points_that_were_found():
    net = model(maps=("vertebral",), side=64, neck=32, neck_margin=0.25)
    logits = torch.full((1, 13, 64, 64), -20.0)
    places = torch.tensor([[20 + k, 30 + k] for k in range(13)])  # extent 12 pixels of the map, 24 of the image
    for k, (x, y) in enumerate(places.tolist()):
        for dx in (-1, 0, 1):
            for dy in (-1, 0, 1):
                logits[0, k, y + dy, x + dx] = 5.0 - (dx * dx + dy * dy)
    outputs = {"vertebral": logits, "frame": torch.tensor([[0.5, 0.5, 2.0]])}
    frame = net._neck(outputs, side=128)
    corners = moved(torch.tensor([[[0.0, 0.0], [31.0, 31.0]]]), frame)[0]
    assert corners.mean(0).tolist() == pytest.approx([2 * 26 + 0.5, 2 * 36 + 0.5], abs=0.05)
    assert float(frame[0, 2]) * 32 == pytest.approx(24 * 1.5, abs=0.1)
    with torch.inference_mode():
        assert net(torch.rand(2, 1, 128, 128))["neck"].shape == (2, 13, 32, 32)


def test_a_network_that_knows_nothing_still_cuts_a_square():
    net = model(maps=("vertebral",), neck=32)
    frame = net._neck({"vertebral": torch.full((1, 13, 64, 64), torch.nan), "frame": torch.tensor([[0.0, 0, 1]])}, 64)
    assert frame.isfinite().all()
    assert float(frame[0, 2]) * 32 == pytest.approx(0.15 * 64)


def test_in_training_the_neck_is_moved_by_chance():
    net = model(maps=("vertebral",), neck=32)
    image = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        still = [net(image)["neck_frame"] for _ in range(2)]
        net.train()
        shaken = [net._neck({"vertebral": torch.zeros(1, 13, 64, 64), "frame": still[0]}, 64) for _ in range(2)]
    assert torch.equal(*still)
    assert not torch.equal(*shaken)


def test_moved_back_is_the_inverse_of_moved():
    points, frame = torch.rand(2, 5, 2) * 100, torch.tensor([[3.0, -2.0, 0.5], [0.5, 0.5, 2.0]])
    assert torch.allclose(moved_back(moved(points, frame), frame), points, atol=1e-4)


def test_a_cut_takes_the_pixels_that_its_frame_names():
    image = torch.arange(64.0).view(1, 1, 8, 8)
    whole = cut_neck(image, torch.tensor([[2.0, 3.0, 1.0]]), 4)
    assert torch.allclose(whole[0, 0], image[0, 0, 3:7, 2:6], atol=1e-4)
    half = cut_neck(image, torch.tensor([[1.0, 1.0, 0.5]]), 3)
    assert half[0, 0, 0].tolist() == pytest.approx([9.0, 9.5, 10.0], abs=1e-4)
    assert cut_neck(image, torch.tensor([[-4.0, 0.0, 1.0]]), 3)[0, 0, 0, 0] == 0


def test_a_side_that_no_encoder_can_halve_is_refused():
    with pytest.raises(UsageError, match=r"a side of 80 px is not divisible by 32: give --set image.size=96"):
        model()(torch.rand(1, 1, 80, 80))


def test_an_unknown_encoder_names_the_nearest():
    with pytest.raises(UsageError, match=r"there is no encoder .resnet19.; nearest: .*resnet18"):
        Cephalogram(CephalogramConfig(encoder="resnet19"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("model.maps=['edges']", "vertebral or facial among them"),
        ("model.maps=['facial','facial']", "each once"),
        ("model.neck=64", "neck needs vertebral"),
    ],
)
def test_maps_that_make_no_sense_are_refused(settings, said):
    given = [settings] if "neck" not in settings else ["model.maps=['facial']", settings]
    with pytest.raises(UsageError, match=said):
        override(find_recipe("cephalogram"), given)


def test_both_encoders_count_as_the_encoder():
    """Stages that train only the head leave them alone."""
    net = build_model(CephalogramConfig(encoder=TINY, neck=32))
    head = {id(p) for p in net.head_parameters()}
    encoders = {id(p) for p in net.backbone.parameters()}
    assert not head & encoders
    assert head | encoders == {id(p) for p in net.parameters()}
    assert {id(p) for block in net.blocks() for p in block} == encoders


def test_dropout_leaves_out_in_training_only():
    net = model(maps=("facial",), dropout=0.5)
    image = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        still = [net(image)["facial"] for _ in range(2)]
        for module in net.modules():  # batch statistics stay as they are: only the dropout is in training
            module.training = module is net
        shaken = [net(image)["facial"] for _ in range(2)]
    assert torch.equal(*still)
    assert not torch.equal(*shaken)


class LooksRight:
    """Stands for the networks: the first is sure only of a bright spot in the right half, the second of any that it is shown."""

    def __call__(self, name, image_B1HW):
        logits = torch.zeros(len(image_B1HW), 13, *image_B1HW.shape[-2:])
        for k, image in enumerate(image_B1HW[:, 0]):
            y, x = divmod(int(image.argmax()), image.shape[-1])
            if image.max() > 0.2 and (name == "neck" or x > image.shape[-1] / 2):
                logits[k, :, y, x] = 30.0
        return logits


@pytest.mark.parametrize("neck", [0, 64])
def test_a_head_that_faces_left_is_found_in_the_mirror(neck, monkeypatch):
    net = model(maps=("vertebral",), neck=neck, mirror=True)
    monkeypatch.setattr(net, "network", LooksRight())
    images = torch.zeros(3, 1, 64, 64)
    images[0, 0, 20, 50] = images[1, 0, 30, 10] = images[2, 0, 40, 40] = 1.0
    outputs = net(images)
    name, frame = ("neck", "neck_frame") if neck else ("vertebral", "frame")
    found = moved(decode_heatmaps(outputs[name], 2.0, maps="logits").points_BK2, outputs[frame])[:, 0]
    assert torch.allclose(found, torch.tensor([[50.0, 20.0], [10.0, 30.0], [40.0, 40.0]]), atol=0.6)
    net.config = net.config.model_copy(update={"mirror": False})
    assert decode_heatmaps(net(images)["vertebral"], 2.0, maps="logits").confidence_BK[1].max() < 0.1
