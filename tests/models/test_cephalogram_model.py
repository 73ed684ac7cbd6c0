"""The U-Net for cephalograms: named maps, frames, and the second look at the neck."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from boneage_ray.errors import UsageError
from boneage_ray.models.cephalogram import Cephalogram
from boneage_ray.models.config import CephalogramConfig
from boneage_ray.models.frames import cut, moved, moved_back, surroundings, turned_back
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
    whole = cut(image, torch.tensor([[[2.0, 3.0, 1.0]]]), 4)
    assert torch.allclose(whole[0, 0], image[0, 0, 3:7, 2:6], atol=1e-4)
    half = cut(image, torch.tensor([[[1.0, 1.0, 0.5]]]), 3)
    assert half[0, 0, 0].tolist() == pytest.approx([9.0, 9.5, 10.0], abs=1e-4)
    assert cut(image, torch.tensor([[[-4.0, 0.0, 1.0]]]), 3)[0, 0, 0, 0] == 0


def test_surroundings_show_one_middle_three_times_as_wide_as_deep():
    """Of a ramp each channel has the middle's value, and twice and four times the step."""
    image = torch.arange(128.0).expand(1, 1, 128, 128)
    middles = torch.tensor([[[60.0, 60.0], [40.25, 70.0]]])
    frame = torch.cat([middles - 2.0 * 7 / 2, torch.full((1, 2, 1), 2.0)], -1)  # 8 pixels, each two of the image
    shown = surroundings(image, frame, 8, 64)
    assert shown.shape == (1, 2, 3, 8, 8)
    for square, (x, _) in zip(shown[0], middles[0].tolist(), strict=True):
        for channel, factor in zip(square, (1, 2, 4), strict=True):
            assert float(channel.mean()) == pytest.approx(x, abs=0.02)
            assert float(channel[3, 5] - channel[3, 4]) == pytest.approx(2 * factor, abs=0.02)


def detailed(**settings):
    return model(maps=("facial",), side=64, detail=32, detail_side=64, detail_points=5, stride=2, **settings)


def test_each_facial_point_is_looked_at_again_where_it_was_found():
    net = detailed()
    with torch.inference_mode():
        outputs = net(torch.rand(2, 1, 128, 128))
    assert outputs["detail"].shape == (2, 19, 16, 16)
    found = moved(decode_heatmaps(outputs["facial"], 2.0, maps="logits").points_BK2, outputs["frame"])
    middles = moved(torch.full((2, 19, 2), 7.5), outputs["detail_frame"])
    assert torch.allclose(middles, found, atol=1e-3)
    # A pixel of the map is two of the square's, each of them two of the image.
    assert torch.equal(outputs["detail_frame"][..., 2], torch.full((2, 19), 4.0))


def test_each_square_gives_the_map_of_its_own_point(monkeypatch):
    net = detailed()

    def network(name, image):
        kinds = torch.arange(19.0).view(1, 19, 1, 1)
        return image.new_zeros(len(image), 19, 32, 32) if name == "whole" else kinds.expand(len(image), -1, 16, 16)

    monkeypatch.setattr(net, "network", network)
    assert torch.equal(net(torch.rand(2, 1, 128, 128))["detail"][:, :, 0, 0], torch.arange(19.0).expand(2, -1))


def test_in_training_some_labelled_points_are_looked_at_off_their_middles():
    net = detailed().train()
    points = 30 + 60 * torch.rand(2, 32, 2)
    points[0, 13 + 3 :] = torch.nan  # three facial points of the first head
    outputs = net(torch.rand(2, 1, 128, 128), None, points)
    inside = moved_back(points[:, 13:], outputs["detail_frame"])
    known = inside.isfinite().all(-1)
    assert known.sum(1).tolist() == [3, 5]
    assert outputs["detail_frame"].isfinite().all(-1)[1].sum() == 5
    off = (inside[known] - 7.5) / 16  # of the square
    assert 0 < off.abs().max() < 0.3
    assert outputs["detail"][1][~known[1]].abs().max() == 0


@pytest.mark.parametrize("encoder", [TINY, "resnet18", "tu-tf_efficientnet_lite0"])
def test_the_small_network_has_no_weight_that_no_map_hangs_on(encoder):
    """For DDP would wait for its gradient."""
    torch.manual_seed(0)
    net = Cephalogram(CephalogramConfig(encoder=encoder, maps=("facial",), detail=32, detail_side=64))
    net(torch.rand(2, 1, 64, 64), None, torch.rand(2, 32, 2) * 64)["detail"].sum().backward()
    of_detail = [p for part in (net.backbone, net.decoders, net.heads) for p in part[1].parameters()]
    assert of_detail
    assert all(p.grad is not None for p in of_detail)
    whole, detail = (sum(p.numel() for p in encoder.parameters()) for encoder in net.backbone)
    assert detail < 0.5 * whole


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
        ("model.detail=64", "detail needs facial"),
    ],
)
def test_maps_that_make_no_sense_are_refused(settings, said):
    other = {"model.neck=64": ["model.maps=['facial']"], "model.detail=64": ["model.maps=['vertebral']"]}
    given = [*other.get(settings, []), settings]
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


def test_frames_of_a_mirror_image_are_turned_back():
    """A point at the left of a square is at its right in the mirror, and the square on the other side of the image."""
    frame = torch.tensor([[[10.0, 20.0, 2.0]]])
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, 3, 1] = 1.0
    turned = turned_back({"detail": maps, "detail_frame": frame}, 100)
    assert turned["detail"][0, 0].nonzero().tolist() == [[3, 6]]
    before, after = (
        moved(torch.tensor([[[1.0, 3.0]]]), frame),
        moved(torch.tensor([[[6.0, 3.0]]]), turned["detail_frame"]),
    )
    assert after[0, 0].tolist() == [99 - before[0, 0, 0].item(), before[0, 0, 1].item()]
