"""Losses and figures of masks, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from boneage_ray.datasets.batch import NO_MASK, Batch
from boneage_ray.tasks.build import build_task
from boneage_ray.tasks.mask.config import MaskTaskConfig
from boneage_ray.tasks.mask.task import MaskTask, overlap

TASK = build_task(MaskTaskConfig())


def batch(mask):
    cases = 1 if mask is None else len(mask)
    return Batch(torch.zeros(cases, 1, 2, 2), torch.zeros(cases), torch.zeros(cases), mask_B1HW=mask)


def drawn(*rows):
    return torch.tensor(rows, dtype=torch.uint8).reshape(-1, 1, 2, 2)


def test_the_losses_by_hand():
    assert isinstance(TASK, MaskTask)
    logits = torch.tensor([0.0, 0.0, 40.0, -40.0]).reshape(1, 1, 2, 2)  # chances 1/2, 1/2, 1, 0
    losses = TASK.losses({"mask": logits}, batch(drawn([1, 0, 1, 0])))
    assert losses["dice"].item() == pytest.approx(1 - (2 * 1.5 + 1) / (2 + 2 + 1))
    assert losses["bce"].item() == pytest.approx(2 * math.log(2) / 4)


def test_weights_scale_the_losses():
    outputs, given = {"mask": torch.zeros(1, 1, 2, 2)}, batch(drawn([1, 0, 1, 0]))
    plain = TASK.losses(outputs, given)
    scaled = build_task(MaskTaskConfig(dice_weight=0.5, bce_weight=3.0)).losses(outputs, given)
    assert scaled["dice"] == 0.5 * plain["dice"]
    assert scaled["bce"] == 3.0 * plain["bce"]


def test_a_case_without_a_mask_does_not_count():
    logits = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    whole = TASK.losses({"mask": logits}, batch(drawn([1, 0, 0, 1], [NO_MASK] * 4)))
    alone = TASK.losses({"mask": logits[:1]}, batch(drawn([1, 0, 0, 1])))
    assert {k: v.item() for k, v in whole.items()} == {k: pytest.approx(v.item()) for k, v in alone.items()}


@pytest.mark.parametrize("mask", [None, drawn([NO_MASK] * 4)])
def test_nothing_known_is_no_loss_but_has_a_gradient(mask):
    logits = torch.ones(1, 1, 2, 2, requires_grad=True)
    losses = TASK.losses({"mask": logits}, batch(mask))
    assert all(value == 0 for value in losses.values())
    sum(losses.values()).backward()
    assert logits.grad.abs().sum() == 0


def test_a_prediction_is_a_picture_of_0_and_1():
    (mask,) = TASK.predict({"mask": torch.tensor([[-1.0, 2.0], [0.0, 0.1]]).reshape(1, 1, 2, 2)})["mask"]
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[0, 1], [0, 1]]


def test_figures_are_of_each_image_and_then_their_mean_and_least():
    predicted = {"mask": [np.array([[1, 1], [0, 0]]), np.array([[1, 0], [0, 0]]), np.array([[1, 1], [1, 1]])]}
    truth = TASK.truth(batch(drawn([1, 1, 0, 0], [1, 1, 0, 1], [NO_MASK] * 4)))
    assert truth["mask"][2] is None
    kept = TASK.summarise(predicted, truth)
    assert kept == ({"overlap": [(1.0, 1.0), (0.5, pytest.approx(1 / 3))]}, {})
    found = TASK.metrics(*kept)
    assert found == pytest.approx({"dice_mean": 0.75, "dice_min": 0.5, "iou_mean": 2 / 3, "iou_min": 1 / 3})


def test_without_any_mask_the_figures_are_unknown():
    found = TASK.metrics(*TASK.summarise({"mask": [np.zeros((2, 2))]}, TASK.truth(batch(None))))
    assert TASK.metrics({}, {}).keys() == found.keys()  # a split without any record
    assert set(found) == {"dice_mean", "dice_min", "iou_mean", "iou_min"}
    assert all(math.isnan(value) for value in found.values())


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [([1, 1, 0], [0, 1, 1], (0.5, 1 / 3)), ([0, 0], [0, 0], (1.0, 1.0)), ([1, 0], [0, 1], (0.0, 0.0))],
)
def test_overlap(one, other, expected):
    assert overlap(np.array(one), np.array(other)) == pytest.approx(expected)
