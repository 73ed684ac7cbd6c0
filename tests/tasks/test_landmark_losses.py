"""Losses of heatmaps: values by hand, missing labels, extreme and bfloat16 inputs."""

from __future__ import annotations

import math

import pytest
import torch

from boneage_ray.models.heatmap import known_points, render_heatmaps
from boneage_ray.tasks.cephalogram.losses import focal_loss, map_cross_entropy, masked_mse

LOSSES = [focal_loss, map_cross_entropy, masked_mse]
KNOWN = torch.ones(1, 1, dtype=torch.bool)


def logit(p):
    return math.log(p / (1 - p))


def maps(*values):
    """One map of one row."""
    return torch.tensor(values).view(1, 1, 1, -1)


def targets():
    """Two cases of three points, two of them without a label; the third map is far from the border."""
    points = torch.tensor([[[4.2, 5.0], [math.nan, math.nan], [7.5, 8.5]], [[11.0, 2.0], [8.0, 8.0], [-40.0, 3.0]]])
    return render_heatmaps(points, 16, 16, 2.0), known_points(points, 16, 16)


def test_one_positive_of_p_one_half_costs_a_quarter():
    assert focal_loss(maps(0.0), maps(1.0), KNOWN).item() == pytest.approx(0.25)


def test_focal_loss_by_hand():
    positive = -math.log2(0.8) * 0.2**2 - math.log2(0.6) * 0.4**2
    negative = -math.log2(0.7) * 0.3**2 * (1 - 0.5) ** 4 - math.log2(0.9) * 0.1**2
    given = maps(logit(0.8), logit(0.6), logit(0.3), logit(0.1))
    found = focal_loss(given, maps(1.0, 0.95, 0.5, 0.0), KNOWN)
    assert found.item() == pytest.approx((positive + negative) / 2)


def test_a_target_of_exactly_nine_tenths_is_no_positive():
    assert focal_loss(maps(0.0), maps(0.9), KNOWN).item() == pytest.approx(0.25 * 0.1**4)


def test_cross_entropy_by_hand():
    given = maps(math.log(0.5), math.log(0.3), math.log(0.2)) + 5.0
    expected = -(0.25 * math.log(0.5) + 0.75 * math.log(0.3))
    assert map_cross_entropy(given, maps(0.2, 0.6, 0.0), KNOWN).item() == pytest.approx(expected)


def test_the_least_cross_entropy_is_that_of_the_gaussian():
    target = render_heatmaps(torch.tensor([[[31.7, 30.2]]]), 64, 64, 2.0)
    found = map_cross_entropy(target.clamp_min(1e-30).log(), target, KNOWN)
    assert found.item() == pytest.approx(1 + math.log(2 * math.pi * 4), abs=1e-3)


def test_squared_error_by_hand():
    assert masked_mse(maps(1.0, 2.0), maps(0.0, 4.0), KNOWN).item() == pytest.approx(2.5)


@pytest.mark.parametrize("loss", LOSSES)
def test_maps_without_a_label_do_not_count(loss):
    target, known = targets()
    assert known.tolist() == [[True, False, True], [True, True, False]]
    given = torch.randn(target.shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    other = given.detach().clone()
    other[~known], target[~known] = 50.0, math.nan
    value = loss(given, target, known)
    torch.testing.assert_close(loss(other, target, known), value.detach())
    value.backward()
    assert torch.equal(given.grad.flatten(2).abs().amax(-1) > 0, known)


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_known_costs_nothing_and_has_a_gradient_of_0(loss):
    given = torch.randn(2, 3, 4, 4, requires_grad=True)
    value = loss(given, torch.full((2, 3, 4, 4), math.nan), torch.zeros(2, 3, dtype=torch.bool))
    value.backward()
    assert value.item() == 0
    assert torch.equal(given.grad, torch.zeros_like(given))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_certainty_stays_finite(loss, extreme):
    target, known = targets()
    given = torch.full_like(target, extreme).requires_grad_()
    value = loss(given, target, known)
    value.backward()
    assert value.isfinite()
    assert given.grad.isfinite().all()


def test_a_point_missed_with_certainty_still_pulls():
    given = torch.tensor([[[[-200.0]]]], requires_grad=True)
    value = focal_loss(given, maps(1.0), KNOWN)
    value.backward()
    assert value.item() == pytest.approx(200 / math.log(2))
    assert given.grad.item() == pytest.approx(-1 / math.log(2))


@pytest.mark.parametrize("loss", LOSSES)
def test_bfloat16_is_computed_in_float32(loss):
    target, known = targets()
    given = torch.randn(target.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(given, target, known)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(given.float(), target, known))


def test_a_known_map_without_a_target_adds_nothing_to_the_cross_entropy():
    assert map_cross_entropy(maps(1.0, 2.0), maps(0.0, 0.0), KNOWN) == 0
