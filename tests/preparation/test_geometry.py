"""Points of a record in pixels of the original and of the prepared image."""

from __future__ import annotations

import numpy as np
import pytest

from boneage_ray.preparation.geometry import given_points, to_original_pixels, to_prepared_pixels

WHERE = (4.0, -10.0, 1.5)


def test_a_point_of_the_prepared_image_lies_where_to_original_says():
    assert to_original_pixels(np.array([[3.0, 2.0]]), WHERE).tolist() == [[2.0, 9.5]]


def test_there_and_back_again():
    points = np.array([[0.25, 7.0], [np.nan, np.nan]])
    back = to_prepared_pixels(to_original_pixels(points, WHERE), WHERE)
    assert back == pytest.approx(points, nan_ok=True)


def test_a_set_that_is_not_there_is_nan():
    points = given_points(None, [[float(k), 1.0] for k in range(19)])
    assert points.shape == (32, 2)
    assert np.isnan(points[:13]).all()
    assert points[13:, 0].tolist() == list(range(19))
