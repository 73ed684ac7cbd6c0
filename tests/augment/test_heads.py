"""The steps for cephalograms: points without a label, the crop of the face's side, rotation at times, gain, mirrored heads."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from boneage_ray.anatomy import cephalometry
from boneage_ray.augment.config import AugmentConfig
from boneage_ray.augment.pipeline import Augment

HEIGHT, WIDTH, CASES = 48, 64, 400
HEAD = {
    **{"rotation_deg": 10, "rotation_p": 0.5, "zoom": 0.1, "shift": 0.05, "blur": 0.1, "crop_right": 0.5},
    **{"brightness": 0.1, "contrast": 0.1, "gain": 0.2, "flip_last": 0.5},
}


def run(settings, image=None, points=None, seed=0):
    torch.manual_seed(seed)
    image = torch.rand(CASES, 1, HEIGHT, WIDTH) if image is None else image
    return Augment(AugmentConfig(**settings))(image, None, points)


def share(changed_B):
    return changed_B.float().mean().item()


def test_a_point_without_a_label_stays_so_and_disturbs_no_other():
    points = torch.rand(CASES, 5, 2) * 30 + 5
    with_nan = points.clone()
    with_nan[::2, 3] = math.nan
    image = torch.rand(CASES, 1, HEIGHT, WIDTH)
    all_known, some = (run(HEAD, image.clone(), given.clone()).points_BK2 for given in (points, with_nan))
    assert some[::2, 3].isnan().all()
    some[::2, 3] = all_known[::2, 3]
    assert torch.equal(some.nan_to_num(-99), all_known.nan_to_num(-99))


def test_a_batch_without_any_label_passes():
    out = run(HEAD, points=torch.full((CASES, 5, 2), math.nan))
    assert out.points_BK2.isnan().all()
    assert out.image_B1HW.isfinite().all()


def test_the_callers_points_and_image_are_not_changed():
    image, points = torch.rand(CASES, 1, HEIGHT, WIDTH), torch.rand(CASES, 5, 2) * 60
    before = image.clone(), points.clone()
    run(HEAD, image, points)
    assert torch.equal(image, before[0])
    assert torch.equal(points, before[1])


def test_a_rotation_has_a_probability_of_its_own():
    points = torch.tensor([[10.0, 24.0], [50.0, 24.0]]).expand(CASES, 2, 2).clone()
    turned = run({"rotation_deg": 10, "rotation_p": 0.3, "zoom": 0.1}, points=points).points_BK2
    rise = turned[:, 1, 1] - turned[:, 0, 1]
    assert 0.22 < share(rise.abs() > 1e-3) < 0.38
    assert share(rise > 1e-3) == pytest.approx(share(rise < -1e-3), abs=0.08)  # to both sides
    assert share((turned[:, 1, 0] - turned[:, 0, 0] - 40).abs() > 1e-3) > 0.98  # zoomed all the same


def test_no_rotation_at_all_is_no_step():
    assert Augment(AugmentConfig(rotation_deg=10, rotation_p=0.0)).pipeline is None


def test_a_crop_keeps_the_left_side_at_its_scale_in_the_middle():
    image = (torch.arange(WIDTH) + 1.0).div(WIDTH).expand(CASES, 1, HEIGHT, WIDTH).clone()
    out = run({"crop_right": 1.0, "crop_right_min": 0.6}, image).image_B1HW[:, 0, 0]
    kept = (out > 0).sum(-1)
    assert 0.6 * WIDTH - 1 <= kept.min() < 0.65 * WIDTH
    assert 0.95 * WIDTH < kept.max() <= WIDTH
    for row, count in zip(out, kept, strict=True):
        left = (WIDTH - int(count)) // 2
        assert torch.equal(row[left : left + count], image[0, 0, 0, :count])
        assert row[:left].sum() + row[left + count :].sum() == 0


def test_a_crop_comes_with_its_probability():
    out = run({"crop_right": 0.5}, torch.ones(CASES, 1, HEIGHT, WIDTH)).image_B1HW
    assert 0.4 < share((out == 0).flatten(1).any(1)) < 0.6


def test_points_that_were_cut_off_become_unknown_and_the_others_move_by_whole_pixels():
    points = (
        torch.stack([torch.linspace(0, WIDTH - 1, 64), torch.full((64,), 7.25)], dim=-1).expand(CASES, 64, 2).clone()
    )
    out = run({"crop_right": 1.0}, torch.ones(CASES, 1, HEIGHT, WIDTH), points)
    for row, moved in zip(out.image_B1HW[:, 0, 0], out.points_BK2, strict=True):
        count = int(row.sum())
        assert (~moved[:, 0].isnan()).sum() == count
        assert moved[:count, 0].tolist() == [k + (WIDTH - count) // 2 for k in range(count)]
        assert (moved[:count, 1] == 7.25).all()
        assert moved[count:].isnan().all()


def test_a_mask_is_cropped_like_its_image():
    image = torch.ones(CASES, 1, HEIGHT, WIDTH)
    torch.manual_seed(0)
    out = Augment(AugmentConfig(crop_right=0.5, flip_last=0.5))(image, image.clone())
    assert torch.equal(out.image_B1HW, out.mask_B1HW)


def test_gain_multiplies_in_its_range_with_its_probability():
    out = run({"gain": 0.2}, torch.full((CASES, 1, HEIGHT, WIDTH), 0.5)).image_B1HW[:, 0, 0, 0] / 0.5
    assert 0.14 < share(out != 1) < 0.26
    assert 0.8 <= out.min() < 0.9
    assert 1.3 < out.max() <= 1.5


def test_the_published_blur_hardly_changes_a_pixel_and_a_wider_one_does():
    image = torch.rand(CASES, 1, HEIGHT, WIDTH)
    narrow, wide = (run({"blur": 1.0, "blur_sigma": s}, image.clone()).image_B1HW - image for s in (0.2, 1.0))
    assert narrow.abs().max() < 1e-4
    assert wide.abs().mean() > 0.1


def test_a_crop_cuts_the_face_of_a_mirrored_head_too():
    """The head faces right when it is cropped, so that its spine is kept, mirrored or not."""
    image = torch.zeros(CASES, 1, HEIGHT, WIDTH)
    image[..., 10] = 1.0
    out = run({"crop_right": 1.0, "flip_last": 0.5}, image)
    assert (out.image_B1HW.sum((1, 2, 3)) == HEIGHT).all()


def test_a_mirrored_head_keeps_the_order_of_its_points():
    """Names say posterior and anterior, never left and right: mirrored, a corner is the same corner of the same vertebra."""
    names = " ".join((*cephalometry.VERTEBRAL, *cephalometry.FACIAL)).lower().replace("_", " ").split()
    assert not {"left", "right"} & set(names)
    points = torch.rand(2, 13, 2) * 40
    out = run({"flip_last": 1.0}, torch.rand(2, 1, HEIGHT, WIDTH), points)
    torch.testing.assert_close(out.points_BK2, torch.stack([WIDTH - 1 - points[..., 0], points[..., 1]], dim=-1))


def test_new_switches_that_are_off_draw_nothing():
    settings = {"flip": 0.5, "rotation_deg": 20, "zoom": 0.1, "shift": 0.05, "brightness": 0.2, "contrast": 0.2}
    off = {"rotation_p": 1.0, "blur": 0, "crop_right": 0, "gain": 0, "flip_last": 0}
    image = torch.rand(8, 1, HEIGHT, WIDTH)
    assert torch.equal(run(settings, image.clone()).image_B1HW, run(settings | off, image.clone()).image_B1HW)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"blur": 0.1, "blur_sigma": 0}, "blur_sigma above 0"),
        ({"crop_right": 0.5, "crop_right_min": 0}, "crop_right_min above 0"),
        ({"gain": 0.2, "gain_min": 1.6}, "gain_min <= gain_max"),
        ({"flip": 0.5, "flip_last": 0.5}, "give one of them"),
    ],
)
def test_switches_that_contradict_each_other_are_refused(wrong, said):
    with pytest.raises(ValidationError, match=said):
        AugmentConfig(**wrong)


def test_everything_may_be_switched_off_with_0():
    assert Augment(AugmentConfig(**dict.fromkeys(AugmentConfig.model_fields, 0.0))).pipeline is None
