"""Losses by hand-worked values; cases without a label do not count."""

from __future__ import annotations

import math

import pytest
import torch

from boneage_ray.tasks.age.losses import absolute_error, cross_entropy, huber

PREDICTED = torch.tensor([1.0, 4.0, 10.0], requires_grad=True)
TRUE = torch.tensor([2.0, float("nan"), 7.0])
NONE = torch.full((3,), float("nan"))


def test_absolute_error_is_the_mean_over_labelled_cases():
    assert absolute_error(PREDICTED, TRUE).item() == 2.0


def test_huber_is_quadratic_up_to_delta_and_linear_beyond():
    # |1| <= 2: 0.5 * 1; |3| > 2: 2 * (3 - 1).
    assert huber(PREDICTED, TRUE, 2.0).item() == pytest.approx((0.5 + 4.0) / 2)


def test_cross_entropy_is_the_mean_over_known_classes():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.2, 0.2, 0.6]]))
    assert cross_entropy(logits, torch.tensor([0, -1, 2])).item() == pytest.approx(-(math.log(0.5) + math.log(0.6)) / 2)


@pytest.mark.parametrize(
    "loss",
    [
        lambda p: absolute_error(p, NONE),
        lambda p: huber(p, NONE, 1.0),
        lambda p: cross_entropy(p[None, :], torch.tensor([-1])),
    ],
    ids=["absolute", "huber", "cross-entropy"],
)
def test_without_a_label_the_loss_is_zero_and_can_be_differentiated(loss):
    predicted = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    value = loss(predicted)
    value.backward()
    assert value.item() == 0.0
    assert predicted.grad.tolist() == [0.0, 0.0, 0.0]


def test_an_unlabelled_case_has_no_gradient():
    predicted = torch.tensor([1.0, 4.0, 10.0], requires_grad=True)
    absolute_error(predicted, TRUE).backward()
    assert predicted.grad.tolist() == [-0.5, 0.0, 0.5]
