"""The loop without Ray: one worker, batches from memory, and a kill at a chosen epoch."""

from __future__ import annotations

import numpy as np
import torch

from boneage_ray.datasets.batch import Batch
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.training.loop import TrainingRun
from boneage_ray.training.notice import Notice

SIDE, CASES, BATCH_SIZE = 64, 12, 4
STEPS = CASES // BATCH_SIZE


class Killed(Exception):  # noqa: N818  stands for a SIGKILL
    """The process ends here."""


def tiny_recipe(*settings):
    """The demo recipe, with the smallest encoder that timm has, in float32."""
    first = ["model.backbone.name=test_resnet", f"image.size={SIDE}", "model.hidden=[8]", "precision=float32"]
    return override(find_recipe("demo"), [*first, f"batch_size={BATCH_SIZE}", *settings])


def cases(count=CASES, seed=0):
    """Images whose brightness encodes the age."""
    rng = np.random.default_rng(seed)
    ages = rng.uniform(12, 216, count)
    images = rng.integers(0, 40, (count, 1, SIDE, SIDE)) + ages[:, None, None, None].astype(int)
    return Batch(
        image_B1HW=torch.from_numpy(images.astype(np.uint8)),
        sex_B=torch.from_numpy(rng.integers(0, 3, count)),
        age_B=torch.from_numpy(ages).float(),
        ids=tuple(f"case-{k}" for k in range(count)),
    )


def part(batch, rows):
    """Some cases of a batch."""
    rows = torch.as_tensor(rows)
    return Batch(
        batch.image_B1HW[rows], batch.sex_B[rows], batch.age_B[rows], tuple(batch.ids[k] for k in rows.tolist())
    )


class PlainWorld:
    """One worker on the CPU. Keeps what was reported; `dies_after` epochs it raises `Killed`, once they are committed."""

    rank, size, device, auto_precision = 0, 1, torch.device("cpu"), None

    def __init__(self, dies_after=None, dies_at_step=None, spoil=None, told=None):
        self.train, self.val = cases(), cases(6, seed=1)
        self.dies_after, self.dies_at_step, self.spoil = dies_after, dies_at_step, spoil
        self.told = told or {}
        self.lines, self.steps, self.asked = [], [], []

    def wrap(self, model):
        return model

    def same_buffers(self, raw):
        pass

    def train_batches(self, epoch, data="train"):
        self.asked.append(epoch)
        order = torch.randperm(CASES, generator=torch.Generator().manual_seed(epoch))
        for start in range(0, CASES, BATCH_SIZE):
            batch = part(self.train, order[start : start + BATCH_SIZE])
            yield self.spoil(epoch, start, batch) if self.spoil else batch

    def val_batches(self):
        yield part(self.val, range(4))
        yield part(self.val, range(4, 6))

    def gather(self, value):
        return [value]

    def on_step(self, cases, loss):
        self.steps.append((cases, loss))
        if len(self.steps) == self.dies_at_step:
            raise Killed

    def notice(self):
        return self.told.get(len(self.steps), Notice.NONE)

    def on_epoch(self, line):
        self.lines.append(line)
        if line["epoch"] == self.dies_after:
            raise Killed


def job(recipe, folder, mark="mark"):
    """A job whose checkpoints go into a folder."""
    return TrainingRun(recipe, str(folder), mark, STEPS)


def figures(progress):
    """The history without times."""
    return [{k: v for k, v in line.items() if not k.endswith("_seconds")} for line in progress.history]
