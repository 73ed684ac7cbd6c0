"""A batch of records as tensors, with shapes, units and order.

Axis letters: B batch, H height, W width, K points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boneage_ray.anatomy.growth import Sex
from boneage_ray.preparation.geometry import given_points, to_prepared_pixels

NO_MASK = 255  # fills the mask of a case that has none
# Index of the sex embedding; unknown has its own and is never taken for female.
SEX_INDEX: dict[Sex | None, int] = {"F": 0, "M": 1, None: 2}


@dataclass(frozen=True)
class Batch:
    """Prepared images with their labels.

    image_B1HW: uint8 as prepared, or float32 in [0, 1] after `as_float`. sex_B: int64, 0 female, 1 male, 2 unknown.
    age_B: float32 months, NaN where there is no label. ids: record ids. mask_B1HW: uint8, 1 on the hand, 0 elsewhere, NO_MASK all
    over a case without one; None where no case has one. points_BK2: float32 (x, y) in pixels of the image, in the order of
    cephalometry.LANDMARKS, NaN where there is no label; None where no case has one.
    """

    image_B1HW: Tensor
    sex_B: Tensor
    age_B: Tensor
    ids: tuple[str, ...] = ()
    mask_B1HW: Tensor | None = None
    points_BK2: Tensor | None = None

    def __len__(self) -> int:
        return int(self.image_B1HW.shape[0])

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; copies to a GPU do not wait."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same batch in memory from which a GPU copies by itself; from other memory it must be handed on by the host."""
        return self._each(Tensor.pin_memory)

    def used_by(self, stream: torch.Stream) -> Batch:
        """This batch, whose memory on the GPU is given free only after what `stream` was given until then."""
        return self._each(lambda tensor: (tensor.record_stream(stream), tensor)[1])  # type: ignore[func-returns-value]

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        tensors = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "ids"}
        changed: dict[str, Any] = {
            name: tensor if tensor is None else change(tensor) for name, tensor in tensors.items()
        }
        return Batch(**changed, ids=self.ids)

    def chosen(self, rows: Sequence[int]) -> Batch:
        """The cases of these numbers, in their order. On a GPU the host does not wait for it."""
        index = torch.tensor(rows)
        if self.image_B1HW.is_cuda:
            index = index.pin_memory().to(self.image_B1HW.device, non_blocking=True)
        return replace(self._each(lambda tensor: tensor[index]), ids=tuple(self.ids[row] for row in rows))

    def with_image(
        self, image_B1HW: Tensor, mask_B1HW: Tensor | None = None, points_BK2: Tensor | None = None
    ) -> Batch:
        """The same cases with other pixels, and the mask and points that belong to them."""
        return Batch(image_B1HW, self.sex_B, self.age_B, self.ids, mask_B1HW, points_BK2)


def still_unknown(changed_B1HW: Tensor, mask_B1HW: Tensor) -> Tensor:
    """Masks after a change that may have padded them with 0; NO_MASK again for cases that had none."""
    unknown_B = (mask_B1HW == NO_MASK).flatten(1).all(1)
    return changed_B1HW.masked_fill(unknown_B[:, None, None, None], NO_MASK)


def as_float(image_B1HW: Tensor) -> Tensor:
    """uint8 0..255 to float32 [0, 1]."""
    return image_B1HW.float().div_(255.0)


def make_batch(images: Sequence[np.ndarray[Any, Any]], sexes: Sequence[Sex | None]) -> Batch:
    """A batch of prepared (H, W) uint8 images without labels, for prediction."""
    stacked = torch.from_numpy(np.stack(images)[:, None])
    unknown = torch.full((len(images),), math.nan)
    return Batch(stacked, torch.tensor([SEX_INDEX[sex] for sex in sexes]), unknown)


def collate(columns: Mapping[str, Sequence[Any]]) -> Batch:
    """A batch on the CPU from columns of prepared records (records/schema.py)."""
    height, width = int(columns["height"][0]), int(columns["width"][0])
    pixels = np.frombuffer(b"".join(columns["image"]), np.uint8).reshape(-1, 1, height, width)
    ages = [math.nan if age is None else age for age in columns["age_months"]]
    return Batch(
        image_B1HW=torch.from_numpy(pixels.copy()),
        sex_B=torch.tensor([SEX_INDEX[sex] for sex in columns["sex"]]),
        age_B=torch.tensor(ages, dtype=torch.float32),
        ids=tuple(columns["record_id"]),
        mask_B1HW=_masks(columns.get("mask", ()), height, width),
        points_BK2=_points(columns),
    )


def _masks(masks: Sequence[bytes | None], height: int, width: int) -> Tensor | None:
    if all(mask is None for mask in masks):
        return None
    none = bytes([NO_MASK]) * (height * width)
    pixels = np.frombuffer(b"".join(none if mask is None else mask for mask in masks), np.uint8)
    return torch.from_numpy(pixels.reshape(-1, 1, height, width).copy())


def _points(columns: Mapping[str, Sequence[Any]]) -> Tensor | None:
    """Landmarks in pixels of the prepared image; a set that a case does not have is NaN."""
    none = [None] * len(columns["image"])
    pairs = list(zip(columns.get("vertebral", none), columns.get("facial", none), strict=True))
    if all(vertebral is None and facial is None for vertebral, facial in pairs):
        return None
    cases = zip(pairs, columns["to_original"], strict=True)
    return torch.from_numpy(np.stack([to_prepared_pixels(given_points(*pair), where) for pair, where in cases])).float()
