"""Hand phantoms: equal for equal arguments, exact answers, growing and fusing bones."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from boneage_ray.errors import UsageError
from boneage_ray.phantoms.film import View, fill_outline
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.phantoms.hand_build import Build
from boneage_ray.phantoms.hand_shape import build_hand


def bone_mask(bones):
    """Union of the bones at 4 pixels per millimetre; the part of the forearm near the wrist included."""
    view = View(np.array([[4.0, 0.0, 500.0], [0.0, 4.0, 800.0]]), 1000, 1000, over=1)
    mask = np.zeros((1000, 1000), np.uint8)
    for bone in bones:
        for outline in bone.outlines:
            fill_outline(mask, view.to_canvas(outline))
    return mask


def test_equal_arguments_give_equal_pixels_and_other_seeds_do_not():
    first, again, other = (hand_phantom(seed, 100, "F", 128) for seed in (3, 3, 4))
    assert np.array_equal(first.image, again.image) and np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.image, other.image)


def test_answers_are_the_arguments():
    phantom = hand_phantom(0, 77.5, "M", 96)
    assert (phantom.age_months, phantom.sex) == (77.5, "M")


@pytest.mark.parametrize(("size", "width"), [(32, 26), (128, 102), (256, 205), (700, 560)])
def test_shape_and_type(size, width):
    phantom = hand_phantom(1, 120, "F", size)
    for array in (phantom.image, phantom.mask):
        assert array.shape == (size, width) and array.dtype == np.uint8
    assert set(np.unique(phantom.mask)) == {0, 255}


def test_a_larger_picture_shows_the_same_hand():
    small, large = (hand_phantom(7, 110, "M", size).mask > 0 for size in (160, 480))
    shrunk = cv2.resize(large.astype(np.float32), small.shape[::-1], interpolation=cv2.INTER_AREA) > 0.5
    overlap = (small & shrunk).sum() / (small | shrunk).sum()
    assert overlap > 0.95


@pytest.mark.parametrize("age", [12, 60, 130, 216])
@pytest.mark.parametrize("seed", range(4))
def test_the_hand_is_bright_on_dark_and_inside_the_picture(seed, age):
    phantom = hand_phantom(seed, age, "M", 160)
    hand = phantom.mask > 0
    assert 0.12 < hand.mean() < 0.6
    assert phantom.image[hand].mean() > phantom.image[~hand].mean() + 25
    assert not hand[0].any(), "a fingertip is cut off"
    assert hand[-1].any(), "the forearm does not reach the edge"


@pytest.mark.parametrize("sex", ["F", "M"])
def test_bone_area_grows_with_age(sex):
    areas = [int(bone_mask(build_hand(Build(age, sex)).bones).sum()) for age in range(12, 217, 12)]
    assert areas == sorted(areas)
    assert areas[-1] > 2.5 * areas[0]


def test_growth_plates_separate_the_bones_of_a_child_and_not_of_an_adult():
    def parts(age):
        little_fingertip = build_hand(Build(age, "M")).bones[-1]
        return cv2.connectedComponents(bone_mask([little_fingertip]))[0] - 1

    assert [parts(age) for age in (12, 60, 120, 240)] == [1, 2, 2, 1]


def test_number_of_bones():
    # 19 tubular bones, radius and ulna; a boy of 7 years shows 7 carpals, a grown man 8 and a sesamoid.
    assert [len(build_hand(Build(age, "M")).bones) for age in (0, 84, 240)] == [21, 28, 30]


def test_maturing_bone_is_denser():
    young, old = (build_hand(Build(age, "F")).bones[-1].density for age in (24, 216))
    assert old > 1.4 * young


def test_bad_arguments_are_refused():
    with pytest.raises(UsageError, match="at least 32"):
        hand_phantom(0, 100, "F", 16)
    with pytest.raises(UsageError, match="0 to 240"):
        hand_phantom(0, 300, "F", 64)
