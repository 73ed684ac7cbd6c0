"""Bytes that DICOM files have too much or too few, and a picture that is whole: read, flagged, and equal to what dcmtk shows."""

from __future__ import annotations

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from dcmtk import shown_by_dcmtk

from boneage_ray.decoding.decode import decode
from boneage_ray.errors import InputProblem
from boneage_ray.phantoms.dicom import DicomTags, encode_dicom, phantom_values, write_values
from boneage_ray.phantoms.hand import hand_phantom

HAND = hand_phantom(5, 120, "F", 96).image  # 96 x 77
BYTE_TAGS = DicomTags(5, bits=8, window=(128.0, 256.0))
TAGS = DicomTags(5, window=(2048.0, 4096.0))
VALUES = phantom_values(HAND, TAGS)
WHOLE = decode(encode_dicom(HAND, TAGS))


def refused(data):
    with pytest.raises(InputProblem) as caught:
        decode(data)
    assert caught.value.step == "decode"
    return caught.value.reason


def longer(added, **extra):
    """The hand with bytes put behind its pixels, inside of their element."""
    return encode_dicom(
        HAND, DicomTags(5, window=(2048.0, 4096.0), extra={"PixelData": VALUES.tobytes() + added, **extra})
    )


NOISE = np.random.default_rng(1).integers(1, 255, 5001, np.uint8).tobytes()


@pytest.mark.parametrize("added", [bytes(2), bytes(154), bytes(1000), b"\xff" * 4096, NOISE[:1000], NOISE[:5000]])
def test_padding_behind_native_pixels_is_left_out(added, tmp_path):
    data = longer(added)
    radiograph = decode(data)
    assert radiograph.flags == ("pixel_data_longer",)
    assert np.array_equal(radiograph.pixels, WHOLE.pixels)
    assert np.abs(shown_by_dcmtk(data, tmp_path).astype(float) - radiograph.pixels / 257).max() <= 1


def test_surplus_that_may_be_a_part_of_the_picture_is_refused():
    tall = np.vstack([VALUES, VALUES[::-1]])
    for rows, columns in ((96, 76), (96, 75), (95, 77), (90, 76), (48, 77), (96, 60)):
        for added in (b"", bytes(500), NOISE[:500]):
            wrong = {"Rows": rows, "Columns": columns}
            if (rows, columns, added) != (95, 77, bytes(500)) and (columns, added[:1]) != (77, b"\0"):
                assert refused(longer(added, **wrong)) == "unreadable", (rows, columns, len(added))
    assert (
        refused(longer(tall[96:].tobytes())) == "unreadable"
    )  # a second frame, or rows that the header does not tell of
    assert refused(longer(tall[96:100].tobytes() + b"\1\2")) == "unreadable"
    assert refused(longer(b"", BitsAllocated=8, BitsStored=8, HighBit=7)) == "unreadable"
    flat = write_values(np.full((20, 30), 9, np.uint16), DicomTags(1, extra={"Rows": 10}), "explicit-little")
    assert refused(flat) == "unreadable"  # no picture that shows how long its rows are


def frame_item(data):
    """Where the first item behind the offset table begins."""
    return data.index(b"\xfe\xff\x00\xe0", data.index(b"\xe0\x7f\x10\0OB") + 20)


def rle_file(segments):
    """The hand of 8 bits as RLE with these segments."""
    offsets = np.zeros(16, "<u4")
    offsets[0], offsets[1 : len(segments) + 1] = len(segments), 64 + np.cumsum([0, *map(len, segments[:-1])])
    frame = offsets.tobytes() + b"".join(segments)
    data = encode_dicom(HAND, BYTE_TAGS, "rle")
    at = frame_item(data)
    return data[:at] + struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame + data[-8:]


def by_rows():
    return b"".join(bytes(imagecodecs.packbits_encode(row.tobytes())) for row in HAND)


@pytest.mark.parametrize("added", [b"\0\0", bytes(64), b"\xb3\0" * 3, NOISE[:300] + b"\0"])
def test_an_rle_segment_may_go_on_behind_its_rows(added, tmp_path):
    data = rle_file([by_rows() + added])
    radiograph = decode(data)
    assert radiograph.flags == ("pixel_data_longer",)
    assert np.array_equal(radiograph.pixels, HAND)
    assert np.array_equal(shown_by_dcmtk(data, tmp_path), HAND)


