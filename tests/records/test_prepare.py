"""One file to one prepared image, synthetic and real."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pictures import centroid, dot, encoded, picture, png_of
from pydantic import ValidationError

from boneage_ray.errors import InputProblem
from boneage_ray.records import enhance
from boneage_ray.records.prepare import ImageConfig, prepare

DATA = Path(os.environ.get("BONEAGE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def test_a_file_becomes_a_square_of_the_asked_size():
    image = picture(400, 300)
    made = prepare(encoded(image), ImageConfig(size=128))
    expected, to_original = enhance.square(image, 128)
    assert np.array_equal(made.pixels, expected)
    assert made.to_original == to_original == (3.125, -48.9375, 1.0625)


def test_the_declared_order_is_square_then_clahe_then_sharpening():
    image = picture(400, 300)
    made = prepare(encoded(image), ImageConfig(size=128, clahe_clip=2.0, clahe_tiles=4, sharpen=0.3))
    square, _ = enhance.square(image, 128)
    assert np.array_equal(made.pixels, enhance.sharpen(enhance.clahe(square, 2.0, 4), 0.3))


def test_all_forms_of_one_picture_are_prepared_alike():
    image = picture(400, 300)
    low, high = int(image.min()), int(image.max())
    stretched = np.rint((image.astype(np.float32) - low) * (255 / (high - low))).astype(np.uint8)
    config = ImageConfig(size=96)
    plain = prepare(encoded(stretched), config).pixels
    for data in (
        encoded(stretched, mode="RGBA"),
        encoded(stretched, "TIFF"),
        encoded(stretched, "BMP"),
        encoded(image.astype(np.uint16)),
        encoded(image.astype(np.uint16) * 200 + 3000),
    ):
        assert np.array_equal(prepare(data, config).pixels, plain)


def test_a_point_on_the_prepared_image_leads_back_to_the_file():
    image = np.maximum(dot(1200, 900, 700.0, 333.0, 12), 30)
    image[:, :60] = 90
    made = prepare(encoded(image), ImageConfig(size=256))
    s, tx, ty = made.to_original
    x, y = centroid(np.where(made.pixels > 120, made.pixels, 0))
    assert (round(s * x + tx, 0), round(s * y + ty, 0)) == (700, 333)


def test_many_prepared_images_do_not_hold_their_files_pixels():
    made = prepare(encoded(picture(1000, 800)), ImageConfig(size=64))
    assert made.source.pixels.nbytes == 64 * 64


def test_a_rejected_image_keeps_its_reason():
    with pytest.raises(InputProblem) as caught:
        prepare(encoded(np.full((100, 100), 40, np.uint8)), ImageConfig())
    assert (caught.value.step, caught.value.reason, caught.value.status) == ("quality", "blank", "rejected")


def test_the_size_limit_of_the_config_counts():
    with pytest.raises(InputProblem, match=r"at most 0\.01 megapixels"):
        prepare(encoded(picture(200, 100)), ImageConfig(max_megapixels=0.01))
    with pytest.raises(InputProblem, match="more pixels than can be accepted"):
        prepare(png_of(20_000, 20_000, b""), ImageConfig())


def test_what_nobody_foresaw_is_a_problem_of_this_file_only(monkeypatch):
    def surprise(pixels, size):
        raise ZeroDivisionError("a surprise")

    monkeypatch.setattr(enhance, "square", surprise)
    with pytest.raises(InputProblem, match="internal_error: ZeroDivisionError: a surprise") as caught:
        prepare(encoded(picture()), ImageConfig())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("wrong", [{"size": 16}, {"size": 4096}, {"clahe_clip": -1}, {"sharpen": -0.1}, {"sizes": 9}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        ImageConfig(**wrong)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real radiographs at {DATA} (set BONEAGE_TEST_DATA)")
def test_no_real_radiograph_is_rejected():
    hands = sorted((DATA / "hands/boneage-training-dataset/boneage-training-dataset").glob("*.png"))[:100]
    heads = sorted((DATA / "cephalograms/images").glob("*.jpg"))[:20]
    assert (len(hands), len(heads)) == (100, 20)
    for path in hands + heads:
        made = prepare(path.read_bytes(), ImageConfig())
        assert made.pixels.shape == (256, 256)
        assert made.pixels.std() > 15, path.name
