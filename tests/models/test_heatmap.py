"""Points to Gaussians and back: (x, y) order, pixel centres at integers, sub-pixel places, maps without a peak."""

from __future__ import annotations

import math

import pytest
import torch

from boneage_ray.models.heatmap import decode_heatmaps, known_points, render_heatmaps

SIZES = {"256": (256, 2.0), "512": (512, 4.0), "narrow": (256, 1.0)}
EMPTY = {"zeros": 0.0, "constant": 0.3, "nan": math.nan, "infinite": math.inf}


def scattered(size, count=64, seed=0):
    """(2, count, 2): points all over the image in the first case, within 2 px of its border in the second."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(2, count, 2, generator=generator) * size - 0.5
    near = torch.rand(count, generator=generator) * 2.5 - 0.5
    points[1, :, 0] = torch.where(torch.arange(count) % 2 == 0, near, size - 1 - near)
    points[1, : count // 4, 1] = near[: count // 4]  # in the corners
    return points


def distance(decoded, points):
    return (decoded.points_BK2 - points).norm(dim=-1)


def test_a_gaussian_has_its_peak_of_1_at_x_y():
    heat = render_heatmaps(torch.tensor([[[5.0, 2.0]]]), 8, 12, sigma=2.0)
    assert heat.shape == (1, 1, 8, 12)
    assert heat.dtype == torch.float32
    assert heat[0, 0, 2, 5] == 1
    assert heat[0, 0, 2, 7] == heat[0, 0, 4, 5] == pytest.approx(math.exp(-0.5))
    assert heat[0, 0, 3, 6] == pytest.approx(math.exp(-0.25))


def test_a_peak_between_pixels_is_not_moved_to_one():
    heat = render_heatmaps(torch.tensor([[[5.25, 2.5]]]), 8, 12, sigma=1.5)
    assert heat[0, 0, 2, 5] == heat[0, 0, 3, 5] == pytest.approx(math.exp(-(0.25**2 + 0.5**2) / 2 / 1.5**2))


def test_points_without_a_label_or_outside_have_an_empty_map_and_are_not_known():
    nan = math.nan
    points = torch.tensor(
        [[[nan, nan], [3.0, nan], [-0.6, 3.0], [11.6, 3.0], [3.0, -0.6], [3.0, 7.6], [math.inf, 3.0]]]
    )
    assert not known_points(points, 8, 12).any()
    assert torch.equal(render_heatmaps(points, 8, 12, 2.0), torch.zeros(1, 7, 8, 12))
    border = torch.tensor([[[-0.5, -0.5], [11.5, 7.5]]])
    assert known_points(border, 8, 12).all()


def test_an_unknown_point_does_not_disturb_the_others():
    points = torch.tensor([[[3.0, 4.0], [math.nan, math.nan]], [[math.nan, 1.0], [6.0, 2.0]]])
    heat = render_heatmaps(points, 8, 12, 2.0)
    assert torch.equal(heat[0, 0], render_heatmaps(points[:1, :1], 8, 12, 2.0)[0, 0])
    assert torch.equal(heat[1, 1], render_heatmaps(points[1:, 1:], 8, 12, 2.0)[0, 0])


@pytest.mark.parametrize("sigma", [0.0, -1.0])
def test_a_gaussian_needs_a_width(sigma):
    with pytest.raises(ValueError, match="sigma above 0"):
        render_heatmaps(torch.zeros(1, 1, 2), 8, 8, sigma)


@pytest.mark.parametrize(("size", "sigma"), SIZES.values(), ids=SIZES)
def test_decoding_gives_back_a_rendered_point(size, sigma):
    points = scattered(size)
    decoded = decode_heatmaps(render_heatmaps(points, size, size, sigma), sigma)
    assert distance(decoded, points).max() < 0.005
    assert decoded.confidence_BK.min() > math.exp(-0.25 / sigma**2) - 1e-3  # of a peak between four pixels


def test_decoding_gives_back_a_point_of_an_image_that_is_not_square():
    points = torch.tensor([[[100.3, 20.6], [3.1, 60.2]]])
    decoded = decode_heatmaps(render_heatmaps(points, 64, 128, 2.0), 2.0)
    assert distance(decoded, points).max() < 0.005


def test_decoding_bears_bfloat16_and_autocast():
    points = scattered(128)
    heat = render_heatmaps(points, 128, 128, 2.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        decoded = decode_heatmaps(heat.bfloat16(), 2.0)
    assert distance(decoded, points).max() < 0.05
    assert decoded.points_BK2.dtype == torch.float32


def test_logits_are_decoded_whatever_their_height():
    points = scattered(256, count=16)
    target = render_heatmaps(points, 256, 256, 2.0)
    decoded = decode_heatmaps(7.0 + target.clamp_min(1e-12).log(), 2.0, maps="logits")
    assert distance(decoded, points).max() < 0.005
    assert decoded.confidence_BK.min() > 0.99


def test_logits_are_decoded_as_their_softmax():
    logits = torch.randn(2, 5, 40, 48, generator=torch.Generator().manual_seed(0)) - 3.0
    logits += 9.0 * render_heatmaps(scattered(40, count=5), 40, 48, 2.0)
    logits[0, 4], logits[1, 3], logits[1, 4] = -2.0, math.nan, math.inf
    ours, theirs = (
        decode_heatmaps(logits, 2.0, maps="logits"),
        decode_heatmaps(logits.flatten(2).softmax(-1).view(logits.shape), 2.0),
    )
    for name in ("points_BK2", "sigma_BK"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-4, atol=1e-4, equal_nan=True)
    assert (ours.confidence_BK == 0).tolist() == [[False] * 4 + [True], [False] * 3 + [True] * 2]


def test_a_flat_probability_map_gives_little_confidence():
    noise = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.1
    decoded = decode_heatmaps(noise, 2.0, maps="logits")
    assert decoded.confidence_BK.max() < 0.1
    assert decoded.points_BK2.isfinite().all()


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0, 4.0])
def test_sigma_is_the_spread_of_the_map(sigma):
    points = torch.rand(1, 32, 2, generator=torch.Generator().manual_seed(2)) * 80 + 24
    decoded = decode_heatmaps(render_heatmaps(points, 128, 128, sigma), sigma)
    torch.testing.assert_close(decoded.sigma_BK, torch.full((1, 32), sigma), rtol=0.02, atol=0)
    wider = decode_heatmaps(render_heatmaps(points, 128, 128, 1.5 * sigma), sigma)
    torch.testing.assert_close(wider.sigma_BK, torch.full((1, 32), 1.5 * sigma), rtol=0.06, atol=0)


def test_two_peaks_are_less_certain_than_one():
    one = render_heatmaps(torch.tensor([[[30.0, 30.0]]]), 64, 64, 2.0)
    two = one + 0.6 * render_heatmaps(torch.tensor([[[36.0, 30.0]]]), 64, 64, 2.0)
    near, far = decode_heatmaps(one, 2.0), decode_heatmaps(two, 2.0)
    assert far.sigma_BK > 1.3 * near.sigma_BK
    assert distance(far, torch.tensor([30.0, 30.0])).max() < 0.5  # the higher peak, not the middle of both


def test_noise_moves_a_point_little():
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(2, 32, 2, generator=generator) * 40 + 12
    heat = render_heatmaps(points, 64, 64, 2.0)
    noisy = (heat + 0.02 * torch.randn(heat.shape, generator=generator)).clamp_min(0)
    assert distance(decode_heatmaps(noisy, 2.0), points).square().mean().sqrt() < 0.04


@pytest.mark.parametrize("value", EMPTY.values(), ids=EMPTY)
def test_a_map_without_a_peak_gives_nan_and_no_confidence_and_leaves_the_others(value):
    points = torch.tensor([[[20.3, 11.8], [9.0, 9.0]]])
    heat = render_heatmaps(points, 32, 32, 2.0)
    heat[0, 1] = value
    decoded = decode_heatmaps(heat, 2.0)
    assert decoded.points_BK2[0, 1].isnan().all()
    assert decoded.sigma_BK[0, 1].isnan()
    assert decoded.confidence_BK[0, 1] == 0
    assert distance(decoded, points)[0, 0] < 0.005
    assert decoded.confidence_BK[0, 0] > 0.9


@pytest.mark.parametrize("maps", ["peak", "logits"])
def test_the_order_in_memory_does_not_matter(maps):
    heat = render_heatmaps(scattered(48, count=6), 40, 48, 2.0)
    last = torch.cat([heat, heat], dim=1).contiguous(memory_format=torch.channels_last)[:, :6]
    for found, expected in zip(
        decode_heatmaps(last, 2.0, maps=maps), decode_heatmaps(heat, 2.0, maps=maps), strict=True
    ):
        torch.testing.assert_close(found, expected, equal_nan=True)


def test_a_nan_pixel_spoils_its_map():
    heat = render_heatmaps(torch.tensor([[[20.3, 11.8]]]), 32, 32, 2.0)
    heat[0, 0, 30, 2] = math.nan
    assert decode_heatmaps(heat, 2.0).confidence_BK == 0


def test_a_plateau_has_its_middle():
    heat = torch.zeros(1, 1, 32, 32)
    heat[0, 0, 10:13, 15:18] = 0.9
    decoded = decode_heatmaps(heat, 2.0)
    assert distance(decoded, torch.tensor([16.0, 11.0])).max() < 0.05


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (2, 2), (3, 40)])
def test_the_smallest_maps_do_not_fail(height, width):
    decoded = decode_heatmaps(render_heatmaps(torch.tensor([[[0.0, 0.0]]]), height, width, 2.0), 2.0)
    assert decoded.points_BK2.shape == (1, 1, 2)
    assert decoded.confidence_BK == (0 if height * width == 1 else 1)  # a single pixel is a constant map
    assert not (distance(decoded, torch.zeros(2)) > 2.5).any()


def test_the_input_is_not_changed():
    heat = render_heatmaps(scattered(64), 64, 64, 2.0)
    before = heat.clone()
    decode_heatmaps(heat, 2.0)
    assert torch.equal(heat, before)
