"""What each worker trains and validates on: a pure function of recipe, data, epoch and rank, the same after a resume."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache

import torch

from boneage_ray.datasets.balance import categories
from boneage_ray.datasets.batch import Batch
from boneage_ray.datasets.held import HeldSplit, check_room
from boneage_ray.datasets.load import PreparedData, batches
from boneage_ray.datasets.plan import (
    balanced_rows,
    balanced_slices,
    ordered_rows,
    ordered_slices,
    shuffled_rows,
    training_slices,
)
from boneage_ray.preparation.split import Split
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.recipes.stage import Data
from boneage_ray.runtime.runs import say

FEW_IMAGES = 8  # a worker and step: the mean and spread of so few say little of all images


def shared_batch(batch_size: int, workers: int) -> int:
    """The batch nearest to a recipe's that so many workers share equally."""
    return max(1, round(batch_size / workers)) * workers


def shared_recipe(recipe: Recipe, workers: int) -> Recipe:
    """The recipe as so many workers train it: the batch nearest to its own that they share equally, rates scaled with it.

    Linearly, after Goyal et al. 2017 ("Accurate, large minibatch SGD", 2.1). What differs from the recipe is said.
    """
    each = shared_batch(recipe.batch_size, workers) // workers
    factor = each * workers / recipe.batch_size
    if factor == 1:
        return recipe
    say(
        f"{workers} workers cannot share batches of {recipe.batch_size} equally: {each} each, {each * workers} in all, and "
        f"learning rates times {factor:.3g}; --set batch_size={each * workers} gives such batches at the recipe's rates"
    )
    stages = tuple(
        stage.model_copy(update={"lr": stage.lr * factor, "final_lr": stage.final_lr * factor})
        for stage in recipe.stages
    )
    return recipe.model_copy(update={"batch_size": each * workers, "stages": stages})


def any_workers(sources: Iterable[PreparedData]) -> bool:
    """Whether each step takes the same cases however many workers share them: where all training rows are kept, and dealt out."""
    return all(source.is_held("train") for source in sources)


class Feed:
    """Batches of worker `rank` of `size`; `batch_size` is its share of the recipe's.

    A split that is small enough is read at its first use and kept, and an epoch's rows are drawn over all of it; others are
    streamed by Ray Data in every epoch, shuffled by shards and in a buffer. `keeper`: the GPU that keeps training splits.
    """

    def __init__(
        self,
        recipe: Recipe,
        sources: Mapping[Data, PreparedData],
        rank: int,
        size: int,
        keeper: torch.device | None = None,
    ) -> None:
        self.recipe, self.sources = recipe, sources
        self.ours = rank, size
        self.batch_size = max(1, recipe.batch_size // size)
        if keeper is not None:
            check_room([source.pixel_bytes("train") for source in sources.values() if source.is_held("train")], keeper)
        self._held = cache(
            lambda data, split: HeldSplit(sources[data].shards(split), keeper if split == "train" else None)
        )
        self._categories = cache(lambda data: categories(sources[data].shards("train"), recipe.balance))

    def batches_per_epoch(self, data: Data) -> int:
        """As many on every worker."""
        return math.ceil(self.sources[data].rows("train") / (self.batch_size * self.ours[1]))

    def train_batches(self, epoch: int, data: Data) -> Iterable[Batch]:
        """This worker's batches of an epoch."""
        seed, source, balanced = self.recipe.seed, self.sources[data], self.recipe.balance != "none"
        draw = f"{seed}:{epoch}"
        if held := self._kept(data, "train"):
            if balanced:
                return held.batches(balanced_rows(self._categories(data), draw, *self.ours), self.batch_size)
            return held.batches(shuffled_rows(len(held.rows), draw, *self.ours), self.batch_size)
        shards = source.shards("train")
        if balanced:
            slices = balanced_slices(shards, self._categories(data), draw, *self.ours)
        else:
            slices = training_slices(shards, draw, *self.ours)
        return batches(slices, self.batch_size, seed * 100_003 + epoch, source.shuffle_rows())

    def val_batches(self) -> Iterable[Batch]:
        """This worker's part of the validation split, in order."""
        if held := self._kept("train", "val"):
            return held.batches(ordered_rows(len(held.rows), *self.ours), self.batch_size)
        return batches(ordered_slices(self.sources["train"].shards("val"), *self.ours), self.batch_size)

    def _kept(self, data: Data, split: Split) -> HeldSplit | None:
        return self._held(data, split) if self.sources[data].is_held(split) else None
