"""Files whose header makes the picture smaller than its data, and files into which bytes were put: refused, not cropped."""

from __future__ import annotations

import logging
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from pictures import bmp_of, encoded, interlaced_png, picture, png_of, tiff_of

from boneage_ray.decoding.decode import decode
from boneage_ray.errors import InputProblem

GRAY = picture(61, 50)
DEEP = GRAY.astype(np.uint16) * 257 + 3
STRIPS = [GRAY[:30].tobytes(), GRAY[30:60].tobytes(), GRAY[60:].tobytes()]
PACKERS = {1: bytes, 5: imagecodecs.lzw_encode, 8: zlib.compress, 32773: imagecodecs.packbits_encode}


def pixels_of(data, dtype=np.uint8):
    pixels = decode(data).pixels
    assert pixels.dtype == dtype
    return pixels


def problem(data):
    with pytest.raises(InputProblem) as caught:
        decode(data)
    assert (caught.value.step, caught.value.status) == ("decode", "failed")
    return caught.value.reason, caught.value.message


class TestPng:
    @pytest.mark.parametrize("make", [encoded, interlaced_png])
    @pytest.mark.parametrize("switch", [logging.NOTSET, logging.CRITICAL])
    @pytest.mark.parametrize("field", [16, 20])
    def test_a_header_that_makes_the_picture_smaller_is_refused_in_silence(self, make, switch, field, capfd, caplog):
        for pixels in (GRAY, DEEP) if make is encoded else (GRAY,):
            whole = make(pixels)
            cut = bytearray(whole)
            struct.pack_into(">I", cut, field, struct.unpack_from(">I", whole, field)[0] - (1 if field == 20 else 17))
            struct.pack_into(">I", cut, 29, zlib.crc32(cut[12:29]))
            logging.disable(switch)
            try:
                assert np.array_equal(pixels_of(whole, pixels.dtype), pixels)
                found = problem(bytes(cut))
            finally:
                logging.disable(logging.NOTSET)
            # Rows of another width have other bytes where their filters should be, which libpng may find first.
            assert found[0] == "unreadable"
            assert field == 16 or interlaced_png is make or found[1].endswith("more rows than its header declares")
        assert (capfd.readouterr().err, caplog.records) == ("", [])

    @pytest.mark.parametrize("surplus", [1, 3000])
    def test_surplus_data_are_refused(self, surplus):
        found = problem(png_of(1, 3, b"\0\1\2\3" + bytes(surplus)))
        assert found == ("unreadable", "PNG with data for more rows than its header declares")


