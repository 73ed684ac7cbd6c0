"""Bytes to gray pixels: formats, depths, and refusal of whatever is damaged."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc

import cv2
import numpy as np
import pytest
from pictures import PNG_START, chunk, encoded, interlaced_png, picture, png_of
from PIL import Image

from boneage_ray.decoding.decode import decode
from boneage_ray.errors import InputProblem

GRAY = picture()


def problem(data, *limits):
    """(reason, message) of the problem that these bytes must be."""
    with pytest.raises(InputProblem) as caught:
        decode(data, *limits)
    assert (caught.value.step, caught.value.status) == ("decode", "failed")
    return caught.value.reason, caught.value.message


def tiff(pixels, white_is_zero=False):
    """An uncompressed TIFF, after the standard turned to white-is-zero by its tag alone."""
    data = bytearray(encoded(pixels, "TIFF"))
    if white_is_zero:
        data[data.find(struct.pack("<HHI", 262, 3, 1)) + 8] = 0
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        encoded(GRAY),
        encoded(GRAY, mode="RGB"),
        encoded(GRAY, mode="RGBA"),
        encoded(GRAY, mode="LA"),
        encoded(GRAY, mode="P"),
        interlaced_png(GRAY),
        encoded(GRAY, "BMP"),
        encoded(GRAY, "BMP", mode="RGB"),
        tiff(GRAY),
        encoded(GRAY, "TIFF", compression="tiff_lzw"),
        encoded(GRAY, "TIFF", mode="RGBA"),
    ],
    ids=["gray", "rgb", "rgba", "gray-alpha", "palette", "interlaced", "bmp", "bmp24", "tiff", "lzw", "tiff-rgba"],
)
def test_lossless_forms_of_a_gray_picture_give_its_pixels(data):
    pixels = decode(data).pixels
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, GRAY)


def test_a_1_bit_png_becomes_black_and_white():
    bits = np.where(GRAY > 100, 255, 0).astype(np.uint8)
    assert np.array_equal(decode(encoded(bits, mode="1")).pixels, bits)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_pixels_stay_as_stored(form):
    deep = GRAY.astype(np.uint16) * 16 + 5
    pixels = decode(encoded(deep, form)).pixels
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, deep)


def test_colour_becomes_gray_with_the_weights_299_587_114():
    colours = np.zeros((80, 90, 3), np.uint8)
    colours[:, :30, 0], colours[:, 30:60, 1], colours[:, 60:, 2] = 255, 255, 255
    assert decode(encoded(colours)).pixels[0, [0, 30, 60]].tolist() == [76, 150, 29]
    jpeg = decode(encoded(colours, "JPEG", quality=100, subsampling=0)).pixels[40, [15, 45, 75]]
    assert np.abs(jpeg.astype(int) - [76, 150, 29]).max() <= 2


def test_an_alpha_channel_is_dropped_not_blended():
    image = np.dstack([GRAY, GRAY, GRAY, np.zeros_like(GRAY)])
    assert np.array_equal(decode(encoded(image)).pixels, GRAY)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_jpegs_are_near_their_picture(mode, options):
    smooth = cv2.GaussianBlur(GRAY, (0, 0), 2)
    pixels = decode(encoded(smooth, "JPEG", mode=mode, quality=95, **options)).pixels
    assert np.abs(pixels.astype(int) - smooth).max() <= 8


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(1, lambda a: a), (2, np.fliplr), (3, lambda a: np.rot90(a, 2)), (6, lambda a: np.rot90(a, -1)), (8, np.rot90)],
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_exif_orientation_of_a_jpeg_is_applied(orientation, turn, mode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = cv2.GaussianBlur(GRAY, (0, 0), 3)
    pixels = decode(encoded(smooth, "JPEG", mode=mode, quality=95, exif=exif)).pixels
    assert pixels.shape == turn(smooth).shape
    assert np.abs(pixels.astype(int) - turn(smooth)).max() <= 8


def test_white_is_zero_tiffs_are_turned_at_either_depth():
    assert np.array_equal(decode(tiff(GRAY, white_is_zero=True)).pixels, 255 - GRAY)
    deep = GRAY.astype(np.uint16) * 16
    assert np.array_equal(decode(tiff(deep, white_is_zero=True)).pixels, deep.max() - deep)


def test_nothing_is_known_of_sex_or_spacing_from_plain_images():
    found = decode(encoded(GRAY, dpi=(300, 300)))
    assert (found.sex, found.pixel_spacing_mm, found.pixel_spacing_source, found.uids) == (None, None, None, {})


def test_an_empty_file():
    assert problem(b"") == ("truncated", "the file is empty (0 bytes)")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"This is a note, not a picture.\n", " but plain text"),
        ("Röntgen: keine Auffälligkeiten\n".encode() * 30, " but plain text"),
        (b'{"version": "5.4.1", "shapes": []}', " but JSON"),
        (b'<?xml version="1.0"?><a/>', " but an XML document"),
        (b"<!DOCTYPE html><html></html>", " but an HTML page"),
        (b"\0" * 1000, ""),
        (b"%PDF-1.7\n", " but a PDF document; export the radiograph from it as PNG or DICOM"),
        (encoded(GRAY, "GIF"), " but a GIF; save it as PNG"),
        (encoded(GRAY, "WEBP"), " but a WebP; save it as PNG"),
        (encoded(GRAY, "PPM"), ""),
        (b"PK\3\4" + bytes(50), " but a ZIP archive; name it .zip and it is opened"),
        (bytes(257) + b"ustar" + bytes(250), " but a tar archive; name it .tar and it is opened"),
        (b"\0\0\0\x18ftypheic" + bytes(30), " but a HEIC photo; save it as PNG or JPEG"),
        (b"\0\0\0\x18ftypisom" + bytes(30), " but a video; one radiograph a file is needed"),
        (b"\xff\x4f\xff\x51" + bytes(30), " but a bare JPEG 2000 codestream; it is read inside of DICOM only"),
        (b"\x5c\x01\0\0" + bytes(340) + b"n+1\0", " but a NIfTI volume; a radiograph is one picture"),
    ],
)
def test_other_formats_are_told_by_content(data, name):
    assert problem(data) == (
        "unsupported_format",
        f"not one of DICOM, PNG, JPEG, TIFF, BMP (recognised by content){name}",
    )


def test_a_dicom_goes_through_the_other_door():
    with pytest.raises(InputProblem) as caught:
        decode(b"\0" * 128 + b"DICM" + b"\0" * 100)
    assert caught.value.step == "decode"
    assert "recognised by content" not in caught.value.message


def test_pydicom_is_not_loaded_for_a_raster_image():
    code = "import sys, boneage_ray.decoding.decode as d; d.decode(sys.stdin.buffer.read()); print('pydicom' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], input=encoded(GRAY), capture_output=True, check=True)
    assert done.stdout == b"False\n"


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_tiffs_of_other_numbers_are_unsupported(dtype):
    reason, message = problem(encoded(GRAY.astype(dtype), "TIFF"))
    assert (reason, message) == ("unsupported_format", f"TIFF of {np.dtype(dtype)} pixels; 8 or 16 bits are read")


@pytest.mark.parametrize("form", ["TIFF", "PNG"])
def test_several_pages_or_frames_are_refused(form):
    more = [Image.fromarray(255 - GRAY)]
    data = encoded(GRAY, form, save_all=True, append_images=more)
    assert problem(data) == ("multi_frame", "2 pages; one radiograph a file is needed")


WHOLE = {
    "png": encoded(picture(300, 240)),
    "png-interlaced": interlaced_png(picture(300, 240)),
    "jpeg": encoded(picture(300, 240), "JPEG"),
    "jpeg-progressive": encoded(picture(300, 240), "JPEG", progressive=True),
    "tiff": encoded(picture(300, 240), "TIFF"),
    "tiff-lzw": encoded(picture(300, 240), "TIFF", compression="tiff_lzw"),
    "bmp": encoded(picture(300, 240), "BMP"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_cut_file_is_a_problem_wherever_it_was_cut(kind):
    whole = WHOLE[kind]
    decode(whole)
    # Up to the last byte that carries anything: a reader need not miss the CRC of IEND.
    last = len(whole) - 5 if kind.startswith("png") else len(whole) - 1
    cuts = {*range(1, 60), *range(60, last, max(1, last // 120)), *range(last - 40, last + 1)}
    reasons = {problem(whole[:cut])[0] for cut in cuts}
    assert reasons <= {"truncated", "unreadable", "unsupported_format"}
    assert problem(whole[: last // 2])[0] in ("truncated", "unreadable")


def test_a_cut_jpeg_is_not_whole_because_of_its_thumbnail():
    thumbnail = encoded(picture(100, 80), "JPEG")
    exif = b"Exif\0\0II*\0\x08\0\0\0" + b"\0" * 6 + thumbnail
    body = WHOLE["jpeg"]
    data = body[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + body[2:]
    decode(data)
    for cut in range(len(exif), len(data) - 2, len(data) // 60):
        problem(data[:cut])


def test_a_cut_that_keeps_the_last_chunk_is_a_problem():
    whole = WHOLE["png"]
    at = whole.find(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", whole, at)
    half = chunk(b"IDAT", whole[at + 8 : at + 8 + length // 2])
    assert problem(whole[:at] + half + chunk(b"IEND"))[0] == "unreadable"


@pytest.mark.parametrize("offset", ["data", "checksum"])
def test_a_flipped_bit_in_png_data_is_a_problem(offset):
    whole = bytearray(WHOLE["png"])
    at = whole.find(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", whole, at)
    whole[at + 8 + (length // 2 if offset == "data" else length)] ^= 0x10
    assert problem(bytes(whole)) == ("unreadable", "PNG could not be decoded; its data are damaged")


def test_a_damaged_header_is_told_apart_from_an_unknown_format():
    whole = bytearray(WHOLE["png"])
    whole[20] ^= 0xFF
    assert problem(bytes(whole)) == ("unreadable", "starts as a PNG, but its header is damaged or cut off")


@pytest.mark.parametrize("side", [20_000, 2**31 - 1])
def test_a_header_bomb_is_refused_from_its_header(side):
    bomb = png_of(side, side, b"\0" * 5000)
    tracemalloc.start()
    reason, _ = problem(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reason == "too_large"
    assert peak < 1_000_000


def test_the_limit_is_in_megapixels_and_told():
    assert problem(encoded(picture(200, 100)), 0.0199) == (
        "too_large",
        "100 x 200 pixels; at most 0.0199 megapixels",
    )
    assert decode(encoded(picture(200, 100)), 0.02).pixels.shape == (200, 100)


def test_a_png_that_inflates_to_less_than_it_declares_is_a_problem():
    assert problem(png_of(900, 900, b"\0" * 1000))[0] == "unreadable"
    assert problem(PNG_START + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0)) + chunk(b"IEND"))[0] in (
        "unreadable",
        "truncated",
    )


def test_random_damage_is_a_problem_or_an_image_and_never_another_error():
    rng = np.random.default_rng(0)
    for data in WHOLE.values():
        for _ in range(40):
            damaged = bytearray(data)
            for at in rng.integers(0, min(len(data), 400), 3):
                damaged[at] = rng.integers(256)
            try:
                decode(bytes(damaged), 10)
            except InputProblem as found:
                assert found.step == "decode"
                assert len(found.message) < 400


def test_the_message_of_a_problem_is_one_line():
    for data in (b"", b"text", WHOLE["png"][:500], WHOLE["tiff-lzw"][:500], io.BytesIO(WHOLE["bmp"]).read(500)):
        assert "\n" not in problem(data)[1]
