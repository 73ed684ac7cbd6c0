"""Modality, VOI, Presentation: against numbers worked out by hand from DICOM PS3.3 C.11."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset

from boneage_ray.decoding.dicom.clipping import clipped_share
from boneage_ray.decoding.dicom.gray import window_values
from boneage_ray.decoding.dicom.read import decode_dicom
from boneage_ray.phantoms.dicom import DicomTags, phantom_values, write_values
from boneage_ray.phantoms.hand import hand_phantom

ROW = np.array([[0, 1, 2, 3, 4, 5]], np.uint16)


def gray(values, voi="file", inverted=False, signed=False, bits=12, **extra):
    """The radiograph of one row of stored values."""
    tags = DicomTags(1, bits=bits, inverted=inverted, signed=signed, extra={"RescaleIntercept": 0, **extra})
    return decode_dicom(write_values(np.asarray(values), tags, "explicit-little"), 1, voi)


def levels(radiograph):
    return radiograph.pixels.ravel().tolist()


def lut(first, data, bits=16, vr="US"):
    """One item of a LUT sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [len(data), first, bits])
    item.LUTData = data
    item["LUTData"].VR = "US"
    return [item]


@pytest.mark.parametrize(
    ("function", "center", "width", "expected"),
    [
        # (x - (c - 0.5)) / (w - 1) + 0.5: of c 3, w 5 (x - 2.5) / 4 + 0.5
        ("LINEAR", 3, 5, [0.0, 0.125, 0.375, 0.625, 0.875, 1.0]),
        ("LINEAR", 3, 1, [0, 0, 0, 1, 1, 1]),  # a step between c - 0.5 and above
        ("LINEAR", 2.5, 2, [0, 0, 0.5, 1, 1, 1]),
        # (x - c) / w + 0.5
        ("LINEAR_EXACT", 3, 4, [0, 0, 0.25, 0.5, 0.75, 1.0]),
        ("LINEAR_EXACT", 2.5, 0.5, [0, 0, 0, 1, 1, 1]),
        # 1 / (1 + exp(-4 (x - c) / w)): of x - c = 2 and w = 4 1 / (1 + e^-2)
        ("SIGMOID", 2, 4, [0.11920292, 0.26894142, 0.5, 0.73105858, 0.88079708, 0.95257413]),
    ],
)
def test_window_functions(function, center, width, expected):
    np.testing.assert_allclose(window_values(ROW[0].astype(float), center, width, function), expected, atol=1e-8)
    radiograph = gray(ROW, WindowCenter=center, WindowWidth=width, VOILUTFunction=function)
    assert levels(radiograph) == np.rint(np.array(expected) * 65535).tolist()
    assert radiograph.flags == ()


def test_the_standards_example_of_a_window():
    # PS3.3 C.11.2.1.2.1: c 2048, w 4096 maps 0..4095 to the full range; c 2048, w 1 is a threshold at 2048.
    values = np.array([0.0, 4095.0])
    assert window_values(values, 2048, 4096, "LINEAR").tolist() == [0.0, 1.0]
    assert window_values(np.array([2047.0, 2048.0]), 2048, 1, "LINEAR").tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    "extra",
    [
        {"WindowCenter": 3, "WindowWidth": 0},
        {"WindowCenter": 3, "WindowWidth": -4},
        {"WindowCenter": 3, "WindowWidth": "NaN"},
        {"WindowCenter": 3},
        {"WindowCenter": 300, "WindowWidth": 10},  # all of it black
        {"WindowCenter": -300, "WindowWidth": 10},  # all of it white
        {"WindowCenter": 3, "WindowWidth": 4, "VOILUTFunction": "CUBIC"},
        {"VOILUTSequence": lut(0, [7, 7, 7])},
    ],
)
def test_an_unusable_voi_keeps_all_levels_and_is_flagged(extra):
    radiograph = gray(ROW, **extra)
    assert levels(radiograph) == [0, 13107, 26214, 39321, 52428, 65535]
    assert radiograph.flags == ("voi_unusable",)


