"""Steps on prepared images, with the coordinates that map back to the original."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pictures import centroid, dot, picture

from boneage_ray.preparation import enhance

SHAPES = [
    (2044, 1514, 256),
    (1513, 2047, 256),
    (512, 379, 96),
    (400, 300, 100),
    (200, 133, 96),
    (90, 90, 256),
    (100, 77, 256),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("place", [(0.5, 0.5), (0.2, 0.3), (0.8, 0.85)])
def test_pixel_centres_lead_back_to_the_original(shape, place):
    height, width, size = shape
    x, y = place[0] * width, place[1] * height
    scale = max(height, width) / size
    prepared, (s, tx, ty) = enhance.square(dot(height, width, x, y, max(2.5 * scale, 2.5)), size)
    found_x, found_y = centroid(prepared)
    assert s == scale
    assert abs(s * found_x + tx - x) < 0.05 * scale
    assert abs(s * found_y + ty - y) < 0.05 * scale


def test_x_is_the_column_and_y_the_row():
    image = np.zeros((100, 200), np.uint8)
    image[10, 150] = 255
    prepared, (s, tx, ty) = enhance.square(image, 100)
    row, column = np.unravel_index(prepared.argmax(), prepared.shape)
    assert (s, tx, ty) == (2.0, 0.5, -49.5)
    assert (s * column + tx, s * row + ty) == (150.5, 10.5)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_picture_is_centred_on_zeros_with_its_aspect_kept(shape):
    height, width, size = shape
    prepared, _ = enhance.square(np.full((height, width), 200, np.uint8), size)
    assert prepared.shape == (size, size)
    rows, columns = np.flatnonzero(prepared.any(axis=1)), np.flatnonzero(prepared.any(axis=0))
    inside = prepared[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert abs(len(columns) / len(rows) - width / height) < 0.015
    assert abs((rows[0] + rows[-1]) - (size - 1)) <= 1
    assert abs((columns[0] + columns[-1]) - (size - 1)) <= 1
    assert inside.min() == 200


def test_an_image_of_the_right_size_is_unchanged():
    image = picture(96, 96)
    prepared, to_original = enhance.square(image, 96)
    assert np.array_equal(prepared, image)
    assert to_original == (1.0, 0.0, 0.0)


def test_shrinking_is_the_mean_over_areas():
    image = np.tile(np.array([[0, 10], [20, 70]], np.uint8), (64, 64))
    assert set(np.unique(enhance.square(image, 64)[0])) == {25}


def test_16_bit_pixels_are_stretched_from_their_own_minimum_and_maximum():
    deep = np.array([[1000, 2000], [3000, 5095]], np.uint16)
    assert enhance.to_uint8(deep).tolist() == [[0, 62], [125, 255]]
    assert enhance.to_uint8(np.full((2, 2), 700, np.uint16)).tolist() == [[0, 0], [0, 0]]
    assert enhance.to_uint8(np.array([[0, 65535]], np.uint16)).tolist() == [[0, 255]]


def plain(pixels, low, high):
    """The formula itself, on a float copy of the whole picture."""
    return np.rint((pixels.astype(np.float32) - low) * (255.0 / (high - low))).astype(np.uint8)


def deep_picture(high=4095):
    return (picture(300, 240).astype(np.float64) / 255 * high).astype(np.uint16)


def test_the_table_gives_what_the_formula_gives():
    deep = np.random.default_rng(0).integers(700, 60000, (1500, 1100)).astype(np.uint16)
    assert np.array_equal(enhance.to_uint8(deep), plain(deep, int(deep.min()), int(deep.max())))
    assert np.array_equal(enhance.to_uint8(deep[::3, ::2]), enhance.to_uint8(np.ascontiguousarray(deep[::3, ::2])))


def test_white_letters_in_a_12_bit_image_do_not_leave_it_black():
    deep = deep_picture()
    expected = plain(deep, int(deep.min()), int(deep.max()))
    marked = deep.copy()
    marked[10:40, 10:60] = 65535
    made = enhance.to_uint8(marked)
    assert (made[10:40, 10:60] == 255).all()
    assert np.array_equal(made[60:], expected[60:])


def test_a_black_frame_around_high_levels_is_no_part_of_the_range():
    deep = deep_picture(2000) + np.uint16(30000)
    framed = deep.copy()
    framed[:12] = framed[:, :12] = 0
    assert enhance.gray_range(framed) == (int(deep[12:, 12:].min()), int(deep[12:, 12:].max()))
    framed[100:110, 100:130] = 65535
    assert enhance.gray_range(framed)[1] < 33000


def test_an_ordinary_image_keeps_its_whole_range():
    deep = deep_picture(60000)
    assert enhance.gray_range(deep) == (deep.min(), deep.max())
    half = np.zeros((100, 100), np.uint16)
    half[:, 50:] = 50000  # as many bright pixels are no letters
    assert enhance.gray_range(half) == (0, 50000)


def test_8_bit_pixels_are_not_stretched():
    image = np.array([[10, 20]], np.uint8)
    assert enhance.to_uint8(image) is image


def test_clahe_raises_local_contrast_and_keeps_the_shape():
    faint = (picture(128, 128) // 8 + 100).astype(np.uint8)
    better = enhance.clahe(faint, 2.0, 8)
    assert (better.shape, better.dtype) == (faint.shape, np.uint8)
    inside = [slice(32, 48), slice(64, 80)]
    assert better[*inside].std() > 1.5 * faint[*inside].std()


def test_sharpening_subtracts_the_laplacian():
    image = np.full((5, 5), 100, np.uint8)
    image[2, 2] = 110
    # OpenCV's 3 x 3 kernel is [[2, 0, 2], [0, -8, 0], [2, 0, 2]].
    assert enhance.sharpen(image, 0.25)[1:4, 1:4].tolist() == [[95, 100, 95], [100, 130, 100], [95, 100, 95]]
    assert enhance.sharpen(np.full((4, 4), 255, np.uint8), 1.0).tolist() == [[255] * 4] * 4


def test_steps_leave_their_input_alone():
    image = picture(96, 96)
    before = image.copy()
    enhance.square(image, 64)
    enhance.clahe(image, 2.0, 8)
    enhance.sharpen(image, 0.5)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("shape", [(2044, 1514), (2043, 1511), (1023, 4097), (8001, 3003)])
def test_large_images_are_halved_first_and_come_out_as_by_area_alone(shape):
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (shape[0] // 40 + 2, shape[1] // 40 + 2), dtype=np.uint8)
    image = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    made, (s, tx, ty) = enhance.square(image, 256)
    assert s == max(shape) / 256
    plain = cv2.resize(image, None, fx=1 / s, fy=1 / s, interpolation=cv2.INTER_AREA)
    top, left = round((0.5 - 0.5 / s - ty / s), 0), round((0.5 - 0.5 / s - tx / s), 0)
    inside = made[int(top) : int(top) + plain.shape[0], int(left) : int(left) + plain.shape[1]]
    assert made.shape == (256, 256)
    assert np.abs(inside.astype(int) - plain)[2:-2, 2:-2].max() <= 8
    assert np.abs(inside.astype(int) - plain).mean() < 1  # each halving rounds halves up


@pytest.mark.parametrize("shape", [(2044, 1514), (2043, 1511)])
def test_a_dot_on_a_large_image_is_found_where_the_mapping_says(shape):
    image = dot(*shape, shape[1] * 0.7, shape[0] * 0.31, 20)
    made, (s, tx, ty) = enhance.square(image, 256)
    x, y = centroid(made)
    assert abs(s * x + tx - shape[1] * 0.7) < 0.15 * s
    assert abs(s * y + ty - shape[0] * 0.31) < 0.15 * s
