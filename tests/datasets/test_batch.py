"""Records to tensors: shapes, units, order."""

from __future__ import annotations

import math

import numpy as np
import torch
from pictures import picture

from boneage_ray.datasets.batch import NO_MASK, Batch, as_float, collate, make_batch

IMAGES = [picture(32, 32, seed) for seed in range(3)]
COLUMNS = {
    "record_id": ["a", "b", "c"],
    "image": [image.tobytes() for image in IMAGES],
    "height": [32] * 3,
    "width": [32] * 3,
    "sex": ["F", "M", None],
    "age_months": [12.0, None, 228.5],
}


def test_columns_of_records_become_a_batch():
    batch = collate(COLUMNS)
    assert (batch.image_B1HW.shape, batch.image_B1HW.dtype) == ((3, 1, 32, 32), torch.uint8)
    assert np.array_equal(batch.image_B1HW[1, 0].numpy(), IMAGES[1])
    assert (batch.ids, len(batch)) == (("a", "b", "c"), 3)
    assert batch.age_B.dtype == torch.float32
    assert batch.age_B[[0, 2]].tolist() == [12.0, 228.5]
    assert math.isnan(batch.age_B[1])


def test_unknown_sex_has_an_index_of_its_own_and_is_never_female():
    assert collate(COLUMNS).sex_B.tolist() == [0, 1, 2]
    assert make_batch(IMAGES, [None, "M", "F"]).sex_B.tolist() == [2, 1, 0]


def test_rows_and_columns_are_not_exchanged():
    image = np.zeros((32, 48), np.uint8)
    image[3, 40] = 255
    one = {**{k: v[:1] for k, v in COLUMNS.items()}, "image": [image.tobytes()], "height": [32], "width": [48]}
    assert collate(one).image_B1HW[0, 0, 3, 40] == 255


def test_a_batch_may_be_written_to():
    batch = collate(COLUMNS)
    batch.image_B1HW[0] = 7
    assert COLUMNS["image"][0] == IMAGES[0].tobytes()


def test_float_images_are_from_0_to_1():
    values = as_float(torch.tensor([[0, 51, 255]], dtype=torch.uint8))
    assert values.dtype == torch.float32
    assert torch.equal(values, torch.tensor([[0.0, 0.2, 1.0]]))


def test_batches_for_prediction_have_no_labels():
    batch = make_batch(IMAGES, ["F"] * 3)
    assert batch.age_B.isnan().all()
    assert np.array_equal(batch.image_B1HW[2, 0].numpy(), IMAGES[2])


def test_other_pixels_and_another_device_keep_what_is_known():
    batch = collate(COLUMNS)
    moved = batch.with_image(torch.zeros(3, 1, 8, 8)).to(torch.device("cpu"))
    assert isinstance(moved, Batch)
    assert moved.image_B1HW.shape == (3, 1, 8, 8)
    assert (moved.ids, moved.sex_B.tolist()) == (batch.ids, [0, 1, 2])


def test_masks_come_along_and_a_case_without_one_is_unknown_everywhere():
    mask = (IMAGES[0] > 100).astype(np.uint8)
    batch = collate(COLUMNS | {"mask": [mask.tobytes(), None, bytes(32 * 32)]})
    assert np.array_equal(batch.mask_B1HW[0, 0].numpy(), mask)
    assert batch.mask_B1HW[1].unique().tolist() == [NO_MASK]
    assert batch.mask_B1HW[2].unique().tolist() == [0]
    assert batch.to(torch.device("cpu")).mask_B1HW.shape == (3, 1, 32, 32)


def test_no_mask_at_all_is_none():
    assert collate(COLUMNS).mask_B1HW is None
    batch = collate(COLUMNS | {"mask": [None] * 3})
    assert batch.mask_B1HW is None
    assert batch.to(torch.device("cpu")).mask_B1HW is None
