"""A picture of augmented training images, for a check before a long training.

Axis letters: B batch, H height, W width, K points. Points are (x, y) in pixels, pixel centres at integers.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boneage_ray import storage
from boneage_ray.augment.pipeline import Augment
from boneage_ray.datasets.batch import Batch, as_float, collate
from boneage_ray.datasets.load import PreparedData
from boneage_ray.datasets.plan import Slice
from boneage_ray.datasets.read import read_slice
from boneage_ray.drawing import YELLOW, encode_png, outline, rings
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.runtime.runs import say

AUGMENTED = "augmentation.png"
IMAGES, DRAWS, TILE = 3, 5, 224


def show_augmentation(recipe: Recipe, prepared: PreparedData, out: str) -> None:
    """Write OUT/augmentation.png of some training images, unless the recipe has no augmentation."""
    augment = Augment(recipe.augment)
    if augment.pipeline is None:
        return
    shard = prepared.shards("train")[0]
    some = collate(read_slice(Slice(shard.uri, 0, min(IMAGES, shard.rows))).to_pydict())
    uri = storage.join(out, AUGMENTED)
    storage.write_bytes(uri, augmentation_gallery(augment, some, recipe.seed))
    say(f"augmented training images: {uri}")


def augmentation_gallery(augment: Augment, batch: Batch, seed: int) -> bytes:
    """A PNG with a row for each image of the batch: the prepared image and five draws, with points and mask outlines.

    The global random state is not changed.
    """
    masks = None if batch.mask_B1HW is None else batch.mask_B1HW.float()
    columns = [_column(as_float(batch.image_B1HW), masks, batch.points_BK2)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(DRAWS):
            drawn = augment(as_float(batch.image_B1HW), masks, batch.points_BK2)
            columns.append(_column(drawn.image_B1HW, drawn.mask_B1HW, drawn.points_BK2))
    return encode_png(np.hstack(columns))


def _column(image_B1HW: Tensor, mask_B1HW: Tensor | None, points_BK2: Tensor | None) -> NDArray[np.uint8]:
    return np.vstack(
        [
            _tile(
                image_B1HW[k, 0],
                None if mask_B1HW is None else mask_B1HW[k, 0],
                None if points_BK2 is None else points_BK2[k],
            )
            for k in range(len(image_B1HW))
        ]
    )


def _tile(image_HW: Tensor, mask_HW: Tensor | None, points_K2: Tensor | None) -> NDArray[np.uint8]:
    factor = TILE / max(image_HW.shape)
    tile: Any = _small(np.asarray((255 * image_HW).round().byte().cpu().numpy()))
    tile = cv2.cvtColor(tile, cv2.COLOR_GRAY2BGR)
    if mask_HW is not None:
        outline(tile, _small(np.asarray((mask_HW == 1).byte().cpu().numpy())), YELLOW)
    if points_K2 is not None:
        rings(tile, ((points_K2 + 0.5) * factor - 0.5).cpu().numpy(), YELLOW, 2.0)
    cv2.rectangle(tile, (0, 0), (TILE - 1, TILE - 1), (60, 60, 60), 1)
    return np.asarray(tile, np.uint8)


def _small(pixels: NDArray[np.uint8]) -> Any:  # noqa: ANN401  OpenCV is not typed
    return cv2.resize(pixels, (TILE, TILE), interpolation=cv2.INTER_AREA)
