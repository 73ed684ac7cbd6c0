"""The hand crop: phantoms with known masks, frames, letters, and pictures without a hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.preparation.localise import Box, find_hand, widen


def hand(seed, age=120.0, size=384):
    return hand_phantom(seed, age, "MF"[seed % 2], size)


def part_inside(mask, box):
    return (mask[box.y0 : box.y1, box.x0 : box.x1] > 0).sum() / (mask > 0).sum()


def extent(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize("seed", range(12))
def test_hand_and_wrist_lie_inside_the_box_with_its_margin(seed):
    phantom = hand(seed, age=20.0 + 17 * seed)
    box = find_hand(phantom.image)
    assert box is not None
    assert part_inside(phantom.mask, widen(box, 0.05, *phantom.image.shape)) > 0.999
    assert np.abs(np.array(box) - extent(phantom.mask)).max() < 0.1 * 384


@pytest.mark.parametrize("degrees", [-20, -10, 10, 20])
def test_turned_hands_are_found(degrees):
    phantom = hand(3)
    height, width = phantom.image.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 0.8)
    image = cv2.warpAffine(phantom.image, turn, (width, height), borderValue=int(np.median(phantom.image[:40, :40])))
    mask = cv2.warpAffine(phantom.mask, turn, (width, height), flags=cv2.INTER_NEAREST)
    box = find_hand(image)
    assert box is not None
    assert part_inside(mask, widen(box, 0.05, height, width)) > 0.99
    assert np.abs(np.array(box) - extent(mask)).max() < 0.12 * height


@pytest.mark.parametrize("white", [True, False])
def test_straight_frames_and_letters_do_not_belong_to_the_box(white):
    phantom = hand(4, size=320)
    height, width = phantom.image.shape
    canvas = np.full((height + 80, width + 160), 250 if white else 0, np.uint8)
    canvas[40:-40, 20:-20] = 12
    canvas[40 : 40 + height, 80 : 80 + width] = np.maximum(phantom.image, 12)
    cv2.putText(canvas, "L", (30, 90), cv2.FONT_HERSHEY_SIMPLEX, 1.2, 255, 4)
    box = find_hand(canvas)
    assert box is not None
    expected = extent(phantom.mask) + np.array([80, 40, 80, 40])
    assert np.abs(np.array(box) - expected).max() < 0.08 * height


@pytest.mark.parametrize("level", [90, 255])
@pytest.mark.parametrize("share", [0.05, 0.08, 0.15])
def test_a_bright_canvas_all_round_does_not_belong_to_the_box(level, share):
    phantom = hand(4, size=320)
    border = round(share * 320)
    canvas = np.full(np.array(phantom.image.shape) + 2 * border, level, np.uint8)
    canvas[border:-border, border:-border] = phantom.image
    box = find_hand(canvas)
    assert box is not None
    assert np.abs(np.array(box) - extent(phantom.mask) - border).max() < 0.08 * 320


def test_the_box_does_not_depend_on_the_size_of_the_picture():
    image = hand(5, size=512).image
    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert np.abs(np.array(find_hand(image)) - 2 * np.array(find_hand(small))).max() <= 10


def test_other_pictures_have_no_hand():
    rng = np.random.default_rng(0)
    assert find_hand(np.full((200, 150), 80, np.uint8)) is None
    assert find_hand(rng.integers(90, 110, (300, 250)).astype(np.uint8)) is None
    letters = np.zeros((300, 250), np.uint8)
    cv2.putText(letters, "L", (20, 60), cv2.FONT_HERSHEY_SIMPLEX, 1.5, 255, 4)
    assert find_hand(letters) is None


def test_two_separate_hands_are_not_found():
    image = hand(6, size=256).image
    assert find_hand(np.hstack([image[:, ::-1], np.full((256, 20), 8, np.uint8), image])) is None


def test_the_margin_is_a_fraction_of_the_longer_side_and_ends_at_the_border():
    assert widen(Box(100, 50, 200, 250), 0.05, 400, 300) == (90, 40, 210, 260)
    assert widen(Box(3, 50, 200, 398), 0.05, 400, 210) == (0, 33, 210, 400)
    assert widen(Box(3, 50, 200, 398), 0.0, 400, 210) == (3, 50, 200, 398)
