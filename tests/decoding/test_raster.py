"""PNG, JPEG, TIFF and BMP in all their forms, against pixels known beforehand; and what damage does to each."""

from __future__ import annotations

import base64
import io
import struct
import tracemalloc
import zlib

import imagecodecs
import numpy as np
import pytest
from pictures import PNG_START, bmp_of, chunk, encoded, picture, png_of, tiff_of
from PIL import Image

from boneage_ray.decoding.decode import decode
from boneage_ray.errors import InputProblem

GRAY = picture(61, 50)  # odd sizes, so that rows do not end with bytes or tiles
DEEP = GRAY.astype(np.uint16) * 257 + 3
COLOUR = np.array([[[200, 30, 90], [10, 220, 120]], [[255, 255, 255], [0, 0, 255]]], np.uint8)
COLOUR_GRAY = [[88, 146], [255, 29]]  # 87.67 145.81 | 255 29.07


def pixels_of(data, dtype=np.uint8):
    pixels = decode(data).pixels
    assert pixels.dtype == dtype
    assert pixels.flags.c_contiguous
    return pixels


def problem(data, *limits):
    with pytest.raises(InputProblem) as caught:
        decode(data, *limits)
    assert (caught.value.step, caught.value.status) == ("decode", "failed")
    assert "\n" not in caught.value.message
    return caught.value.reason, caught.value.message


def filtered(rows):
    """PNG rows, each with filter 0."""
    return b"".join(b"\0" + bytes(row) for row in rows)


def with_chunk(png, kind, body, at=33):
    return png[:at] + chunk(kind, body) + png[at:]


def cmyk_jpeg(ink):
    """As Adobe writes it: levels of no ink, with a segment that tells so."""
    buffer = io.BytesIO()
    Image.frombytes("CMYK", ink.shape[1::-1], ink.tobytes()).save(buffer, "JPEG", quality=100)
    return buffer.getvalue()


class TestPng:
    @pytest.mark.parametrize(
        ("bits", "row", "levels"),
        [
            (1, [0b10110000], [255, 0, 255, 255]),
            (2, [0b00011011], [0, 85, 170, 255]),
            (4, [0x0F, 0x37], [0, 255, 51, 119]),
        ],
    )
    def test_few_bits_are_spread_over_0_to_255(self, bits, row, levels):
        assert pixels_of(png_of(1, 4, filtered([row]), depth=bits)).tolist() == [levels]

    def test_16_bits_are_most_significant_byte_first(self):
        assert pixels_of(png_of(1, 2, filtered([[1, 2, 255, 254]]), depth=16), np.uint16).tolist() == [[258, 65534]]

    def test_gray_and_alpha_of_16_bits(self):
        body = filtered([[1, 2, 0, 0, 255, 254, 128, 0]])
        assert pixels_of(png_of(1, 2, body, depth=16, colour=4), np.uint16).tolist() == [[258, 65534]]

    @pytest.mark.parametrize("alpha", [0, 4])
    def test_colour_of_16_bits(self, alpha):
        deep = np.dstack([COLOUR.astype(">u2") * 257, np.zeros((2, 2, 1), ">u2")])[:, :, : 4 if alpha else 3]
        rows = [row.astype(">u2").tobytes() for row in deep]
        found = pixels_of(png_of(2, 2, filtered(rows), depth=16, colour=6 if alpha else 2), np.uint16)
        exact = COLOUR @ np.array([0.299, 0.587, 0.114]) * 257
        assert np.abs(found - exact).max() <= 2

    @pytest.mark.parametrize("transparent", [b"", b"\0\x80\xff"])
    def test_a_palette_of_2_bits_is_expanded_and_its_transparency_dropped(self, transparent):
        head = PNG_START + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, 2, 3, 0, 0, 0))
        head += chunk(b"PLTE", bytes([200, 30, 90, 10, 220, 120, 255, 255, 255]))
        head += chunk(b"tRNS", transparent) if transparent else b""
        data = head + chunk(b"IDAT", zlib.compress(b"\0" + bytes([0b00011000]))) + chunk(b"IEND")
        assert pixels_of(data).tolist() == [[88, 146, 255, 88]]

    @pytest.mark.parametrize("colour", [0, 3])
    def test_an_empty_picture_may_be_as_small_as_deflate_makes_it(self, colour):
        palette = [chunk(b"PLTE", bytes([7, 7, 7]))] if colour else []
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4000, 3000, 1, colour, 0, 0, 0))
        data = (
            PNG_START + head + b"".join(palette) + chunk(b"IDAT", zlib.compress(bytes(501 * 3000), 9)) + chunk(b"IEND")
        )
        assert np.array_equal(pixels_of(data), np.full((3000, 4000), 7 if colour else 0))

    def test_a_transparent_gray_level_stays_what_it_is(self):
        assert np.array_equal(pixels_of(with_chunk(encoded(GRAY), b"tRNS", b"\0\x10")), GRAY)

    def test_gamma_and_profiles_change_nothing(self):
        data = with_chunk(with_chunk(encoded(GRAY), b"gAMA", struct.pack(">I", 22000)), b"sRGB", b"\0")
        assert np.array_equal(pixels_of(data), GRAY)

    @pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
    def test_a_chunk_that_inflates_to_gigabytes_is_passed_over(self, kind):
        bomb = zlib.compress(bytes(50_000_000), 9)
        data = with_chunk(encoded(GRAY), kind, b"x\0\0" + bomb)
        tracemalloc.start()
        assert np.array_equal(pixels_of(data), GRAY)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1_000_000

    def test_data_far_beyond_the_pixels_are_not_inflated(self):
        assert problem(png_of(8, 8, bytes(80_000_000)))[0] == "unreadable"


