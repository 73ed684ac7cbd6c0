"""Pixels through a table, block by block: the same as all at once."""

from __future__ import annotations

import numpy as np
import pytest

from boneage_ray.decoding.lookup import look_up, row_blocks


@pytest.mark.parametrize("shape", [(1, 1), (700, 900), (3, 300_000), (300_000, 3), (0, 5)])
def test_blocks_of_rows_cover_the_image_once(shape):
    image = np.zeros(shape, np.uint8)
    for rows in row_blocks(image):
        image[rows] += 1
    assert (image == 1).all()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_every_pixel_has_its_entry_also_in_a_part_of_an_image(kind):
    pixels = np.random.default_rng(0).integers(0, 250, (1200, 900)).astype(kind)[5:, 100:801:2]
    table = np.arange(1000, 1250, dtype=np.uint16)
    found = look_up(table, pixels)
    assert found.dtype == np.uint16
    assert np.array_equal(found, table[pixels])


def test_what_lies_beyond_the_table_has_its_last_entry():
    assert look_up(np.array([7, 9], np.uint8), np.array([[0, 1, 2, 65535]], np.uint16)).tolist() == [[7, 9, 9, 9]]
