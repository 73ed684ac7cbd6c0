"""What is drawn stands where it should: truth yellow, prediction cyan, chords orange, in the frame that was asked for."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from boneage_ray.anatomy.cephalometry import LANDMARKS
from boneage_ray.drawing import CYAN, YELLOW
from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.tasks.cephalogram.findings.overlay import CHORD_COLOUR, Marked, landmark_png

K = len(LANDMARKS)
GRAY = np.full((100, 80), 90, np.uint8)


def points(**places):
    """(32, 3) NaN but for p<index>=(x, y, sigma)."""
    found = np.full((K, 3), np.nan)
    for name, place in places.items():
        found[int(name[1:])] = place
    return found


def decoded(image, marked, **options):
    data = landmark_png(image, marked, **options)
    assert data.startswith(b"\x89PNG")
    return cv2.imdecode(np.frombuffer(data, np.uint8), 1)


def near(picture, x, y, colour, reach=3):
    """Whether a pixel of nearly this colour stands about (x, y)."""
    x, y = round(x), round(y)
    part = picture[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].reshape(-1, 3).astype(int)
    return bool(len(part)) and np.abs(part - colour).max(1).min() < 40


def test_the_predicted_point_is_cyan_and_the_true_one_yellow_where_they_lie():
    true = np.full((K, 2), np.nan)
    true[20] = (60, 70)
    picture = decoded(GRAY, Marked(points(p20=(20, 30, 2)), true), side=100)
    assert picture.shape == (100, 80, 3)
    assert near(picture, 20, 30, CYAN, 1)
    assert near(picture, 60, 70, YELLOW)
    assert not near(picture, 60, 70, CYAN, 5)
    assert not near(picture, 20, 30, YELLOW, 5)
    assert picture[5, 5].tolist() == [90, 90, 90]


@pytest.mark.parametrize("side", [50, 100, 400])
def test_points_move_with_the_size(side):
    picture = decoded(GRAY, Marked(points(p20=(20, 30, np.nan))), side=side)
    factor = side / 100
    assert picture.shape == (side, round(80 * factor), 3)
    cyan = np.argwhere(np.abs(picture.astype(int) - CYAN).max(2) < 60)
    assert cyan.mean(0)[::-1] == pytest.approx([20.5 * factor - 0.5, 30.5 * factor - 0.5], abs=0.6)


def test_the_circle_has_the_radius_of_sigma():
    picture = decoded(GRAY, Marked(points(p20=(40, 50, 10))), side=100)
    for x, y in ((10, 0), (-10, 0), (0, 10), (0, -10)):
        assert near(picture, 40 + x, 50 + y, CYAN, 1)
    assert not near(picture, 40 + 5, 50, CYAN, 2)


@pytest.mark.parametrize(
    "place", [(np.nan, np.nan, np.nan), (-500, 40, 1), (40, 1e7, 1), (-1e12, 1e12, 3), (1e300, 0, 1)]
)
def test_points_that_are_not_there_or_outside_are_not_drawn(place):
    true = np.full((K, 2), np.nan)
    true[20] = place[:2]
    for neck in (False, True):
        picture = decoded(GRAY, Marked(points(p20=place), true), side=100, neck=neck)
        assert picture.shape == (100, 80, 3)
        assert (picture == 90).all()


def test_names_and_text_are_written():
    marked = Marked(points(p20=(20, 30, 1)), names=True, text=("CS4 (90%)",))
    plain = decoded(GRAY, Marked(points(p20=(20, 30, 1))), side=400)
    picture = decoded(GRAY, marked, side=400)
    changed = np.argwhere((picture != plain).any(2))
    assert changed.min(0)[0] < 20
    assert (changed[:, 1] > 80).any()


def vertebrae(seed=1):
    phantom = cephalogram_phantom(seed, 4, 240)
    found = np.full((K, 3), np.nan)
    found[:13, :2] = phantom.vertebral
    return phantom, found


def test_outlines_and_chords_are_drawn_where_all_vertebral_points_are_there():
    phantom, found = vertebrae()
    picture = decoded(phantom.image, Marked(found), side=960)
    middle = (phantom.vertebral[4] + phantom.vertebral[6]) / 2
    assert near(picture, *(middle * 4 + 1.5), CHORD_COLOUR)
    middle = (phantom.vertebral[3] + phantom.vertebral[7]) / 2
    assert near(picture, *(middle * 4 + 1.5), CYAN)
    missing = found.copy()
    missing[0] = np.nan
    for marked in (Marked(found, lines=False), Marked(missing)):
        assert not near(decoded(phantom.image, marked, side=960), *(middle * 4 + 1.5), CYAN)


def test_the_neck_alone_is_shown_larger():
    phantom, found = vertebrae()
    found[13:, :2] = phantom.facial
    picture = decoded(phantom.image, Marked(found), side=480, neck=True)
    assert max(picture.shape) == 480
    low, high = phantom.vertebral.min(0), phantom.vertebral.max(0)
    room = 0.35 * (high - low).max()
    x0, y0 = np.maximum(0, low - room).astype(int)
    x1, y1 = np.minimum(phantom.image.shape[::-1], (high + room).astype(int) + 1)
    factor = 480 / max(x1 - x0, y1 - y0)
    assert factor > 4
    assert picture.shape[:2] == (round((y1 - y0) * factor), round((x1 - x0) * factor))
    for x, y in (phantom.vertebral - (x0, y0) + 0.5) * factor - 0.5:
        assert near(picture, x, y, CYAN)


def test_the_neck_shows_the_truth_too_however_far_the_prediction_is_off():
    phantom, found = vertebrae()
    true = np.full((K, 2), np.nan)
    true[:13] = phantom.vertebral
    found[:13, :2] = phantom.vertebral / 3
    picture = decoded(phantom.image, Marked(found, true), side=600, neck=True)
    for colour in (YELLOW, CYAN):
        assert (np.abs(picture.astype(int) - colour).max(2) < 40).sum() > 13


def test_a_neck_beside_the_image_shows_the_whole_image():
    phantom, found = vertebrae()
    found[:13, :2] += 3000
    picture = decoded(phantom.image, Marked(found), side=240, neck=True)
    assert picture.shape[:2] == phantom.image.shape
    assert (picture == phantom.image[..., None]).all()


def test_points_in_one_place_are_drawn():
    found = np.full((K, 3), np.nan)
    found[:13] = (40, 50, 1)
    picture = decoded(GRAY, Marked(found), side=100, neck=True)
    assert max(picture.shape) == 100


def test_what_was_given_is_not_changed():
    found = points(p20=(20, 30, 2))
    before, image = found.copy(), GRAY.copy()
    landmark_png(image, Marked(found, found[:, :2]), side=300)
    assert np.array_equal(found, before, equal_nan=True)
    assert (image == GRAY).all()