class TestJpeg:
    @pytest.mark.parametrize(
        "data",
        [
            "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"
            "AQH/yQALCAAQABABAREA/8wABgAQEAX/2gAIAQEAAD8A/wD2YGOaTNx5Ijaa7IccvFsHOBjdnor+GwrAaBtzcP/Z",
            "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"
            "AQH/ygALCAAQABABAREA/8wABAAQ/9oACAEBAAAAAf8A7MAF+MxA/8wABBAF/9oACAEBAAEFAhaYKDw//8wABBAF/9oACAEBAAY/AhU+asVKBSyY/8wA"
            "BBAF/9oACAEBAAE/IVFn0BO2jp6Q/9oACAEBAAAAEGD/zAAEEAX/2gAIAQEAAT8QUWqg80Og/9k=",
        ],
        ids=["sequential", "progressive"],
    )
    def test_arithmetic_coding(self, data):  # cjpeg -quality 100 -arithmetic of levels 0, 16, ... 240
        assert np.array_equal(pixels_of(base64.b64decode(data)), np.tile(np.arange(0, 256, 16), (16, 1)))

    @pytest.mark.parametrize("keep_rgb", [True, False])
    def test_colour_is_its_luminance_however_it_is_stored(self, keep_rgb):
        wide = COLOUR.repeat(16, 0).repeat(16, 1)
        found = pixels_of(encoded(wide, "JPEG", quality=100, subsampling=0, keep_rgb=keep_rgb))[8::16, 8::16]
        assert np.abs(found - np.array(COLOUR_GRAY)).max() <= 1

    def test_ink_of_four_colours(self):
        ink = np.full((16, 16, 4), (55, 225, 165, 100), np.uint8)
        found = pixels_of(cmyk_jpeg(ink))
        colour = (255 - np.array([55, 225, 165])) * (255 - 100) / 255
        assert np.abs(found - colour @ [0.299, 0.587, 0.114]).max() <= 2

    def test_what_is_not_read_is_told(self):
        jpeg = encoded(GRAY, "JPEG")
        at = jpeg.index(b"\xff\xc0")
        lossless = jpeg[: at + 1] + b"\xc3" + jpeg[at + 2 :]
        assert problem(lossless) == ("unsupported_format", "lossless JPEG; baseline, extended and progressive are read")
        deep = jpeg[: at + 4] + b"\x0c" + jpeg[at + 5 :]
        assert problem(deep) == ("unsupported_format", "JPEG of 12 bits a sample; 8 are read outside of DICOM")

    @pytest.mark.parametrize("progressive", [False, True])
    def test_a_cut_scan_with_an_end_pasted_on_is_no_whole_picture(self, progressive, capfd):
        whole = encoded(GRAY, "JPEG", progressive=progressive)
        start = whole.index(b"\xff\xda")
        for cut in range(start, len(whole) - 2, 7):
            assert problem(whole[:cut] + b"\xff\xd9")[0] in ("truncated", "unreadable")
        assert capfd.readouterr().err == ""

    def test_a_progressive_file_that_ends_between_two_scans_is_cut(self):
        whole = encoded(picture(200, 160), "JPEG", progressive=True)
        scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
        tables = [whole.rfind(b"\xff\xc4", 0, at) for at in scans]
        for at in tables[1:]:
            assert problem(whole[:at] + b"\xff\xd9")[0] == "truncated"

    def test_more_scans_than_any_picture_needs_are_refused_before_the_first(self):
        whole = encoded(GRAY, "JPEG", progressive=True)
        at = whole.index(b"\xff\xda")
        again = whole[at : at + 2 + struct.unpack_from(">H", whole, at + 2)[0]] + b"\0"
        assert problem(whole[:at] + again * 101 + whole[at:]) == ("unreadable", "JPEG of more than 100 scans")

    def test_pictures_after_the_end_are_left_alone(self):  # as phones append them
        whole = encoded(GRAY, "JPEG")
        assert np.array_equal(pixels_of(whole + encoded(GRAY, "JPEG") + b"junk"), pixels_of(whole))


