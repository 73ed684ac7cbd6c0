"""Preparing one file, synthetic and real."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import centroid, dot, encoded, picture, png_of
from pydantic import ValidationError

from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.errors import InputProblem
from boneage_ray.phantoms.dicom import DicomTags, encode_dicom
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.preparation import enhance
from boneage_ray.preparation.localise import find_hand, widen
from boneage_ray.preparation.prepare import ImageConfig, prepare_image, prepare_pixels, prepare_radiograph
from boneage_ray.preparation.quality import QualityConfig

DATA = Path(os.environ.get("BONEAGE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def test_a_file_becomes_a_square_of_the_asked_size():
    image = picture(400, 300)
    made = prepare_image(encoded(image), ImageConfig(size=128))
    expected, to_original = enhance.square(image, 128)
    assert np.array_equal(made.pixels, expected)
    assert made.to_original == to_original == (3.125, -48.9375, 1.0625)


def test_the_declared_order_is_square_then_clahe_then_sharpening():
    image = picture(400, 300)
    made = prepare_image(encoded(image), ImageConfig(size=128, clahe_clip=2.0, clahe_tiles=4, sharpen=0.3))
    square, _ = enhance.square(image, 128)
    assert np.array_equal(made.pixels, enhance.sharpen(enhance.clahe(square, 2.0, 4), 0.3))


def test_all_forms_of_one_picture_are_prepared_alike():
    image = picture(400, 300)
    low, high = int(image.min()), int(image.max())
    stretched = np.rint((image.astype(np.float32) - low) * (255 / (high - low))).astype(np.uint8)
    config = ImageConfig(size=96)
    plain = prepare_image(encoded(stretched), config).pixels
    for data in (
        encoded(stretched, mode="RGBA"),
        encoded(stretched, "TIFF"),
        encoded(stretched, "BMP"),
        encoded(image.astype(np.uint16)),
        encoded(image.astype(np.uint16) * 200 + 3000),
    ):
        assert np.array_equal(prepare_image(data, config).pixels, plain)


@pytest.mark.parametrize("size", [256, 255, 97])
@pytest.mark.parametrize("place", [(310.0, 166.0), (150.0, 451.0), (277.5, 320.25)])
def test_a_point_on_the_prepared_image_leads_back_to_the_file(size, place):
    image = np.maximum(dot(601, 449, *place, 2.5 * 601 / size), picture(601, 449) // 4)
    made = prepare_image(encoded(image), ImageConfig(size=size))
    s, tx, ty = made.to_original
    x, y = centroid(np.maximum(made.pixels.astype(int) - 120, 0))
    assert abs(s * x + tx - place[0]) < 0.06 * s
    assert abs(s * y + ty - place[1]) < 0.06 * s


HAND = hand_phantom(3, 130.0, "F", 701).image


@pytest.mark.parametrize("size", [256, 255, 96])
@pytest.mark.parametrize("place", [(0.5, 0.5), (0.42, 0.61), (0.58, 0.34)])
def test_points_lead_back_from_a_cropped_image_too(size, place):
    canvas = np.zeros((901, 1203), np.uint8)
    canvas[201 - 1 : 901, 401 : 401 + HAND.shape[1]] = HAND // 2
    x, y = 401 + place[0] * HAND.shape[1], 200 + place[1] * 701
    marked = np.maximum(canvas, dot(901, 1203, x, y, 2.5 * 750 / size))
    made = prepare_radiograph(Radiograph(marked), ImageConfig(size=size, crop="hand"))
    s, tx, ty = made.to_original
    assert made.flags == ()
    assert made.original_size == (901, 1203)
    assert s < 0.85 * 1203 / size
    found_x, found_y = centroid(np.maximum(made.pixels.astype(int) - 140, 0))
    assert abs(s * found_x + tx - x) < 0.06 * s
    assert abs(s * found_y + ty - y) < 0.06 * s


def test_the_crop_is_the_hands_box_with_its_margin():
    made, (s, tx, ty), flags, _ = prepare_pixels(HAND, ImageConfig(size=128, crop="hand", crop_margin=0.1))
    box = widen(find_hand(HAND), 0.1, *HAND.shape)
    inside = HAND[box.y0 : box.y1, box.x0 : box.x1]
    expected, (same, left, top) = enhance.square(inside, 128)
    assert np.array_equal(made, expected)
    assert (s, tx, ty, flags) == (same, left + box.x0, top + box.y0, ())


def test_without_a_hand_the_whole_image_is_used_and_flagged():
    image = picture(400, 300)
    made = prepare_image(encoded(image), ImageConfig(size=128, crop="hand"))
    if find_hand(image) is None:
        assert "hand_not_found" in made.flags
        assert made.to_original == enhance.square(image, 128)[1]
    noise = np.random.default_rng(0).integers(60, 120, (300, 300)).astype(np.uint8)
    assert prepare_pixels(noise, ImageConfig(crop="hand"))[2] == ("hand_not_found",)
    assert prepare_pixels(noise, ImageConfig())[2] == ()


def test_a_refused_image_comes_with_a_thumbnail():
    blank = np.full((1000, 500), 7, np.uint8)
    for radiograph in (Radiograph(blank), Radiograph(HAND, regions=("CHEST",))):
        with pytest.raises(InputProblem) as caught:
            prepare_radiograph(radiograph, ImageConfig(quality=QualityConfig(body_part="hand")))
        small = cv2.imdecode(np.frombuffer(caught.value.thumbnail, np.uint8), cv2.IMREAD_UNCHANGED)
        assert max(small.shape) == 96


def test_an_inverted_image_is_prepared_like_the_upright_one():
    upright = prepare_radiograph(Radiograph(HAND), ImageConfig())
    turned = prepare_radiograph(Radiograph(255 - HAND), ImageConfig())
    assert np.array_equal(turned.pixels, upright.pixels)
    assert turned.flags == ("inverted_corrected",)
    assert turned.pixel_sha256 != upright.pixel_sha256


def test_many_prepared_images_do_not_hold_their_files_pixels():
    made = prepare_image(encoded(picture(1000, 800)), ImageConfig(size=64))
    assert made.source.pixels.nbytes == 64 * 64


def test_a_rejected_image_keeps_its_reason():
    with pytest.raises(InputProblem) as caught:
        prepare_image(encoded(np.full((100, 100), 40, np.uint8)), ImageConfig())
    assert (caught.value.step, caught.value.reason, caught.value.status) == ("quality", "blank", "rejected")


def test_the_size_limit_of_the_config_counts():
    with pytest.raises(InputProblem, match=r"at most 0\.01 megapixels"):
        prepare_image(encoded(picture(200, 100)), ImageConfig(max_megapixels=0.01))
    with pytest.raises(InputProblem, match="at most 100 megapixels"):
        prepare_image(png_of(20_000, 20_000, b""), ImageConfig())


def test_an_unexpected_error_is_a_problem_of_this_file_only(monkeypatch):
    def surprise(pixels, size):
        raise ZeroDivisionError("a surprise")

    monkeypatch.setattr(enhance, "square", surprise)
    with pytest.raises(InputProblem, match="internal_error: ZeroDivisionError: a surprise") as caught:
        prepare_image(encoded(picture()), ImageConfig())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("wrong", [{"size": 16}, {"size": 4096}, {"clahe_clip": -1}, {"sharpen": -0.1}, {"sizes": 9}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        ImageConfig(**wrong)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real radiographs at {DATA} (set BONEAGE_TEST_DATA)")
def test_no_real_radiograph_is_rejected():
    hands = sorted((DATA / "hands/boneage-training-dataset/boneage-training-dataset").glob("*.png"))[::10]
    heads = sorted((DATA / "cephalograms/images").glob("*.jpg"))[::10]
    assert (len(hands), len(heads)) == (95, 20)
    for path in hands + heads:
        made = prepare_image(path.read_bytes(), ImageConfig())
        assert made.pixels.shape == (256, 256)
        assert made.pixels.std() > 5, path.name
        assert not any("invert" in flag for flag in made.flags), path.name


def test_a_window_that_takes_the_contrast_is_named():
    film = hand_phantom(3, 120, "F", 192).image
    wide = encode_dicom(film, DicomTags(1, window=(2048, 100_000)))
    with pytest.raises(InputProblem) as caught:
        prepare_image(wide, ImageConfig(size=96))
    assert caught.value.reason == "low_contrast"
    named = "this is under the window (center 2048, width 100000) of the file: --voi none keeps all gray levels"
    assert named in caught.value.message
    assert prepare_image(wide, ImageConfig(size=96, voi="none")).flags == ()
    with pytest.raises(InputProblem) as caught:
        prepare_image(encode_dicom(film // 64 + 100, DicomTags(1, bits=8, window=(128, 256))), ImageConfig(size=96))
    assert "window" not in caught.value.message
