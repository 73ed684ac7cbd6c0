"""The loop on hand masks: it learns from patches, is validated on whole images by its loss, and masks follow augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plain_world import PlainWorld, job

from boneage_ray.augment.pipeline import Augment
from boneage_ray.datasets.batch import NO_MASK, Batch
from boneage_ray.models.handmask import HandMask
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.tasks.build import build_model, build_task
from boneage_ray.training.loop import train_stages
from boneage_ray.training.optimization import build_optimizer, build_schedule, parameter_groups
from boneage_ray.training.step import Learner, predict_epoch, train_step

pytestmark = pytest.mark.usefixtures("one_thread")
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


def learner(recipe):
    """A network at its start, with the recipe's augmentation."""
    model = build_model(recipe.model)
    stage = recipe.stages[0]
    optimizer = build_optimizer(stage, parameter_groups(stage, model.head_parameters(), model.blocks()))
    task, augment, device = build_task(recipe.task), Augment(recipe.augment), torch.device("cpu")
    schedule = build_schedule(stage, optimizer, 2)
    return Learner(model, model, task, augment, device, None, optimizer, schedule)


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


def test_a_case_without_a_mask_stays_without_one_through_augmentation_and_cutting():
    """Rotation fills corners with 0, which would count as background: the loss would not be 0."""
    torch.manual_seed(0)
    recipe = override(find_recipe("hand-mask"), [*SETTINGS, "model.patch=128", "augment.rotation_deg=40"])
    made = learner(recipe)
    given = discs(2, 3)
    given.mask_B1HW[1] = NO_MASK
    seen = []
    made.cut = lambda batch: seen.append(made.raw.training_batch(batch)) or seen[-1]
    train_step(made, given)
    assert [patch.unique().tolist() for patch in seen[0].mask_B1HW] == [[0, 1], [0, 1], [NO_MASK], [NO_MASK]]


def test_validation_keeps_two_numbers_a_case():
    made = learner(override(find_recipe("hand-mask"), SETTINGS))
    predicted, truth, (_, cases) = predict_epoch(made, [discs(4, 1), discs(2, 2)])
    assert (list(predicted), truth, cases) == (["overlap"], {}, 6)
    assert {len(pair) for pair in predicted["overlap"]} == {2}


def test_it_learns_discs_and_keeps_the_epoch_with_the_least_loss(tmp_path, monkeypatch):
    seen = []
    logits = HandMask._logits
    monkeypatch.setattr(
        HandMask, "_logits", lambda self, image: seen.append((self.training, image.shape)) or logits(self, image)
    )
    recipe = override(find_recipe("hand-mask"), [*SETTINGS, "stage.epochs=6"])
    progress = train_stages(job(recipe, tmp_path), MaskWorld())
    assert {shape for training, shape in seen if training} == {torch.Size((8, 1, 64, 64))}
    assert {tuple(shape[1:]) for training, shape in seen if not training} == {(1, 64, 64)}
    losses = [line["val_loss"] for line in progress.history]
    assert progress.best_epoch == 1 + losses.index(min(losses))
    best = progress.history[progress.best_epoch - 1]
    assert best["val_dice_mean"] > 0.8
    assert best["val_dice_min"] <= best["val_dice_mean"]
    assert best["val_iou_mean"] == pytest.approx(best["val_dice_mean"] / (2 - best["val_dice_mean"]), abs=0.02)
