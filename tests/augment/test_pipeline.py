"""One draw for image, mask and points; (x, y) order; pixel centres at integers."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from boneage_ray.augment.config import AugmentConfig
from boneage_ray.augment.pipeline import Augment

HEIGHT, WIDTH, CASES = 96, 128, 8
DOTS = torch.tensor([[40.0, 30.0], [75.0, 60.0], [60.0, 45.0]])
CHANGES = {
    "flip": {"flip": 1.0},
    "rotation": {"rotation_deg": 30},
    "zoom": {"zoom": 0.2},
    "shift": {"shift": 0.1},
    "all": {"flip": 0.5, "rotation_deg": 20, "zoom": 0.1, "shift": 0.05},
    "turned at times": {"rotation_deg": 20, "rotation_p": 0.5, "zoom": 0.1},
    "crop": {"crop_right": 0.5, "crop_right_min": 0.7},
    "flip last": {"flip_last": 0.5},
    "blur": {"blur": 0.5, "blur_sigma": 1.0},
    "a head": {
        **{"rotation_deg": 10, "rotation_p": 0.5, "zoom": 0.1, "shift": 0.05, "blur": 0.1},
        **{"crop_right": 0.5, "crop_right_min": 0.8, "flip_last": 0.5},
    },
}


def grid():
    return torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")


def drawn(point, radius=None):
    """(CASES, 1, HEIGHT, WIDTH): a soft dot at a point, or a disc of 0 and 1."""
    rows, columns = grid()
    squared = (columns - point[0]) ** 2 + (rows - point[1]) ** 2
    image = torch.exp(-squared / 8) if radius is None else (squared <= radius**2).float()
    return image.expand(CASES, 1, HEIGHT, WIDTH).clone()


def centre(image):
    """(x, y) of the brightness of (HEIGHT, WIDTH)."""
    rows, columns = grid()
    return torch.stack([(image * columns).sum(), (image * rows).sum()]) / image.sum()


def augmented(settings, seed, image, mask=None):
    torch.manual_seed(seed)
    points = DOTS.expand(CASES, -1, -1).clone()
    return Augment(AugmentConfig(**settings))(image, mask, points)


@pytest.mark.parametrize("settings", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("k", range(len(DOTS)))
def test_a_dot_stays_under_its_keypoint(settings, k):
    out = augmented(settings, k, drawn(DOTS[k]))
    for image, points in zip(out.image_B1HW, out.points_BK2, strict=True):
        assert torch.dist(centre(image[0]), points[k]) < 0.2


@pytest.mark.parametrize("settings", CHANGES.values(), ids=CHANGES)
def test_a_mask_moves_with_its_image_and_stays_binary(settings):
    disc = drawn(DOTS[2], radius=14)
    out = augmented(settings, 5, disc.clone(), disc)
    assert set(out.mask_B1HW.unique().tolist()) == {0.0, 1.0}
    both = (out.mask_B1HW * (out.image_B1HW > 0.5)).sum(dim=(1, 2, 3))
    either = ((out.mask_B1HW + (out.image_B1HW > 0.5)) > 0).float().sum(dim=(1, 2, 3))
    # Nearest neighbour moves an edge by at most half a pixel: of a disc of radius 14, less than 2 % of the area.
    assert (both / either).min() > 0.96
    assert (both / either).mean() > 0.98


def test_a_flip_sends_x_to_width_minus_1_minus_x():
    image = torch.rand(2, 1, HEIGHT, WIDTH)
    points = torch.tensor([[[0.0, 10.0], [127.0, 20.0]], [[30.5, 0.0], [64.0, 95.0]]])
    out = Augment(AugmentConfig(flip=1.0))(image, None, points)
    assert torch.equal(out.image_B1HW, image.flip(-1))
    assert out.points_BK2.tolist() == [[[127.0, 10.0], [0.0, 20.0]], [[96.5, 0.0], [63.0, 95.0]]]


def test_nothing_is_flipped_upside_down():
    rows, _ = grid()
    ramp = (rows / HEIGHT).expand(CASES, 1, HEIGHT, WIDTH).clone()
    out = augmented({"flip": 1.0}, 0, ramp)
    assert torch.equal(out.image_B1HW, ramp)


def test_each_case_has_a_draw_of_its_own():
    out = augmented(CHANGES["all"], 0, drawn(DOTS[0]))
    assert len({tuple(p.flatten().tolist()) for p in out.points_BK2}) == CASES


def test_the_same_seed_draws_the_same():
    image = torch.rand(CASES, 1, HEIGHT, WIDTH)
    settings = {**CHANGES["all"], "brightness": 0.2, "contrast": 0.2}
    first, again, other = (augmented(settings, seed, image.clone()).image_B1HW for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_draws_stay_in_their_ranges():
    out = augmented({"shift": 0.1}, 3, drawn(DOTS[0]))
    moved = out.points_BK2 - DOTS
    assert moved[..., 0].abs().max() <= 0.1 * WIDTH
    assert moved[..., 1].abs().max() <= 0.1 * HEIGHT
    out = augmented({"rotation_deg": 30, "zoom": 0.2}, 3, drawn(DOTS[0]))
    edges = out.points_BK2[:, 1] - out.points_BK2[:, 0]
    original = DOTS[1] - DOTS[0]
    scale = edges.norm(dim=1) / original.norm()
    assert 0.8 <= scale.min() < scale.max() <= 1.2
    turn = torch.rad2deg(torch.atan2(edges[:, 1], edges[:, 0]) - torch.atan2(original[1], original[0]))
    assert turn.abs().max() <= 30


def test_brightness_and_contrast_move_no_point_and_keep_the_range():
    image = torch.rand(CASES, 1, HEIGHT, WIDTH)
    out = augmented({"brightness": 0.3, "contrast": 0.3}, 0, image.clone())
    assert torch.equal(out.points_BK2, DOTS.expand(CASES, -1, -1))
    assert 0 <= out.image_B1HW.min() < out.image_B1HW.max() <= 1
    assert not torch.equal(out.image_B1HW, image)


def test_without_steps_everything_passes_through():
    image = torch.rand(2, 1, 8, 8)
    out = Augment(AugmentConfig())(image)
    assert out.image_B1HW is image
    assert (out.mask_B1HW, out.points_BK2) == (None, None)


def test_what_was_not_given_does_not_come_back():
    out = Augment(AugmentConfig(flip=1.0, rotation_deg=5))(torch.rand(2, 1, 16, 16))
    assert out.image_B1HW.shape == (2, 1, 16, 16)
    assert (out.mask_B1HW, out.points_BK2) == (None, None)


def test_augmentation_keeps_no_gradient():
    image = torch.rand(2, 1, 16, 16, requires_grad=True)
    assert not Augment(AugmentConfig(rotation_deg=5))(image).image_B1HW.requires_grad


@pytest.mark.parametrize("wrong", [{"flip": 1.5}, {"zoom": 1.0}, {"shift": -0.1}, {"rotation": 5}])
def test_ranges_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        AugmentConfig(**wrong)
