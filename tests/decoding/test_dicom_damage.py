"""Damage to DICOM pixels that shows only by what does not fit together: lengths, items, what follows, bits."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from boneage_ray.decoding.decode import decode
from boneage_ray.errors import InputProblem
from boneage_ray.phantoms.dicom import DicomTags, encode_dicom, phantom_values, write_values
from boneage_ray.phantoms.hand import hand_phantom

HAND = hand_phantom(5, 120, "F", 96).image  # 96 x 77
WINDOW = (2048.0, 4096.0)
TAGS = DicomTags(5, window=WINDOW)
NATIVE = ("implicit-little", "explicit-little", "explicit-big", "deflated")
COMPRESSED = (
    "rle",
    "jpeg-baseline",
    "jpeg-extended",
    "jpeg-lossless",
    "jpeg-ls",
    "jpeg2000-lossless",
    "htj2k-lossless",
)


def decoded(data):
    return decode(data, voi="file")


def refused(data):
    with pytest.raises(InputProblem) as caught:
        decoded(data)
    assert caught.value.step == "decode"
    return caught.value.reason, caught.value.message


def tags_of(encoding, **extra):
    bits = 8 if encoding == "jpeg-baseline" else 12
    return DicomTags(5, bits=bits, window=(2.0 ** (bits - 1), 2.0**bits), extra=extra)


def body_changed(data, encoding, change):
    """The file with its data set, or what is deflated of it, changed."""
    if encoding != "deflated":
        return change(data)
    start = 144 + struct.unpack_from("<I", data, 140)[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(change(zlib.decompress(data[start:], -15))) + packer.flush()
    return data[:start] + body + b"\0" * (len(body) % 2)


@pytest.mark.parametrize("encoding", NATIVE)
@pytest.mark.parametrize(
    ("extra", "declared", "size"),
    [({"Rows": 95}, 14630, "77 x 95"), ({"Columns": 76}, 14592, "76 x 96"), ({"BitsAllocated": 8}, 7392, "77 x 96")],
)
def test_native_pixels_of_more_than_the_image_are_refused(encoding, extra, declared, size):
    if "BitsAllocated" in extra:
        extra |= {"BitsStored": 8, "HighBit": 7}
    found = refused(encode_dicom(HAND, DicomTags(5, extra=extra), encoding))
    assert found == ("unreadable", f"pixel data declare 14784 bytes, {declared} are expected of {size} pixels")


@pytest.mark.parametrize(("surplus", "flags"), [(0, ()), (2, ("pixel_data_longer",)), (152, ("pixel_data_longer",))])
def test_less_than_a_row_too_much_is_flagged(surplus, flags):
    values = phantom_values(HAND, TAGS)
    longer = {"PixelData": values.tobytes() + bytes(surplus)}
    radiograph = decoded(encode_dicom(HAND, DicomTags(5, window=WINDOW, extra=longer)))
    assert radiograph.flags == flags
    assert np.array_equal(radiograph.pixels, decoded(encode_dicom(HAND, TAGS)).pixels)


@pytest.mark.parametrize("encoding", NATIVE)
@pytest.mark.parametrize("count", [1, 2, 4, 16])
def test_bytes_put_into_native_pixels_are_noticed(encoding, count):
    rising = np.tile(np.arange(1, 101, dtype=np.uint8), (40, 1))
    data = encode_dicom(rising, TAGS, encoding)
    for added in (b"\x55" * count, bytes(count)):
        for at in (-4000, -301):
            reason, message = refused(
                body_changed(data, encoding, lambda body, at=at, new=added: body[:at] + new + body[at:])
            )
            assert (reason, "what follows the pixel data is no DICOM" in message) == ("unreadable", True)


@pytest.mark.parametrize("encoding", ["implicit-little", "explicit-little", "explicit-big"])
def test_elements_may_follow_the_pixels_and_zeros_are_flagged(encoding):
    data = encode_dicom(HAND, TAGS, encoding)
    order = ">" if encoding == "explicit-big" else "<"
    tag = struct.pack(order + "HH", 0xFFFC, 0xFFFC)
    padding = tag + (b"" if encoding.startswith("implicit") else b"OB\0\0") + struct.pack(order + "I", 6) + bytes(6)
    assert decoded(data + padding).flags == ()
    assert decoded(data + bytes(8)).flags == ("zeros_after_pixels",)
    assert decoded(data + padding + bytes(500)).flags == ("zeros_after_pixels",)
    for broken in (padding[:-1], padding + padding, padding + b"\1", bytes(500) + b"\1", bytes(2)):
        assert refused(data + broken)[0] == "unreadable"


def test_a_signature_sequence_of_undefined_length_may_follow():
    signature = struct.pack("<HH2sHI", 0xFFFA, 0xFFFA, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + struct.pack("<HH2sHH", 0x400, 5, b"US", 2, 1)
    ends = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    for encoding in ("explicit-little", "jpeg-ls"):
        data = encode_dicom(HAND, TAGS, encoding) + signature + item + ends
        assert decoded(data).flags == ()
        assert refused(data[:-8])[0] == "unreadable"


@pytest.mark.parametrize("encoding", COMPRESSED)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 16])
def test_bytes_lost_from_or_put_into_compressed_pixels_are_noticed(encoding, count):
    data = encode_dicom(HAND, tags_of(encoding), encoding)
    start = data.index(b"\xe0\x7f\x10\0") + 100
    for at in range(start, len(data) - 40, max(1, (len(data) - start) // 12)):
        assert refused(data[:at] + data[at + count :])[0] in ("truncated", "unreadable")
        assert refused(data[:at] + b"\x41" * count + data[at:])[0] in ("truncated", "unreadable")


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_an_end_that_is_no_end_mark_is_refused(encoding):
    data = encode_dicom(HAND, tags_of(encoding), encoding)
    assert decoded(data).flags == ()
    for broken in (data[:-12], data[:-8] + b"\1", data[:-8] + bytes(8)):
        assert refused(broken)[0] in ("truncated", "unreadable")


def test_a_second_frame_that_the_header_does_not_tell_of():
    data = encode_dicom(HAND, TAGS, "jpeg-ls")
    start = data.index(b"\xff\xd8\xff") - 8
    assert refused(data[:-8] + data[start:-8] + data[-8:])[0] == "multi_frame"


def test_a_damaged_rle_table_or_run_is_noticed():
    data = encode_dicom(HAND, TAGS, "rle")
    table = data.index(struct.pack("<II", 2, 64))
    second = struct.unpack_from("<I", data, table + 8)[0]
    for place, value in ((table + 4, 66), (table + 8, second + 2), (table + 8, 64), (table + 8, 10**6)):
        broken = bytearray(data)
        struct.pack_into("<I", broken, place, value)
        assert refused(bytes(broken))[0] in ("unreadable", "truncated")
    longer = bytearray(data)
    longer[table + 64] = (longer[table + 64] + 1) % 256
    assert refused(bytes(longer))[0] in ("unreadable", "truncated")


def test_bytes_behind_a_deflated_data_set():
    data = encode_dicom(HAND, TAGS, "deflated")
    assert decoded(data + b"\0").flags == ()
    assert decoded(data + b"\1\2").flags == ("bytes_after_end",)


@pytest.mark.parametrize(
    "encoding", ["jpeg-lossless", "jpeg-ls", "jpeg2000-lossless", "htj2k-lossless", "jpeg2000", "htj2k"]
)
@pytest.mark.parametrize(("stored", "high"), [(10, 9), (8, 11), (10, 11), (12, 15)])
def test_the_codestream_knows_its_bits_better_than_the_header(encoding, stored, high):
    right = decoded(encode_dicom(HAND, TAGS, encoding))
    said = DicomTags(5, window=WINDOW, extra={"BitsStored": stored, "HighBit": high})
    wrong = decoded(encode_dicom(HAND, said, encoding))
    assert (right.flags, wrong.flags) == ((), ("bits_stored_wrong",))
    # Beyond its own 12 bits lossy coding overshoots only where nothing clips it: within the window all are equal.
    assert np.array_equal(wrong.pixels, right.pixels)


def test_a_wide_codestream_around_few_bits_is_in_order():
    # JPEG-LS here states 16 bits of values of 10; signed ones may be extended to the whole word.
    for signed in (False, True):
        tags = DicomTags(5, bits=10, signed=signed)
        values = phantom_values(HAND, tags)
        radiograph = decoded(write_values(values, tags, "jpeg-ls"))
        assert radiograph.flags == ()
        assert np.array_equal(radiograph.pixels, decoded(encode_dicom(HAND, tags)).pixels)


def test_native_bits_outside_the_stored_ones_are_flagged():
    values = phantom_values(HAND, TAGS)
    assert decoded(write_values(values | np.uint16(0x8000), TAGS, "explicit-little")).flags == ("bits_outside_stored",)
    assert decoded(write_values(values, tags_of("x", BitsStored=8), "explicit-little")).flags == (
        "bits_outside_stored",
    )
    signed = DicomTags(5, signed=True)
    assert decoded(encode_dicom(HAND, signed)).flags == ()  # the sign fills the upper bits


def test_a_damaged_baseline_scan_is_refused_and_not_filled():
    data = bytearray(encode_dicom(HAND, tags_of("jpeg-baseline"), "jpeg-baseline"))
    at = data.index(b"\xff\xda") + 200
    data[at : at + 4] = b"\xff\xd9\xff\xd9"
    assert refused(bytes(data))[0] in ("unreadable", "truncated")