def test_of_several_windows_the_first_counts_and_none_without_voi():
    several = {"WindowCenter": [3, 9], "WindowWidth": [5, 2]}
    assert levels(gray(ROW, **several)) == [0, 8192, 24576, 40959, 57343, 65535]
    assert levels(gray(ROW, "none", **several)) == [0, 13107, 26214, 39321, 52428, 65535]


def test_a_voi_lut_goes_before_a_window():
    extra = {"VOILUTSequence": lut(1, [0, 255, 510, 1023], bits=10), "WindowCenter": 3, "WindowWidth": 5}
    # 0 and 1 take the first entry, 4 and 5 the last one
    assert levels(gray(ROW, **extra)) == [0, 0, 16336, 32671, 65535, 65535]


def test_a_voi_lut_of_negative_values():
    extra = {"VOILUTSequence": lut(-2, [0, 1, 2, 3], bits=2, vr="SS")}
    assert levels(gray(np.array([[-5, -2, -1, 0, 1, 9]], np.int16), signed=True, **extra)) == [
        0,
        0,
        21845,
        43690,
        65535,
        65535,
    ]


def test_rescale_comes_before_the_window():
    # 2 x - 4 is -4, -2, 0, 2, 4, 6; of c 0.5, w 5: x / 4 + 0.5
    extra = {"RescaleSlope": 2, "RescaleIntercept": -4, "WindowCenter": 0.5, "WindowWidth": 5}
    assert levels(gray(ROW, **extra)) == [0, 0, 32768, 65535, 65535, 65535]


def test_a_negative_slope_turns_the_order_round():
    assert levels(gray(ROW, RescaleSlope=-1, RescaleIntercept=5)) == [65535, 52428, 39321, 26214, 13107, 0]


@pytest.mark.parametrize("slope", [0, "NaN", "INF"])
def test_an_unusable_slope_is_flagged(slope):
    radiograph = gray(ROW, RescaleSlope=slope)
    assert levels(radiograph) == [0, 13107, 26214, 39321, 52428, 65535]
    assert radiograph.flags == ("rescale_unusable",)


def test_a_modality_lut_comes_before_the_window_and_goes_before_rescale():
    extra = {
        "ModalityLUTSequence": lut(1, [10, 20, 40, 80]),
        "RescaleSlope": 7,
        "WindowCenter": 20.5,
        "WindowWidth": 21,
    }
    # modality 10 10 20 40 80 80; window (x - 20) / 20 + 0.5
    assert levels(gray(ROW, **extra)) == [0, 0, 32768, 65535, 65535, 65535]


def test_inversion_comes_last_and_only_once():
    plain = levels(gray(ROW, WindowCenter=3, WindowWidth=5))
    inverted = [65535 - level for level in plain]
    one = {"WindowCenter": 3, "WindowWidth": 5}
    assert levels(gray(ROW, inverted=True, **one)) == inverted  # MONOCHROME1 and INVERSE
    assert levels(gray(ROW, inverted=True, PresentationLUTShape=None, **one)) == inverted
    twisted = gray(ROW, PresentationLUTShape="INVERSE", **one)
    assert (levels(twisted), twisted.flags) == (inverted, ("polarity_unclear",))
    twisted = gray(ROW, inverted=True, PresentationLUTShape="IDENTITY", **one)
    assert (levels(twisted), twisted.flags) == (inverted, ("polarity_unclear",))


def test_signed_values_keep_their_order():
    values = np.array([[-2048, -1024, 0, 2047]], np.int16)
    # (x + 2048) / 4095 of 65535
    assert levels(gray(values, signed=True)) == [0, 16388, 32776, 65535]
    assert levels(gray(np.array([[-128, -1, 0, 127]], np.int8), signed=True, bits=8)) == [0, 127, 128, 255]


def test_eight_bit_pixels_stay_what_they_are():
    values = np.array([[3, 10, 200]], np.uint8)
    assert levels(gray(values, bits=8)) == [3, 10, 200]
    assert levels(gray(values, bits=8, inverted=True)) == [252, 245, 55]
    assert levels(gray(values, bits=8, WindowCenter=128, WindowWidth=256)) == [3, 10, 200]


