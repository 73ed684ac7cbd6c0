"""The loop on cephalograms: it learns from phantoms, edges first if a stage says so, and points follow augmentation."""

from __future__ import annotations

import math
from functools import cache

import cv2
import pytest
import torch
from plain_world import PlainWorld, job

from boneage_ray.datasets.batch import Batch
from boneage_ray.errors import UsageError
from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.training.loop import train_stages

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE = 64
SETTINGS = (
    "model.encoder=tu-test_resnet",
    f"image.size={SIDE}",
    "precision=float32",
    "batch_size=4",
)


@cache
def heads(first, count):
    """Phantoms as they are prepared: padded to a square."""
    images, points = [], []
    for seed in range(first, first + count):
        phantom = cephalogram_phantom(seed, 1 + seed % 6, SIDE)
        left = (SIDE - phantom.image.shape[1]) // 2
        right = SIDE - phantom.image.shape[1] - left
        images.append(torch.from_numpy(cv2.copyMakeBorder(phantom.image, 0, 0, left, right, cv2.BORDER_CONSTANT)))
        both = torch.from_numpy(phantom.vertebral), torch.from_numpy(phantom.facial)
        points.append(torch.cat(both) + torch.tensor([left, 0]))
    ids = tuple(f"head-{seed}" for seed in range(first, first + count))
    unknown = torch.full((count,), math.nan)
    return Batch(torch.stack(images)[:, None], torch.full((count,), 2), unknown, ids, None, torch.stack(points).float())


class HeadWorld(PlainWorld):
    """Two batches of four heads an epoch."""

    def train_batches(self, epoch, data="train"):
        return [heads(0, 4), heads(4, 4)]

    def val_batches(self):
        return [heads(0, 4)]


def trained(recipe, tmp_path):
    return train_stages(job(recipe, tmp_path), HeadWorld())


@pytest.mark.slow
def test_it_finds_the_landmarks_of_heads_that_it_was_shown(tmp_path):
    still = ["augment.rotation_deg=0", "augment.zoom=0", "augment.shift=0"]
    settings = [*SETTINGS, *still, "stage.epochs=20", "stage.lr=1e-2", "stage.ema=0.9"]
    history = trained(override(find_recipe("cephalogram-light"), settings), tmp_path).history
    assert history[-1]["val_mre_px"] < 0.5 * history[0]["val_mre_px"]
    assert history[-1]["score"] == history[-1]["val_mre_px"]


def test_a_stage_can_learn_from_edges_alone(tmp_path):
    recipe = override(find_recipe("cephalogram-edges"), [*SETTINGS, "stages.0.epochs=2", "stages.1.epochs=1"])
    history = trained(recipe, tmp_path).history
    assert [line["stage"] for line in history] == [0, 0, 1]
    # Edges and image are mean squares of values near 1; the landmarks' focal loss is of another size.
    assert history[1]["train_loss"] < history[0]["train_loss"] < 3
    assert history[2]["train_loss"] > 3


def test_a_loss_that_the_task_does_not_have_is_named(tmp_path):
    recipe = override(find_recipe("cephalogram-light"), [*SETTINGS, 'stage.losses=["edges"]', "stage.epochs=1"])
    with pytest.raises(UsageError, match="names the losses edges; this recipe has vertebral, facial"):
        trained(recipe, tmp_path)


def test_the_neck_is_trained_with_the_whole(tmp_path):
    settings = [*SETTINGS, "model.side=32", "model.neck=32", "stage.epochs=1"]
    history = trained(override(find_recipe("cephalogram-neck"), settings), tmp_path).history
    assert math.isfinite(history[0]["train_loss"])
    assert math.isfinite(history[0]["val_vertebral_mre_px"])
