"""The gallery of heatmaps: a tile for each landmark, warm where its map is high, with its points."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from boneage_ray.anatomy.cephalometry import LANDMARKS
from boneage_ray.models.heatmap import render_heatmaps
from boneage_ray.tasks.cephalogram.config import CephalogramTaskConfig
from boneage_ray.tasks.cephalogram.findings.heatmaps import COLUMNS, TILE, heatmap_gallery
from boneage_ray.tasks.cephalogram.task import CephalogramTask

SIDE, STRIDE = 128, 2
PLACE = 60.0


def network(image_B1HW, sex_B):
    """Logits whose highest place is the same for every vertebral landmark; maps of half the side, no facial ones."""
    points = torch.full((1, 13, 2), (PLACE - 0.5) / STRIDE)
    heat = render_heatmaps(points, SIDE // STRIDE, SIDE // STRIDE, 1.5)
    return {"vertebral": heat.clamp_min(1e-9).log(), "frame": torch.tensor([[0.5, 0.5, float(STRIDE)]])}


@pytest.fixture
def tiles(one_thread):
    task = CephalogramTask(CephalogramTaskConfig(loss="cross_entropy", sigma=1.5))
    predictor = SimpleNamespace(task=task, model=network, device=torch.device("cpu"))
    true = np.full((len(LANDMARKS), 2), np.nan)
    true[0] = PLACE + 6.0
    data = heatmap_gallery(predictor, np.full((SIDE, SIDE), 40, np.uint8), true)
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), 1)
    assert picture.shape == (2 * TILE, COLUMNS * TILE, 3)
    return picture.reshape(2, TILE, COLUMNS, TILE, 3).transpose(0, 2, 1, 3, 4).reshape(-1, TILE, TILE, 3).astype(int)


def test_every_map_has_a_tile_and_no_others(tiles):
    lit = [bool(tile.any()) for tile in tiles]
    assert lit == [True] * 13 + [False] * 3


def test_the_map_is_warm_at_its_highest_place_and_cold_away_from_it(tiles):
    middle = TILE // 2
    assert tiles[1, middle + 8, middle, 2] > 130  # red
    assert np.abs(tiles[1, 20, 10] - 40).max() <= 2


def test_the_read_off_and_the_given_point_lie_where_they_are(tiles):
    cyan = (tiles[1, ..., 0] > 180) & (tiles[1, ..., 2] < 120)
    yellow = (tiles[0, ..., 2] > 180) & (tiles[0, ..., 1] > 180) & (tiles[0, ..., 0] < 100)
    assert np.argwhere(cyan).mean(0) == pytest.approx([(TILE - 1) / 2] * 2, abs=1.5)
    factor = TILE / (0.16 * SIDE)
    assert np.argwhere(yellow).mean(0) == pytest.approx([(TILE - 1) / 2 + 6 * factor] * 2, abs=4)
    assert not ((tiles[1, ..., 2] > 180) & (tiles[1, ..., 1] > 180) & (tiles[1, ..., 0] < 60)).sum() > 40