class TestTiff:
    @pytest.mark.parametrize("compression", PACKERS)
    @pytest.mark.parametrize("tags", [{256: 49}, {257: 60}, {257: 40, 278: 40}, {257: 29}])
    def test_a_directory_that_makes_the_picture_smaller_is_refused(self, compression, tags):
        for count in (1, 3):
            packed = [PACKERS[compression](strip) for strip in (STRIPS if count == 3 else [GRAY.tobytes()])]
            rows = {278: 30 if count == 3 else 61}
            assert np.array_equal(pixels_of(tiff_of(GRAY, {259: compression, **rows}, strips=packed)), GRAY)
            assert problem(tiff_of(GRAY, {259: compression, **rows, **tags}, strips=packed))[0] == "unreadable"

    def test_a_jpeg_strip_taller_than_the_picture_is_refused(self):
        stream = [encoded(GRAY, "JPEG")]
        assert problem(tiff_of(GRAY, {259: 7, 257: 60}, strips=stream)) == (
            "unreadable",
            "TIFF with a JPEG strip or tile of another size",
        )

    def test_a_last_strip_filled_with_pixels_is_refused(self):
        full = [GRAY[:30].tobytes(), GRAY[30:60].tobytes()]
        assert np.array_equal(pixels_of(tiff_of(GRAY[:60], {278: 30}, strips=full)), GRAY[:60])
        message = "TIFF with a strip or tile of 1500 bytes, 1450 are needed"
        assert problem(tiff_of(GRAY[:60], {278: 30, 257: 59}, strips=full)) == ("unreadable", message)
        repeated = [full[0], GRAY[30:55].tobytes() + GRAY[54:55].repeat(5, 0).tobytes()]
        assert np.array_equal(pixels_of(tiff_of(GRAY[:55], {278: 30}, strips=repeated)), GRAY[:55])

    @pytest.mark.parametrize("pixels", [GRAY[:60], DEEP], ids=["8", "16"])
    def test_bytes_that_were_put_in_are_refused(self, pixels):
        whole = tiff_of(pixels)
        for count in (1, 2, 4, 300):
            message = f"TIFF with {count} bytes that belong to nothing in it"
            assert problem(whole[:-99] + bytes(count) + whole[-99:]) == ("unreadable", message)

    def test_a_directory_or_a_word_may_follow_the_strips(self):
        at_the_end = encoded(GRAY[:60], "TIFF", compression="tiff_adobe_deflate")
        assert np.array_equal(pixels_of(at_the_end), GRAY[:60])
        odd = tiff_of(GRAY[:61, :49])
        even = odd + b"\0" * (len(odd) % 2)
        assert np.array_equal(pixels_of(even), GRAY[:61, :49])

    def test_strips_over_the_directory_are_refused(self):
        data = bytearray(tiff_of(GRAY))
        at = data.index(struct.pack("<HHI", 273, 4, 1)) + 8
        for start in (0, 9, 60):
            struct.pack_into("<I", data, at, start)
            assert problem(bytes(data)) == ("unreadable", "TIFF with a strip or tile that overlaps its directory")


class TestBmp:
    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_bytes_that_were_put_in_or_a_wrong_offset_are_refused(self, mode):
        whole = encoded(GRAY, "BMP", mode=mode)
        assert np.array_equal(pixels_of(whole), GRAY)
        start = struct.unpack_from("<I", whole, 10)[0]
        for count in (1, 2, 4, 40):
            message = f"BMP with {count} bytes more than its header and pixels account for"
            assert problem(whole[: start + 99] + bytes(count) + whole[start + 99 :]) == ("unreadable", message)
            moved = bytearray(whole)
            struct.pack_into("<I", moved, 10, start - count)
            assert problem(bytes(moved))[0] == "unreadable"
        lower = bytearray(whole)
        struct.pack_into("<i", lower, 22, 60)
        assert problem(bytes(lower))[0] == "unreadable"

    def test_writers_without_a_file_size_may_leave_three_bytes(self):
        whole = encoded(GRAY, "BMP")
        for size in (0, len(whole) + 3):
            said = whole[:2] + struct.pack("<I", size) + whole[6:] + bytes(3)
            assert np.array_equal(pixels_of(said), GRAY)
            assert problem(said + b"\0")[0] == "unreadable"

    def test_a_colour_profile_may_follow_the_rows(self):
        whole = encoded(GRAY, "BMP", mode="RGB")
        body, more = whole[54:], bytes(124 - 40)
        profile = b"profile"
        info = bytearray(struct.pack("<I", 124) + whole[18:54] + more)
        struct.pack_into("<II", info, 112, 124 + len(body), len(profile))
        data = whole[:2] + struct.pack("<IHHI", 0, 0, 0, 138) + bytes(info) + body + profile
        assert np.array_equal(pixels_of(data), GRAY)
        assert problem(data + bytes(9))[0] == "unreadable"

    def test_run_lengths_end_with_the_last_row_and_the_file(self):
        palette = bytes(value for level in range(256) for value in (level, level, level, 0))
        body = bytes([3, 7, 0, 0, 3, 8, 0, 1])
        assert pixels_of(bmp_of(3, 2, 8, body, palette, compression=1)).tolist() == [[8] * 3, [7] * 3]
        assert problem(bmp_of(3, 4, 8, body, palette, compression=1)) == (
            "truncated",
            "BMP whose run lengths end 2 rows too early",
        )
        assert problem(bmp_of(3, 2, 8, body + bytes(4), palette, compression=1))[0] == "unreadable"
