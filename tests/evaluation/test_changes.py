"""Changes of a radiograph: exact pixels, and points that go where the pixels go."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from boneage_ray.evaluation import changes
from boneage_ray.evaluation.changes import suite

RAMP = np.repeat(np.arange(0, 250, 10, dtype=np.uint8)[None], 30, 0)  # 30 rows, 25 columns


def test_gray_levels_change_as_said():
    ends = slice(0, None, 12)  # levels 0, 120, 240
    assert changes.brighter(RAMP, 0.1).pixels[0, ends].tolist() == [26, 146, 255]
    assert changes.brighter(RAMP, -0.2).pixels[0, ends].tolist() == [0, 69, 189]
    assert changes.contrasted(RAMP, 0.5).pixels[0, ends].tolist() == [60, 120, 180]
    assert changes.with_gamma(RAMP, 2.0).pixels[0, ends].tolist() == [0, 56, 226]
    assert changes.inverted(RAMP).pixels[0, ends].tolist() == [255, 135, 15]


def test_bits_are_stored_as_a_scanner_would():
    assert changes.in_bits(RAMP, 8).pixels.tolist() == RAMP.tolist()
    twelve = changes.in_bits(RAMP, 12).pixels
    assert (twelve.dtype, twelve[0, 24]) == (np.uint16, 3854)  # 240 / 255 of 4095
    six = changes.in_bits(RAMP, 6).pixels
    assert len(np.unique(six)) <= 64
    assert six[0, 12] == 121  # level 30 of 63


@pytest.mark.parametrize("change", suite(), ids=lambda change: change.name)
def test_a_bright_spot_is_where_the_matrix_takes_it(change):
    image = np.full((120, 100), 40, np.uint8)
    cv2.circle(image, (60, 40), 3, 200, -1)
    made = change.make(image)
    x, y = made.matrix @ (60, 40, 1)
    near = made.pixels.astype(np.float64)
    if change.group == "inversion":
        near = 255 - near
    rows, columns = np.mgrid[: near.shape[0], : near.shape[1]]
    around = np.hypot(columns - x, rows - y) <= max(1.5, 5 * near.shape[0] / 120)
    weight = np.where(around, near - np.median(near), 0).clip(0)
    found = ((weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum())
    assert np.hypot(found[0] - x, found[1] - y) < 0.4


def test_every_change_has_a_name_of_its_own():
    names = [change.name for change in suite()]
    assert len(set(names)) == len(names) == 36
