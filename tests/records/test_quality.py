"""The gate: reasons and thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import picture

from boneage_ray.errors import InputProblem
from boneage_ray.records.quality import QualityConfig, check_quality


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
    ("span", "reason"), [(0, "blank"), (4, "blank"), (7, "low_contrast"), (12, "low_contrast"), (14, None), (200, None)]
)
def test_gray_levels_have_to_span_two_and_then_five_per_cent_of_the_scale(span, reason):
    assert verdict(spread(span)) == reason


@pytest.mark.parametrize(("bits", "reason"), [(10, None), (12, None), (14, None), (16, None)])
def test_16_bit_pixels_are_judged_by_their_own_range(bits, reason):
    assert verdict(spread(0.9 * 2**bits, np.uint16, low=0)) == reason
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
        ((64, 256), None),
        ((256, 64), None),
        ((64, 257), "wrong_aspect"),
        ((300, 70), "wrong_aspect"),
    ],
)
def test_size_and_aspect(shape, reason):
    assert verdict(picture(*shape)) == reason


def test_the_message_says_what_was_found_and_what_is_needed():
    with pytest.raises(InputProblem, match="50 x 90 pixels; the shorter side needs 64"):
        check_quality(picture(90, 50), QualityConfig())
    with pytest.raises(InputProblem, match=r"sides differ 5\.0 times; at most 4"):
        check_quality(picture(400, 80), QualityConfig())


def test_thresholds_can_be_set():
    assert verdict(picture(90, 50), min_side=40) is None
    assert verdict(spread(23), min_contrast=0.5) == "low_contrast"