def test_an_rle_segment_whose_rows_do_not_end_as_they_should_is_refused():
    assert decode(rle_file([by_rows()])).flags == ()
    assert decode(rle_file([by_rows() + b"\x80\x80"])).flags == ()  # the code for nothing
    crossing = bytes(imagecodecs.packbits_encode(HAND.tobytes()))
    assert np.array_equal(decode(rle_file([crossing])).pixels, HAND)
    assert refused(rle_file([crossing + bytes(64)])) == "unreadable"  # nothing proves where the plane ends
    row = len(bytes(imagecodecs.packbits_encode(HAND[0].tobytes())))
    assert refused(rle_file([by_rows()[:row] + b"\0\7" + by_rows()[row:]])) == "unreadable"  # one pixel put in
    assert refused(rle_file([by_rows()[row:]])) == "truncated"


def deflated(tail):
    data = encode_dicom(HAND, TAGS, "deflated")
    start = 144 + struct.unpack_from("<I", data, 140)[0]
    body = zlib.decompress(data[start:], -15)
    return data[:start], body, zlib.compress(body, 9)[2:-4] + tail


def test_a_deflated_file_may_have_a_tail(tmp_path):
    head, body, _ = deflated(b"")
    for tail in (struct.pack("<II", zlib.crc32(body), len(body)), NOISE[:300]):  # that of gzip, and any other
        data = head + deflated(tail)[2]
        radiograph = decode(data)
        assert radiograph.flags == ("bytes_after_end",)
        assert np.array_equal(radiograph.pixels, WHOLE.pixels)
        assert np.abs(shown_by_dcmtk(data, tmp_path).astype(float) - radiograph.pixels / 257).max() <= 1
    cut = zlib.compress(body[:-2000], 9)[2:-4]
    assert refused(head + cut + NOISE[:300]) == "truncated"  # the stream ended before its pixels did


@pytest.mark.parametrize("encoding", ["rle", "jpeg-baseline", "jpeg-lossless", "jpeg-ls", "jpeg2000-lossless", "htj2k"])
def test_a_whole_frame_without_the_end_mark_is_read(encoding):
    tags = BYTE_TAGS if encoding == "jpeg-baseline" else TAGS
    data = encode_dicom(HAND, tags, encoding)
    whole = decode(data)
    for missing in (8, 5, 1):
        radiograph = decode(data[:-missing])
        assert radiograph.flags == ("end_mark_missing",)
        assert np.array_equal(radiograph.pixels, whole.pixels)
    assert refused(data[:-14]) == "truncated"


def without_end_of_image(data):
    """The last item made shorter, so that its codestream ends without its own end marker."""
    start = data.rindex(b"\xfe\xff\x00\xe0", 0, data.index(b"\xff\xd8\xff") + 1)
    length = struct.unpack_from("<I", data, start + 4)[0] - 40
    return data[: start + 4] + struct.pack("<I", length) + data[start + 8 : start + 8 + length]


@pytest.mark.parametrize("encoding", ["jpeg-baseline", "jpeg-lossless", "jpeg-ls"])
def test_without_either_end_the_frame_is_cut(encoding):
    tags = BYTE_TAGS if encoding == "jpeg-baseline" else TAGS
    assert refused(without_end_of_image(encode_dicom(HAND, tags, encoding))) == "truncated"


DELIMITERS = struct.pack("<HHIHHI", 0xFFFE, 0xE0DD, 0, 0xFFFE, 0xE000, 4) * 3


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("encoding", ["jpeg-ls", "jpeg2000-lossless", "jpeg-lossless"])
def test_fragments_are_counted_by_their_lengths_whatever_they_hold(encoding, table):
    """Delimiters of DICOM in a comment of the codestream, and a fragment that begins with one."""
    data = encode_dicom(HAND, TAGS, encoding)
    item = frame_item(data)
    length = struct.unpack_from("<I", data, item + 4)[0]
    frame = data[item + 8 : item + 8 + length]
    after = 2 if frame.startswith(b"\xff\xd8") else 4 + struct.unpack_from(">H", frame, 4)[0]
    marker = b"\xff\xfe" if after == 2 else b"\xff\x64"  # COM of JPEG and of JPEG 2000
    comment = marker + struct.pack(">H", 4 + len(DELIMITERS)) + b"\0\1" + DELIMITERS
    frame = frame[:after] + comment + frame[after:]
    parts = [frame[: after + 6], frame[after + 6 : after + 60], frame[after + 60 :]]
    parts = [parts[0], parts[1] + bytes(0), parts[2] + b"\0" * (len(parts[2]) % 2)]
    offsets = struct.pack("<HHI", 0xFFFE, 0xE000, 4) + bytes(4) if table else struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    items = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(part)) + part for part in parts)
    start = data.index(b"\xe0\x7f\x10\0OB") + 12
    odd = data[:start] + offsets + items + data[-8:]
    assert parts[1].startswith(b"\xfe\xff\xdd\xe0")
    radiograph = decode(odd)
    assert radiograph.flags == ()
    assert np.array_equal(radiograph.pixels, decode(data).pixels)
    assert refused(odd[:start] + offsets + items[:-100]) == "truncated"