STRIPS = [GRAY[:30].tobytes(), GRAY[30:60].tobytes(), GRAY[60:].tobytes()]  # the last one is shorter
PACKERS = {
    1: bytes,
    5: imagecodecs.lzw_encode,
    8: zlib.compress,
    32946: zlib.compress,
    32773: imagecodecs.packbits_encode,
}


def tiles(pixels, side, pack=bytes):
    padded = np.pad(pixels, [(0, -size % side) for size in pixels.shape[:2]])
    starts = [(y, x) for y in range(0, len(padded), side) for x in range(0, padded.shape[1], side)]
    strips = [pack(padded[y : y + side, x : x + side].tobytes()) for y, x in starts]
    tags = {
        322: side,
        323: side,
        324: [0] * len(strips),
        325: [len(s) for s in strips],
        273: None,
        278: None,
        279: None,
    }
    return tiff_of(pixels, tags, strips=strips)


class TestTiff:
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("big", [False, True])
    @pytest.mark.parametrize("pixels", [GRAY, DEEP], ids=["8", "16"])
    def test_byte_orders_depths_and_bigtiff(self, order, big, pixels):
        assert np.array_equal(pixels_of(tiff_of(pixels, order=order, big=big), pixels.dtype), pixels)

    @pytest.mark.parametrize("compression", PACKERS)
    def test_strips_in_every_compression(self, compression):
        strips = [PACKERS[compression](strip) for strip in STRIPS]
        assert np.array_equal(pixels_of(tiff_of(GRAY, {259: compression, 278: 30}, strips=strips)), GRAY)

    def test_a_last_strip_filled_up_to_full_size(self):
        strips = [zlib.compress(strip.ljust(1500, b"\7")) for strip in STRIPS]
        assert np.array_equal(pixels_of(tiff_of(GRAY, {259: 8, 278: 30}, strips=strips)), GRAY)

    @pytest.mark.parametrize("pack", [bytes, zlib.compress])
    def test_tiles(self, pack):
        data = tiles(GRAY, 16, pack)
        at = data.index(struct.pack("<HHI", 259, 3, 1)) + 8
        data = data[:at] + (b"\x08" if pack is zlib.compress else b"\1") + data[at + 1 :]
        assert np.array_equal(pixels_of(data), GRAY)

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_horizontal_differences(self, order):
        differences = np.diff(DEEP, axis=1, prepend=np.uint16(0)).astype(order + "u2")
        data = tiff_of(DEEP, {259: 8, 317: 2}, strips=[zlib.compress(differences.tobytes())], order=order)
        assert np.array_equal(pixels_of(data, np.uint16), DEEP)

    def test_colours_alpha_and_planes(self):
        assert pixels_of(tiff_of(COLOUR)).tolist() == COLOUR_GRAY
        alpha = np.dstack([COLOUR, np.zeros((2, 2), np.uint8)])
        assert pixels_of(tiff_of(alpha, {338: 2})).tolist() == COLOUR_GRAY
        planes = [COLOUR[:, :, k].tobytes() for k in range(3)]
        assert pixels_of(tiff_of(COLOUR, {284: 2, 278: 2}, strips=planes)).tolist() == COLOUR_GRAY
        assert np.array_equal(pixels_of(tiff_of(np.dstack([GRAY, GRAY * 0]), {338: 2})), GRAY)

    @pytest.mark.parametrize("scale", [257, 1])
    def test_palettes_of_16_bits_and_of_writers_that_fill_only_8(self, scale):
        colours = np.zeros((256, 3), int)
        colours[:3] = [[200, 30, 90], [10, 220, 120], [255, 255, 255]]
        data = tiff_of(np.array([[0, 1, 2, 7]], np.uint8), {262: 3, 320: (colours.T * scale).ravel()})
        assert pixels_of(data).tolist() == [[88, 146, 255, 0]]

    def test_ink(self):
        ink = np.full((2, 2, 4), (55, 225, 165, 100), np.uint8)
        assert pixels_of(tiff_of(ink, {262: 5})).tolist() == [[53] * 2] * 2  # (200, 30, 90) * 155 / 255 -> 53.3

    def test_few_bits_and_12_bits(self):
        one = tiff_of(np.zeros((1, 10), np.uint8), {258: 1}, strips=[bytes([0b10110000, 0b01000000])])
        assert pixels_of(one).tolist() == [[255, 0, 255, 255, 0, 0, 0, 0, 0, 255]]
        four = tiff_of(np.zeros((2, 3), np.uint8), {258: 4, 262: 0}, strips=[b"\x0f\x30\xf0\x00"])
        assert pixels_of(four).tolist() == [[255, 0, 204], [0, 255, 255]]
        twelve = tiff_of(np.zeros((1, 3), np.uint8), {258: 12}, strips=[b"\x12\x3f\xff\x00\x70"])
        assert pixels_of(twelve, np.uint16).tolist() == [[0x123, 0xFFF, 7]]

    @pytest.mark.parametrize("photometric", [2, 6])
    def test_jpeg_inside(self, photometric):
        wide = COLOUR.repeat(16, 0).repeat(16, 1)
        stream = encoded(wide, "JPEG", quality=100, subsampling=0, keep_rgb=photometric == 2)
        adobe = stream.find(b"\xff\xee")
        stream = stream if adobe < 0 else stream[:adobe] + stream[adobe + 16 :]  # only the TIFF tag tells RGB
        found = pixels_of(tiff_of(wide, {259: 7, 262: photometric}, strips=[stream]))[8::16, 8::16]
        assert np.abs(found - np.array(COLOUR_GRAY)).max() <= 1

    def test_thumbnails_and_masks_are_no_pages(self):
        assert problem(tiff_of(GRAY, pages=2))[0] == "multi_frame"
        data = bytearray(tiff_of(GRAY, {254: 0}, pages=3))
        entry = struct.pack("<HHI", 254, 3, 1)
        first = data.index(entry)
        second = data.index(entry, first + 1)
        data[second + 8], data[data.index(entry, second + 1) + 8] = 1, 4
        assert np.array_equal(pixels_of(bytes(data)), GRAY)

    def test_directories_in_a_circle_end(self):
        data = bytearray(tiff_of(GRAY))
        at = 8 + 2 + 12 * struct.unpack_from("<H", data, 8)[0]
        struct.pack_into("<I", data, at, 8)
        assert problem(bytes(data))[0] == "unreadable"

    @pytest.mark.parametrize(
        ("tags", "reason"),
        [
            ({256: 2**31, 257: 2**31}, "too_large"),
            ({257: 0}, "unreadable"),
            ({277: 60000}, "unsupported_format"),
            ({322: 2**16 - 1, 323: 2**16 - 1, 324: 0, 325: 5}, "unreadable"),
            ({278: 1}, "unreadable"),
            ({259: 34712}, "unsupported_format"),
            ({262: 8}, "unsupported_format"),
            ({339: 2}, "unsupported_format"),
            ({279: 10**9}, "truncated"),
        ],
    )
    def test_absurd_tags_cost_nothing(self, tags, reason):
        data = tiff_of(GRAY, tags)
        tracemalloc.start()
        assert problem(data)[0] == reason
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1_000_000

    def test_a_value_said_to_be_longer_than_the_file(self):
        data = bytearray(tiff_of(GRAY))
        struct.pack_into("<I", data, data.index(struct.pack("<HH", 273, 4)) + 4, 2**32 - 1)
        assert problem(bytes(data)) == ("truncated", "TIFF ends before the values of tag 273")

    def test_a_damaged_deflated_strip_is_known_by_its_checksum(self):
        strip = bytearray(zlib.compress(GRAY.tobytes()))
        strip[-1] ^= 1
        assert problem(tiff_of(GRAY, {259: 8}, strips=[bytes(strip)]))[0] == "unreadable"


