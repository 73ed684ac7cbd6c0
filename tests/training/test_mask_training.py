"""The loop on hand masks: it learns from patches, is judged on whole images by its loss, and masks follow augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plain_world import PlainWorld, job

from boneage_ray.datasets.batch import Batch
from boneage_ray.models.handmask import HandMask
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.training.loop import train

SIDE = 96
SETTINGS = (
    "model.encoder=tu-test_resnet",
    "model.stride=32",
    "model.patch=64",
    "model.patches=2",
    f"image.size={SIDE}",
    "precision=float32",
    "stage.lr=5e-3",
    "stage.warmup=0",
    "batch_size=4",
)


def discs(count, seed):
    """Bright discs on noise, with their masks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    middles = rng.uniform(30, 66, (count, 2))
    masks = np.stack([(x - mx) ** 2 + (y - my) ** 2 < 22**2 for mx, my in middles])[:, None]
    images = rng.integers(0, 60, masks.shape) + 150 * masks
    ids = tuple(f"disc-{k}" for k in range(count))
    pixels = torch.from_numpy(images.astype(np.uint8))
    return Batch(pixels, torch.full((count,), 2), torch.full((count,), torch.nan), ids, torch.from_numpy(masks).byte())


class MaskWorld(PlainWorld):
    """Batches of four discs."""

    def train_batches(self, epoch, data="train"):
        return [discs(4, 10 * epoch + k) for k in range(3)]

    def val_batches(self):
        return [discs(4, 1000), discs(2, 1001)]


def test_it_learns_discs_and_keeps_the_epoch_with_the_least_loss(tmp_path, monkeypatch):
    seen = []
    logits = HandMask._logits
    monkeypatch.setattr(
        HandMask, "_logits", lambda self, image: seen.append((self.training, image.shape)) or logits(self, image)
    )
    recipe = override(find_recipe("hand-mask"), [*SETTINGS, "stage.epochs=6"])
    progress = train(job(recipe, tmp_path), MaskWorld())
    assert {shape for training, shape in seen if training} == {torch.Size((8, 1, 64, 64))}
    assert {tuple(shape[1:]) for training, shape in seen if not training} == {(1, 64, 64)}
    losses = [line["val_loss"] for line in progress.history]
    assert progress.best_epoch == 1 + losses.index(min(losses))
    best = progress.history[progress.best_epoch - 1]
    assert best["val_dice_mean"] > 0.8
    assert best["val_dice_min"] <= best["val_dice_mean"]
    assert best["val_iou_mean"] == pytest.approx(best["val_dice_mean"] / (2 - best["val_dice_mean"]), abs=0.02)
