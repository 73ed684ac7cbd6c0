"""The picture of augmented images."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from boneage_ray.augment.config import AugmentConfig
from boneage_ray.augment.pipeline import Augment
from boneage_ray.datasets.batch import Batch
from boneage_ray.training.gallery import DRAWS, TILE, augmentation_gallery


def batch(points=None, mask=None):
    images = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    images[:, :, :, :32] = 200  # the left half is bright
    return Batch(images, torch.zeros(2), torch.zeros(2), ("a", "b"), mask, points)


def tiles(png):
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == (2 * TILE, (1 + DRAWS) * TILE, 3)
    return pixels.reshape(2, TILE, 1 + DRAWS, TILE, 3).transpose(0, 2, 1, 3, 4)


def test_the_first_column_is_the_image_and_the_others_are_draws(one_thread):
    shown = tiles(augmentation_gallery(Augment(AugmentConfig(flip=1.0)), batch(), seed=0))
    left, right = shown[..., 20, 20, 0], shown[..., 20, -20, 0]
    assert left.tolist() == [[200, *[0] * DRAWS]] * 2
    assert right.tolist() == [[0, *[200] * DRAWS]] * 2


def test_points_and_mask_edges_are_drawn_where_the_draw_puts_them(one_thread):
    points = torch.full((2, 32, 2), torch.nan)
    points[:, 0] = torch.tensor([10.0, 20.0])
    shown = tiles(augmentation_gallery(Augment(AugmentConfig(flip=1.0)), batch(points), seed=0))
    yellow = (shown[..., 2] > 180) & (shown[..., 0] < 120)
    centres = [[np.argwhere(tile).mean(0)[::-1] for tile in row] for row in yellow]
    factor = TILE / 64
    for row in centres:
        assert np.allclose(row[0], (np.array([10, 20]) + 0.5) * factor - 0.5, atol=1)
        assert np.allclose(row[1], (np.array([53, 20]) + 0.5) * factor - 0.5, atol=1)
    mask = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    mask[:, :, 16:48, 40:60] = 1
    shown = tiles(augmentation_gallery(Augment(AugmentConfig(flip=1.0)), batch(mask=mask), seed=0))
    assert shown[0, 0, TILE // 2, round(40 * factor)].tolist() == [0, 230, 255]
    assert shown[0, 1, TILE // 2, round(24 * factor) - 1].tolist() == [0, 230, 255]


def test_the_random_state_is_left_alone(one_thread):
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    first = augmentation_gallery(Augment(AugmentConfig(rotation_deg=20)), batch(), seed=1)
    assert torch.rand(1) == wanted
    assert first == augmentation_gallery(Augment(AugmentConfig(rotation_deg=20)), batch(), seed=1)
