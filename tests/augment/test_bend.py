"""Elastic change, gamma and erasing: points go where their pixels go, masks stay masks."""

from __future__ import annotations

import pytest
import torch

from boneage_ray.augment.config import AugmentConfig
from boneage_ray.augment.pipeline import Augment
from boneage_ray.models.heatmap import decode_heatmaps, render_heatmaps

pytestmark = pytest.mark.usefixtures("one_thread")
POINTS = torch.tensor([[[40.3, 60.7]], [[64.0, 64.0]], [[90.2, 33.3]]])


def test_points_go_where_the_picture_is_bent_to():
    torch.manual_seed(0)
    picture = render_heatmaps(POINTS, 128, 128, 2.0)
    out = Augment(AugmentConfig(bend=0.03))(picture, points_BK2=POINTS)
    seen = decode_heatmaps(out.image_B1HW, 2.0).points_BK2
    assert (out.points_BK2 - POINTS).abs().max() > 1.0
    assert torch.allclose(seen, out.points_BK2, atol=0.15)


def test_a_mask_is_bent_like_its_image_and_stays_a_mask():
    torch.manual_seed(1)
    picture = (render_heatmaps(POINTS, 128, 128, 8.0) > 0.5).float()
    out = Augment(AugmentConfig(bend=0.03))(picture, picture.clone())
    assert out.mask_B1HW.unique().tolist() == [0.0, 1.0]
    assert (out.mask_B1HW - (out.image_B1HW > 0.5).float()).abs().mean() < 0.002


def test_an_unknown_point_stays_unknown_and_the_others_are_unaffected():
    points = torch.full((3, 2, 2), torch.nan)
    points[:, :1] = POINTS
    out = Augment(AugmentConfig(bend=0.02))(torch.rand(3, 1, 128, 128), points_BK2=points)
    assert out.points_BK2[:, 0].isfinite().all()
    assert out.points_BK2[:, 1].isnan().all()


def test_no_field_folds_over_itself():
    """Neighbours keep their order also at the largest displacements."""
    torch.manual_seed(0)
    ramp = torch.linspace(0.2, 0.8, 128).expand(64, 1, 128, 128)
    out = Augment(AugmentConfig(bend=0.05))(ramp).image_B1HW[:, 0, 20:-20, 20:-20]
    assert (out.diff(dim=-1) > 0).all()


def test_gamma_is_a_power_of_the_gray_values():
    torch.manual_seed(0)
    picture = torch.full((16, 1, 8, 8), 0.5)
    out = Augment(AugmentConfig(gamma=0.4))(picture).image_B1HW[:, 0, 0, 0]
    powers = out.log() / torch.tensor(0.5).log()
    assert 0.6 <= powers.min() < 0.8
    assert 1.2 < powers.max() <= 1.4


def test_a_part_is_erased_and_points_stay():
    torch.manual_seed(0)
    picture = torch.full((3, 1, 128, 128), 0.5)
    out = Augment(AugmentConfig(erase=1.0))(picture, points_BK2=POINTS)
    gone = (out.image_B1HW == 0).float().mean((1, 2, 3))
    assert ((gone > 0.01) & (gone < 0.17)).all()
    assert torch.equal(out.points_BK2, POINTS)
