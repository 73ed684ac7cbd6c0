"""Hand masks: found, read, filled, dilated, applied; and no image is used unmasked."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pictures import encoded, picture

from boneage_ray.errors import InputProblem
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.preparation import enhance, masking
from boneage_ray.preparation.prepare import ImageConfig, prepare_image

HAND = hand_phantom(3, 96, "F", 384)
NO_STEPS = {"mask_fill": False, "mask_dilation": 0.0}


def dice(one, other):
    return 2 * ((one > 0) & (other > 0)).sum() / ((one > 0).sum() + (other > 0).sum())


@pytest.mark.parametrize("seed", range(8))
def test_a_phantom_hand_is_separated_from_its_background(seed):
    phantom = hand_phantom(seed, 20 + 12 * seed, "MF"[seed % 2], 384)
    found = masking.hand_mask(phantom.image)
    assert found.shape == phantom.mask.shape
    assert set(np.unique(found)) == {0, 1}
    assert dice(found, phantom.mask) > 0.95


@pytest.mark.parametrize("nothing", [np.full((200, 160), 90, np.uint8), picture(200, 160)])
def test_no_hand_no_mask(nothing):
    assert masking.hand_mask(nothing) is None


def test_a_film_on_a_canvas_is_no_hand():
    canvas = np.full((400, 400), 20, np.uint8)
    canvas[100:300, 120:280] = 120
    assert masking.hand_mask(canvas) is None


def test_filling_closes_holes_and_leaves_bays_open():
    mask = np.zeros((9, 9), np.uint8)
    mask[1:8, 1:8] = 1
    mask[3, 3] = mask[1, 5] = 0
    filled = masking.fill_holes(mask)
    assert filled[3, 3] == 1
    assert filled[1, 5] == 0
    assert filled.sum() == mask.sum() + 1


def test_dilation_goes_so_far_on_every_side():
    mask = np.zeros((11, 11), np.uint8)
    mask[5, 5] = 1
    wide = masking.dilate(mask, 2)
    assert np.array_equal(np.flatnonzero(wide[5]), [3, 4, 5, 6, 7])
    assert np.array_equal(np.flatnonzero(wide[:, 5]), [3, 4, 5, 6, 7])
    assert wide[3, 3] == 0
    assert masking.dilate(mask, 0) is mask


@pytest.mark.parametrize(
    "drawn", [HAND.mask, (HAND.mask > 0).astype(np.uint8), (HAND.mask > 0).astype(np.uint16) * 65535]
)
def test_a_file_may_hold_0_and_1_or_0_and_the_highest(drawn):
    read = masking.read_mask(encoded(drawn), *HAND.mask.shape, 100.0)
    assert np.array_equal(read, HAND.mask > 0)


def problem_of(mask_data, config=None):
    with pytest.raises(InputProblem) as raised:
        prepare_image(encoded(HAND.image), config or ImageConfig(mask="file"), mask_data)
    return raised.value


@pytest.mark.parametrize(
    ("mask_data", "message", "status"),
    [
        (None, "no mask file", "rejected"),
        (b"", "cannot be read: truncated", "failed"),
        (b"not a picture", "cannot be read: unsupported_format", "failed"),
        (encoded(HAND.mask[:-1]), r"307 x 383 pixels, its image 307 x 384", "rejected"),
        (encoded(np.zeros_like(HAND.mask)), "covers 0.00%", "rejected"),
    ],
)
def test_a_mask_that_cannot_be_used_is_a_problem_with_its_reason(mask_data, message, status):
    problem = problem_of(mask_data)
    assert (problem.step, problem.reason, problem.status) == ("mask", "no_mask", status)
    assert message in problem.message
    assert problem.thumbnail.startswith(b"\x89PNG")


def test_a_hand_that_is_not_found_is_refused_and_never_used_whole():
    with pytest.raises(InputProblem, match="no_mask"):
        prepare_image(encoded(picture(200, 160)), ImageConfig(mask="hand"))


def test_the_default_has_no_mask_and_the_same_pixels_as_ever():
    made = prepare_image(encoded(HAND.image), ImageConfig(size=128), encoded(HAND.mask))
    assert made.mask is None
    assert np.array_equal(made.pixels, enhance.square(HAND.image, 128)[0])


def test_the_declared_order_is_mask_fill_dilation_overlay_clahe_sharpening():
    holed = HAND.mask.copy()
    y, x = np.argwhere(cv2.erode(HAND.mask, np.ones((25, 25), np.uint8)))[0]
    holed[y - 6 : y + 7, x - 6 : x + 7] = 0
    config = ImageConfig(size=192, mask="file", mask_dilation=0.02, clahe_clip=2.0, clahe_tiles=4, sharpen=0.3)
    made = prepare_image(encoded(HAND.image), config, encoded(holed))
    square, _ = enhance.square(HAND.image, 192)
    mask = masking.dilate(masking.fill_holes(masking.square_mask(holed // 255, 192)), 4)
    laid = np.where(mask > 0, square, 0).astype(np.uint8)
    assert np.array_equal(made.mask, mask)
    assert np.array_equal(made.pixels, enhance.sharpen(enhance.clahe(laid, 2.0, 4), 0.3))


@pytest.mark.parametrize(
    ("changed", "differs"),
    [({"mask_fill": True}, True), ({"mask_dilation": 0.02}, True), ({"mask_overlay": False}, False)],
)
def test_every_step_can_be_switched(changed, differs):
    holed = HAND.mask.copy()
    holed[250:256, 150:156] = 0
    plain = prepare_image(encoded(HAND.image), ImageConfig(size=192, mask="file", **NO_STEPS), encoded(holed))
    other = prepare_image(
        encoded(HAND.image), ImageConfig(size=192, mask="file", **(NO_STEPS | changed)), encoded(holed)
    )
    assert (not np.array_equal(plain.mask, other.mask)) == differs
    assert not np.array_equal(plain.pixels, other.pixels)
    assert np.array_equal(plain.pixels, enhance.square(HAND.image, 192)[0] * plain.mask)


def test_the_mask_follows_crop_and_square():
    dot = np.zeros_like(HAND.mask)
    dot[100:200, 90:180] = 255
    made = prepare_image(
        encoded(HAND.image), ImageConfig(size=96, crop="hand", crop_margin=0.0, mask="file"), encoded(dot)
    )
    s, tx, ty = made.to_original
    rows, columns = np.flatnonzero(made.mask.any(1)), np.flatnonzero(made.mask.any(0))
    corners = s * np.array([columns[0] - 0.5, rows[0] - 0.5, columns[-1] + 0.5, rows[-1] + 0.5]) + [tx, ty, tx, ty]
    assert corners == pytest.approx([89.5, 99.5, 179.5, 199.5], abs=0.6 * s)
    assert (rows[0], rows[-1]) == (0, 95)


def test_classical_masks_and_files_lead_to_the_same_place():
    by_file = prepare_image(encoded(HAND.image), ImageConfig(size=192, mask="file"), encoded(HAND.mask))
    by_hand = prepare_image(encoded(HAND.image), ImageConfig(size=192, mask="hand"))
    assert dice(by_file.mask, by_hand.mask) > 0.96
    assert by_file.to_original == by_hand.to_original