def test_padding_is_black_and_does_not_stretch_the_range():
    values = np.array([[4095, 100, 150, 200]], np.uint16)
    assert levels(gray(values, PixelPaddingValue=4095)) == [0, 0, 32768, 65535]
    assert levels(gray(values, inverted=True, PixelPaddingValue=4095)) == [0, 65535, 32768, 0]
    limits = {"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 4095}
    assert levels(gray(values, **limits)) == [0, 0, 32768, 65535]
    assert levels(gray(values, PixelPaddingValue=7)) == [65535, 0, 820, 1640]
    assert levels(gray(np.full((1, 4), 9, np.uint16), PixelPaddingValue=9)) == [0, 0, 0, 0]


def test_signed_padding():
    values = np.array([[-2000, 100, 150, 200]], np.int16)
    assert levels(gray(values, signed=True, PixelPaddingValue=-2000)) == [0, 0, 32768, 65535]


def test_a_blank_image_is_black_and_not_flagged():
    radiograph = gray(np.full((2, 2), 700, np.uint16), WindowCenter=3, WindowWidth=5)
    assert set(levels(radiograph)) <= {0, 65535}
    assert radiograph.flags == ()


@pytest.fixture(scope="module")
def hand():
    """The stored values of a hand of 12 bits; air is 0 to 600, bone is up to 4095."""
    return phantom_values(hand_phantom(3, 60, "F", 192).image, DicomTags(1))


@pytest.mark.parametrize(
    ("center", "width"), [(128, 256), (200, 300), (1000, 500), (3500, 600), (2048, 1), (4000, 300)]
)
def test_a_window_that_ruins_the_picture_is_not_used(hand, center, width):
    radiograph = gray(hand, WindowCenter=center, WindowWidth=width)
    assert radiograph.flags == ("voi_clips",)
    np.testing.assert_array_equal(radiograph.pixels, gray(hand, "none").pixels)
    assert gray(hand, "none", WindowCenter=center, WindowWidth=width).flags == ()


@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (2100, 3800), (2048, 100_000)])
def test_a_window_that_clips_little_is_used(hand, center, width):
    radiograph = gray(hand, WindowCenter=center, WindowWidth=width)
    assert radiograph.flags == ()
    expected = np.rint(np.clip((hand - (center - 0.5)) / (width - 1) + 0.5, 0, 1) * 65535)
    np.testing.assert_array_equal(radiograph.pixels, expected)


def test_air_may_be_clipped_and_padding_does_not_count(hand):
    # Half of the picture is air with noise, which a proper window makes black.
    air = np.random.default_rng(0).integers(0, 40, hand.shape).astype(np.uint16)
    film = np.hstack([air, np.maximum(hand, air)])
    assert gray(film, WindowCenter=2148, WindowWidth=3896).flags == ()
    padded = np.where(np.hstack([np.ones_like(air), np.zeros_like(air)]) == 1, 4095, film).astype(np.uint16)
    assert gray(padded, WindowCenter=1900, WindowWidth=3600, PixelPaddingValue=4095).flags == ()


def test_what_a_window_clips_is_a_share_of_the_differences():
    # Two equal steps, from 0 to 100 to 200: what ends at 100 shows the first only.
    frame = np.repeat(np.array([[0] * 40 + [100] * 40 + [200] * 40], np.uint8), 8, axis=0)
    values, none = np.arange(256.0), np.zeros(256, bool)
    for low, high, share in ((0, 200, 0.0), (0, 100, 0.5), (150, 200, 0.75), (210, 255, 1.0)):
        shown = np.clip((values - low) / (high - low), 0, 1)
        assert clipped_share(frame, values, shown, none) == pytest.approx(share, abs=1e-6)
        assert clipped_share(frame, values, 1 - shown, none) == pytest.approx(share, abs=1e-6)
    assert clipped_share(frame[:1], values, values > 50, none) == 0.0