class TestBmp:
    def test_8_bits_bottom_up_and_top_down(self):
        palette = bytes(value for level in range(256) for value in (level, level, level, 0))
        body = bytes([1, 2, 3, 0, 4, 5, 6, 0])
        assert pixels_of(bmp_of(3, 2, 8, body, palette)).tolist() == [[4, 5, 6], [1, 2, 3]]
        assert pixels_of(bmp_of(3, -2, 8, body, palette)).tolist() == [[1, 2, 3], [4, 5, 6]]

    def test_palettes_of_1_and_4_bits(self):
        palette = bytes([90, 30, 200, 0, 120, 220, 10, 0])
        assert pixels_of(bmp_of(3, 1, 1, b"\xa0\0\0\0", palette)).tolist() == [[146, 88, 146]]
        assert pixels_of(bmp_of(3, 1, 4, b"\x01\x10\0\0", palette)).tolist() == [[88, 146, 146]]

    def test_24_and_32_bits(self):
        body = (
            b"".join(bytes(c[::-1]) for c in COLOUR[1].tolist())
            + b"\0\0"
            + b"".join(bytes(c[::-1]) for c in COLOUR[0].tolist())
        )
        assert pixels_of(bmp_of(2, 2, 24, body + b"\0\0")).tolist() == COLOUR_GRAY
        wide = b"".join(bytes([*c[::-1], 0]) for c in COLOUR[0].tolist())
        assert pixels_of(bmp_of(2, 1, 32, wide)).tolist() == COLOUR_GRAY[:1]

    def test_masks_of_16_and_32_bits(self):
        assert pixels_of(bmp_of(2, 1, 16, struct.pack("<HH", 0x7FFF, 0x7C00))).tolist() == [[255, 76]]
        green = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
        assert pixels_of(bmp_of(2, 1, 16, struct.pack("<HH", 0xFFFF, 0x07E0), compression=3, masks=green)).tolist() == [
            [255, 150]
        ]
        rgb = struct.pack("<III", 0xFF, 0xFF00, 0xFF0000)
        wide = b"".join(bytes([*c, 0]) for c in COLOUR[0].tolist())
        assert pixels_of(bmp_of(2, 1, 32, wide, compression=3, masks=rgb)).tolist() == COLOUR_GRAY[:1]

    def test_run_lengths(self):
        palette = bytes(value for level in range(256) for value in (level, level, level, 0))
        body = bytes([3, 7, 0, 0, 0, 3, 1, 2, 3, 0, 0, 1])  # three 7; end of line; 1 2 3 as they are; end
        data = bmp_of(3, 2, 8, body, palette, compression=1)
        assert pixels_of(data).tolist() == [[1, 2, 3], [7, 7, 7]]
        assert problem(data[:-2])[0] == "truncated"
        assert problem(bmp_of(3, 2, 8, bytes([9, 7, 0, 1]), palette, compression=1))[0] == "unreadable"
        nibbles = bytes([3, 0x12, 0, 1])
        assert pixels_of(bmp_of(3, 1, 4, nibbles, palette[:64], compression=2)).tolist() == [[1, 2, 1]]

    def test_missing_rows_are_counted(self):
        data = encoded(GRAY, "BMP")
        assert problem(data[: -52 * 3 - 1]) == ("truncated", "BMP ends before its last 4 rows")


