"""The quality gate: reasons and thresholds."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pictures import picture

from boneage_ray.errors import InputProblem
from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.preparation.quality import QualityConfig, check_quality, thumbnail


def verdict(pixels, **settings):
    """The reason for which an image is rejected, or None."""
    try:
        check_quality(pixels, QualityConfig(**settings))
    except InputProblem as found:
        assert (found.step, found.status) == ("quality", "rejected")
        return found.reason
    return None


def spread(span, dtype=np.uint8, low=50):
    """(100, 100) pixels from `low` to `low + span`, evenly."""
    return np.linspace(low, low + span, 10_000).reshape(100, 100).round().astype(dtype)


def test_an_ordinary_picture_passes():
    assert verdict(picture()) is None


@pytest.mark.parametrize(
    ("span", "reason"), [(0, "blank"), (5, "blank"), (8, "low_contrast"), (16, "low_contrast"), (18, None), (200, None)]
)
def test_gray_levels_have_to_span_a_part_of_the_scale(span, reason):
    assert verdict(spread(span)) == reason


@pytest.mark.parametrize("times", [1, 4, 16, 256, 257])
@pytest.mark.parametrize(("span", "reason"), [(0, "blank"), (16, "low_contrast"), (18, None), (200, None)])
def test_an_8_bit_picture_stored_in_16_bits_has_the_same_result(span, reason, times):
    assert verdict(spread(span).astype(np.uint16) * np.uint16(times)) == reason


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_other_bit_depths_have_their_own_scale(bits):
    assert verdict(spread(0.9 * 2**bits, np.uint16, low=0)) is None
    assert verdict(spread(0.04 * 2**bits, np.uint16, low=0.6 * 2**bits)) == "low_contrast"
    assert verdict(spread(0, np.uint16, low=2**bits - 1)) == "blank"


def test_a_few_bright_pixels_do_not_make_a_blank_film_a_radiograph():
    blank = np.full((200, 200), 40, np.uint8)
    blank[:2, :2] = 255
    assert verdict(blank) == "blank"


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((64, 64), None),
        ((63, 200), "too_small"),
        ((200, 63), "too_small"),
        ((64, 192), None),
        ((192, 64), None),
        ((64, 193), "wrong_aspect"),
        ((300, 70), "wrong_aspect"),
    ],
)
def test_size_and_aspect(shape, reason):
    assert verdict(picture(*shape)) == reason


def test_the_message_says_what_was_found_and_what_is_needed():
    with pytest.raises(InputProblem, match="50 x 90 pixels; the shorter side must have at least 64"):
        check_quality(picture(90, 50), QualityConfig())
    with pytest.raises(InputProblem, match=r"the aspect ratio is 5\.0; at most 3 is allowed"):
        check_quality(picture(400, 80), QualityConfig())


def test_thresholds_can_be_set():
    assert verdict(picture(90, 50), min_side=40) is None
    assert verdict(spread(23), min_contrast=0.5) == "low_contrast"


def blank_in_border():
    frame = np.full((300, 240), 250, np.uint8)
    frame[40:-40, 30:-30] = 90
    return frame


def letters_only():
    frame = np.zeros((300, 240), np.uint8)
    cv2.putText(frame, "L MRS", (20, 150), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 2)
    return frame


@pytest.mark.parametrize("frame", [blank_in_border(), letters_only(), 255 - blank_in_border()])
def test_borders_and_letters_do_not_make_a_blank_film_a_radiograph(frame):
    assert verdict(frame) == "blank"
    assert verdict(frame.astype(np.uint16) * 257) == "blank"


def test_noise_alone_is_blank():
    noise = np.random.default_rng(0).normal(120, 2, (300, 240)).round().astype(np.uint8)
    assert verdict(noise) == "blank"


def radiograph(kind, seed):
    if kind == "head":
        return cephalogram_phantom(seed, seed % 6 + 1, 256).image
    return hand_phantom(seed, 30.0 + 20 * seed, "MF"[seed % 2], 256).image


@pytest.mark.parametrize("kind", ["hand", "head"])
@pytest.mark.parametrize("seed", range(5))
def test_inverted_radiographs_are_corrected_and_others_left_alone(kind, seed):
    image = radiograph(kind, seed)
    config = QualityConfig()
    same, flags = check_quality(image, config)
    assert same is image
    assert flags == ()
    corrected, flags = check_quality(255 - image, config)
    assert flags == ("inverted_corrected",)
    assert np.array_equal(corrected, image)


def test_inversion_of_16_bits_keeps_type_and_steps():
    deep = radiograph("hand", 1).astype(np.uint16) * 16
    corrected, flags = check_quality(4095 - deep, QualityConfig())
    assert flags == ("inverted_corrected",)
    assert corrected.dtype == np.uint16
    assert np.array_equal(corrected - corrected.min(), deep - deep.min())


def test_the_config_decides_how_inverted_images_are_handled():
    image = 255 - radiograph("hand", 2)
    assert verdict(image, inverted="reject") == "inverted"
    kept, flags = check_quality(image, QualityConfig(inverted="keep"))
    assert kept is image
    assert flags == ("inverted",)


@pytest.mark.parametrize("shape", [(40, 30), (1000, 777), (3000, 50), (9, 4000)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_thumbnail_is_a_small_png(shape, dtype):
    pixels = (np.arange(shape[0] * shape[1]) % 251).reshape(shape).astype(dtype)
    small = cv2.imdecode(np.frombuffer(thumbnail(pixels), np.uint8), cv2.IMREAD_UNCHANGED)
    assert small.dtype == np.uint8
    assert small.ndim == 2
    assert max(small.shape) <= 96


@pytest.mark.parametrize("sides", [("left", "right"), ("top",), ("left", "bottom")])
@pytest.mark.parametrize("inverted", [False, True])
def test_wide_shutters_do_not_hide_which_way_round_a_picture_is(sides, inverted):
    """A leg between two unexposed strips that cover half of the film looks inverted to a rule that trusts the rim."""
    hand = hand_phantom(3, 120, "F", 200).image
    strip = 90
    pads = {"left": (0, 1), "right": (1, 1), "top": (0, 0), "bottom": (1, 0)}
    widths = [[0, 0], [0, 0]]
    for side in sides:
        end, axis = pads[side]
        widths[axis][end] = strip
    film = np.pad(hand, widths, constant_values=250)
    pixels, flags = check_quality(255 - film if inverted else film, QualityConfig())
    assert flags == (("inverted_corrected",) if inverted else ())
    assert np.array_equal(pixels, film)
