"""Damaged raster files give their own pixels or a problem, never pixels made up; real radiographs give what OpenCV gives."""

from __future__ import annotations

import os
import tracemalloc
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
from pictures import encoded, interlaced_png, picture, tiff_of

from boneage_ray.decoding.decode import decode
from boneage_ray.errors import InputProblem

GRAY = picture(61, 50)
DEEP = GRAY.astype(np.uint16) * 257 + 3
PACKERS = {1: bytes, 5: imagecodecs.lzw_encode, 8: zlib.compress, 32773: imagecodecs.packbits_encode}
DATA = Path(os.environ.get("BONEAGE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))

WHOLE = {
    "png": encoded(GRAY),
    "png-16": encoded(DEEP),
    "png-interlaced": interlaced_png(GRAY),
    "png-palette": encoded(GRAY, mode="P"),
    "jpeg": encoded(GRAY, "JPEG"),
    "jpeg-progressive": encoded(GRAY, "JPEG", mode="RGB", progressive=True),
    "jpeg-restarts": encoded(GRAY, "JPEG", restart_marker_rows=1),
    "tiff": tiff_of(GRAY),
    "tiff-end": encoded(GRAY, "TIFF"),
    "tiff-lzw": tiff_of(GRAY, {259: 5}, strips=[imagecodecs.lzw_encode(GRAY.tobytes())]),
    "tiff-deflate": tiff_of(GRAY, {259: 8}, strips=[zlib.compress(GRAY.tobytes())]),
    "tiff-packbits": tiff_of(GRAY, {259: 32773}, strips=[imagecodecs.packbits_encode(GRAY.tobytes())]),
    "tiff-jpeg": tiff_of(GRAY, {259: 7}, strips=[encoded(GRAY, "JPEG")]),
    "tiff-big": tiff_of(DEEP, big=True, order=">"),
    "bmp": encoded(GRAY, "BMP"),
    "bmp-24": encoded(GRAY, "BMP", mode="RGB"),
}


# Formats without a checksum, in which zeros mean pixels like any other bytes: nobody can know.
ZEROS_ARE_DATA = ("tiff", "tiff-end", "tiff-big", "tiff-lzw", "tiff-packbits", "bmp", "bmp-24")


def outcome(data):
    try:
        return decode(data, 5).pixels
    except InputProblem as found:
        assert found.step == "decode"
        return None


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("rest", ["gone", "zeros"])
def test_a_cut_file_gives_its_pixels_or_a_problem_but_never_filled_ones(kind, rest):
    data = WHOLE[kind]
    pixels = outcome(data)
    assert pixels is not None
    if rest == "zeros" and kind in ZEROS_ARE_DATA:
        return
    for cut in {*range(len(data) - 12, len(data)), *range(0, len(data), max(1, len(data) // 40))}:
        found = outcome(data[:cut] + bytes(len(data) - cut) * (rest == "zeros"))
        assert found is None or np.array_equal(found, pixels), cut


def test_shortened_strips_are_problems_too():
    for compression, pack in PACKERS.items():
        strip = pack(GRAY.tobytes())
        for cut in range(0, len(strip) - 8, len(strip) // 20):
            assert outcome(tiff_of(GRAY, {259: compression}, strips=[strip[:cut] or b"\0"])) is None


def test_flipped_bits_end_as_an_image_or_a_problem(capfd):
    rng = np.random.default_rng(0)
    for data in WHOLE.values():
        for _ in range(200):
            damaged = bytearray(data)
            for _ in range(rng.integers(1, 4)):
                at = rng.integers(len(data)) if rng.integers(2) else rng.integers(min(len(data), 300))
                damaged[at] ^= 1 << rng.integers(8)
            outcome(bytes(damaged))
    assert capfd.readouterr() == ("", "")


def test_memory_stays_near_that_of_the_pixels():
    side = 2000
    pixels = np.tile(picture(200, 200), (10, 10))
    for data in (
        tiff_of(pixels, {259: 8}, strips=[zlib.compress(pixels.tobytes())]),
        encoded(pixels),
        encoded(pixels, "BMP"),
    ):
        tracemalloc.start()
        decode(data)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 5 * side * side


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real radiographs (BONEAGE_TEST_DATA)")
@pytest.mark.parametrize(
    ("pattern", "count"),
    [("hands/boneage-training-dataset/**/*.png", 20), ("hands/full-size/*.png", 4), ("cephalograms/images/*.jpg", 8)],
)
def test_real_radiographs_have_the_pixels_that_opencv_gives(pattern, count):
    files = sorted(DATA.glob(pattern))
    assert len(files) >= count
    for path in files[:: len(files) // count][:count]:
        data = path.read_bytes()
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert np.array_equal(decode(data).pixels, expected)
        assert max(expected.shape) == 512 or min(expected.shape) > 900