# Row 0 of [[1, 2, 3], [4, 5, 6]] as a viewer must show it (Exif 2.32, table 6).
UPRIGHT = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_orientation_becomes_upright_in_every_format(orientation, order):
    levels = np.array(UPRIGHT[1], np.uint8) * 40
    upright = (np.array(UPRIGHT[orientation]) * 40).tolist()
    mark, magic = (b"II", 42) if order == "<" else (b"MM", 42)
    exif = mark + struct.pack(order + "HIHHHIHHI", magic, 8, 1, 274, 3, 1, orientation, 0, 0)
    assert pixels_of(with_chunk(encoded(levels), b"eXIf", exif)).tolist() == upright
    assert pixels_of(tiff_of(levels, {274: orientation}, order=order)).tolist() == upright
    jpeg = encoded(levels.repeat(8, 0).repeat(8, 1), "JPEG", quality=100)
    body = b"Exif\0\0" + exif
    jpeg = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]
    assert np.abs(pixels_of(jpeg)[4::8, 4::8] - np.array(upright)).max() <= 1


@pytest.mark.parametrize("exif", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"x" * 99])
def test_damaged_metadata_refuse_no_picture(exif):
    assert np.array_equal(pixels_of(with_chunk(encoded(GRAY), b"eXIf", exif)), GRAY)
