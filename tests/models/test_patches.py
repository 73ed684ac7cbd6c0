"""Patches: where they lie, which are drawn, and that putting them together changes nothing."""

from __future__ import annotations

import pytest
import torch

from boneage_ray.models import patches


@pytest.mark.parametrize(
    ("length", "patch", "stride", "expected"),
    [
        (256, 256, 128, [0]),
        (512, 256, 128, [0, 128, 256]),
        (600, 256, 128, [0, 128, 256, 344]),
        (100, 32, 32, [0, 32, 64, 68]),
    ],
)
def test_patches_lie_on_a_grid_and_the_last_is_flush_with_the_end(length, patch, stride, expected):
    assert patches.starts(length, patch, stride) == expected


def test_places_are_rows_and_columns():
    assert patches.places((64, 96), 64, 32).tolist() == [[0, 0], [0, 32]]


def test_a_patch_is_cut_where_it_lies():
    image = torch.arange(2 * 8 * 10).reshape(2, 1, 8, 10)
    made = patches.cut_patches(image, torch.tensor([[[0, 0], [4, 6]], [[2, 1], [2, 1]]]), 4)
    assert made.shape == (4, 1, 4, 4)
    assert torch.equal(made[1, 0], image[0, 0, 4:8, 6:10])
    assert torch.equal(made[2, 0], image[1, 0, 2:6, 1:5])


def test_weights_are_positive_smooth_and_symmetric():
    weight = patches.patch_weights(64)
    assert weight.min() > 0
    assert weight.max() == pytest.approx(1.0, abs=2e-3)
    assert torch.allclose(weight, weight.flip(0))
    assert torch.allclose(weight, weight.T)
    assert (weight[1:] - weight[:-1]).abs().max() < 0.06


@pytest.mark.parametrize("size", [(100, 70), (64, 64), (65, 200), (20, 90)])
def test_a_network_that_looks_at_each_pixel_alone_is_given_back(size):
    image = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0))
    made = patches.stitched(lambda x: 3 * x - 1, image, patch=64, stride=24)
    assert made.shape == image.shape
    assert torch.allclose(made, 3 * image - 1, atol=1e-5)


def test_a_constant_network_gives_a_constant():
    made = patches.stitched(lambda x: torch.full_like(x, 0.7), torch.rand(1, 1, 150, 90), patch=64, stride=40)
    assert torch.allclose(made, torch.full_like(made, 0.7), atol=1e-6)


def test_half_of_the_draws_have_a_hand_where_few_places_do():
    torch.manual_seed(0)
    mask = torch.zeros(2, 1, 256, 256)
    mask[:, :, 0:20, 0:20] = 1  # of 64 places, only the first
    spots = patches.draw_places(mask, 32, 32, 400, 0.5)
    assert spots.shape == (2, 400, 2)
    with_hand = (spots == 0).all(2).float().mean(1)
    assert torch.all((with_hand > 0.42) & (with_hand < 0.58))


@pytest.mark.parametrize("value", [0, 1, 255])
def test_where_all_places_are_alike_all_are_drawn(value):
    torch.manual_seed(0)
    for foreground in (0.0, 0.5, 1.0):
        spots = patches.draw_places(torch.full((1, 1, 96, 96), value), 32, 32, 300, foreground)
        assert len(spots[0].unique(dim=0)) == 9
