"""DICOM in: every transfer syntax, objects told apart, cut files and bombs; the gray pipeline is in test_dicom_gray.py."""

from __future__ import annotations

import io
import logging
import os
import re
import struct
import tracemalloc
import zlib
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_faults import FAULTS
from pictures import encoded, picture

from boneage_ray.decoding.dicom.read import decode_dicom, looks_like_dicom
from boneage_ray.errors import InputProblem, UsageError
from boneage_ray.phantoms.dicom import (
    LOSSY,
    NEAR,
    SYNTAXES,
    DicomTags,
    encode_dicom,
    file_bytes,
    identified,
    phantom_values,
)
from boneage_ray.phantoms.dicom_bad import DICOM_SPOILERS
from boneage_ray.phantoms.hand import hand_phantom

DATA = Path(os.environ.get("BONEAGE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "dicom"
LOSSLESS = [encoding for encoding in SYNTAXES if encoding not in LOSSY]
HAND = hand_phantom(5, 120, "F", 96).image
TAGS = DicomTags(5, "F")


def decoded(data, voi="file", max_megapixels=100.0):
    return decode_dicom(data, max_megapixels, voi)


def refused(data, max_megapixels=100.0):
    """(reason, message) of the InputProblem that the bytes must raise."""
    with pytest.raises(InputProblem) as caught:
        decode_dicom(data, max_megapixels, "file")
    assert (caught.value.step, caught.value.status) == ("decode", "failed")
    return caught.value.reason, caught.value.message


def stretched(values):
    """Values over their own range to 0..65535, as without a VOI."""
    values = values.astype(np.float64)
    return np.rint((values - values.min()) / np.ptp(values) * 65535).astype(np.uint16)


@pytest.mark.parametrize("encoding", LOSSLESS)
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (8, True), (10, False), (12, True), (16, False), (16, True)])
def test_lossless_encodings_give_the_pixels_back(encoding, bits, signed):
    tags = DicomTags(5, "F", bits, signed)
    pixels = decoded(encode_dicom(HAND, tags, encoding)).pixels
    expected = HAND if bits == 8 else stretched(phantom_values(HAND, tags))
    assert pixels.dtype == expected.dtype
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize(
    ("encoding", "bits", "levels"),
    [
        ("jpeg-baseline", 8, 10),
        ("jpeg-extended", 12, 8),
        ("jpeg-ls-near", 8, NEAR),
        ("jpeg-ls-near", 12, NEAR),
        ("jpeg2000", 12, 24),
        ("htj2k", 12, 6),
    ],
)
def test_lossy_encodings_stay_within_their_error(encoding, bits, levels):
    full = DicomTags(
        5, bits=bits, window=(2.0 ** (bits - 1), 2.0**bits)
    )  # the window is the whole range: nothing stretched
    pixels = decoded(encode_dicom(HAND, full, encoding)).pixels.astype(float)
    scale = (255 if bits == 8 else 65535) / ((1 << bits) - 1)
    error = np.abs(pixels / scale - phantom_values(HAND, full).astype(float))
    assert 0 < error.max() <= levels + 0.5
    assert error.mean() < levels * 0.7


def test_overshoot_of_lossy_coding_is_clipped_and_does_not_wrap_to_black():
    checks = np.kron(np.indices((8, 8)).sum(0) % 2 * 255, np.ones((5, 5))).astype(np.uint8)
    # Ten bits stored inside a codestream of twelve, which can exceed them.
    data = encode_dicom(checks, DicomTags(1, extra={"BitsStored": 10, "HighBit": 9}), "jpeg-extended")
    assert decoded(data, "none").pixels.min() == 0  # stored 0 is black, and everything above 1023 stays white
    assert decoded(data, "none").pixels[checks == 255].min() > 60000


def test_inverted_storage_shows_the_same_picture():
    for encoding in ("explicit-little", "jpeg-ls", "rle"):
        plain, inverted = (decoded(encode_dicom(HAND, DicomTags(1, inverted=flag), encoding)) for flag in (False, True))
        assert np.array_equal(plain.pixels, inverted.pixels)
        assert inverted.flags == ()


def bare(data):
    """Without preamble and file meta information."""
    (length,) = struct.unpack_from("<I", data, 140)
    return data[144 + length :]


@pytest.mark.parametrize(
    "encoding", ["implicit-little", "explicit-little", "explicit-big", "jpeg-ls", "jpeg2000-lossless"]
)
def test_without_preamble_and_without_meta(encoding):
    data = encode_dicom(HAND, TAGS, encoding)
    for cut in (data, data[132:], bare(data)):
        assert looks_like_dicom(cut)
        assert np.array_equal(decoded(cut).pixels, stretched(phantom_values(HAND, TAGS)))


def test_other_formats_are_not_claimed():
    others = [encoded(picture(), form) for form in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")]
    others += [
        b"",
        b"\0" * 200,
        b"PK\3\4" + bytes(60),
        b"id,boneage,male\n1,2,True\n" * 20,
        b"\x1f\x8b\x08\0" + bytes(99),
    ]
    assert [looks_like_dicom(data) for data in others] == [False] * len(others)
    assert looks_like_dicom(b"II*\0" + bytes(124) + b"DICM")  # a TIFF and a DICOM at once


def test_bits_above_the_stored_ones_are_masked():
    values = phantom_values(HAND, TAGS) | np.where(np.indices(HAND.shape).sum(0) % 3 == 0, 0xF000, 0).astype(np.uint16)
    data = encode_dicom(HAND, TAGS, "explicit-little")
    junk = data[: -values.nbytes] + values.astype("<u2").tobytes()
    assert np.array_equal(decoded(junk).pixels, decoded(data).pixels)


def test_values_may_sit_in_the_high_bits():
    data = encode_dicom(HAND, DicomTags(5, extra={"HighBit": 15}))
    values = phantom_values(HAND, TAGS)
    raised = data[: -values.nbytes] + ((values << 4) | 5).astype("<u2").tobytes()
    assert np.array_equal(decoded(raised).pixels, stretched(values))


def test_big_endian_words_of_eight_bit_pixels_are_swapped_back():
    data = encode_dicom(HAND, DicomTags(5, bits=8), "explicit-big")
    body = data[-HAND.size :]
    swapped = (
        data[: -HAND.size].replace(b"\x7f\xe0\0\x10OB", b"\x7f\xe0\0\x10OW")
        + np.frombuffer(body, "<u2").byteswap().tobytes()
    )
    assert np.array_equal(decoded(swapped).pixels, HAND)


COLOUR = np.stack([picture(40, 30, seed) for seed in range(3)], -1)


def colour_file(pixels, photometric, planar=0):
    extra = {"SamplesPerPixel": 3, "PlanarConfiguration": planar, "PhotometricInterpretation": photometric}
    data = encode_dicom(COLOUR[..., 0], DicomTags(1, bits=8, extra={**extra, "PixelData": pixels.tobytes()}))
    return decoded(data)


def test_colour_becomes_gray():
    expected = COLOUR @ np.array([0.299, 0.587, 0.114])
    for planar, stored in ((0, COLOUR), (1, np.moveaxis(COLOUR, -1, 0))):
        radiograph = colour_file(stored, "RGB", planar)
        assert np.abs(radiograph.pixels - expected).max() <= 0.51
        assert radiograph.flags == ("colour_converted",)
    assert np.array_equal(colour_file(COLOUR, "YBR_FULL").pixels, COLOUR[..., 0])
    assert np.array_equal(
        colour_file(np.repeat(COLOUR[..., 0].reshape(-1, 2), 2, axis=1)[:, [0, 2, 1, 1]], "YBR_FULL_422").pixels,
        COLOUR[..., 0],
    )


def test_palette_becomes_gray():
    extra = {"PhotometricInterpretation": "PALETTE COLOR"}
    ramp = (np.arange(256, dtype="<u2")[::-1] * 257).tobytes()
    for colour in ("Red", "Green", "Blue"):
        extra[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        extra[f"{colour}PaletteColorLookupTableData"] = ramp
    assert np.array_equal(decoded(encode_dicom(HAND, DicomTags(1, bits=8, extra=extra))).pixels, 255 - HAND)


@pytest.mark.parametrize(
    ("extra", "reason", "words"),
    [
        ({"NumberOfFrames": 2}, "multi_frame", "2 frames"),
        ({"Rows": 60000, "Columns": 60000}, "too_large", "60000 x 60000 pixels; at most 100 megapixels"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "unsupported_format", "1 bits allocated"),
        ({"BitsAllocated": 64, "BitsStored": 64, "HighBit": 63}, "unsupported_format", "64 bits allocated"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "truncated", "14784 bytes, 29568 are needed"),
        ({"BitsStored": 17}, "unreadable", "17 bits stored"),
        ({"Rows": None}, "unreadable", "lacks a usable Rows"),
        ({"Columns": 0}, "unreadable", "lacks a usable Columns"),
        ({"BitsAllocated": None}, "unreadable", "lacks a usable BitsAllocated"),
        ({"PixelRepresentation": None}, "unreadable", "lacks a usable PixelRepresentation"),
        ({"PhotometricInterpretation": ""}, "unreadable", "lacks a usable PhotometricInterpretation"),
        ({"PhotometricInterpretation": "CMYK"}, "unsupported_format", "photometric"),
        ({"PhotometricInterpretation": "RGB"}, "unsupported_format", "RGB of 1 samples with 16 bits"),
        ({"Rows": 97}, "truncated", "pixel data hold 14784 bytes, 14938 are needed"),
    ],
)
def test_headers_that_cannot_be_used(extra, reason, words):
    found, message = refused(encode_dicom(HAND, DicomTags(5, extra=extra)))
    assert (found, words in message) == (reason, True), message


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2.4.66", "1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.8.1", "1.2.3.4"]
)
def test_other_syntaxes_are_named(syntax):
    said = SYNTAXES["jpeg-ls"].encode()
    data = encode_dicom(HAND, DicomTags(5), "jpeg-ls").replace(said, syntax.encode().ljust(len(said), b"\0"))
    reason, message = refused(data)
    assert reason == "unsupported_transfer_syntax"
    assert f"({syntax})" in message


def test_planted_faults_have_their_reasons():
    outcome = {kind: spoil(HAND, TAGS) for kind, spoil in DICOM_SPOILERS.items()}
    valid = {kind: outcome.pop(kind) for kind in list(outcome) if kind.startswith("valid")}
    assert {kind: refused(data)[0] for kind, data in outcome.items()} == FAULTS
    for data in valid.values():
        assert np.array_equal(decoded(data, "none").pixels, stretched(phantom_values(HAND, TAGS)))


@pytest.mark.parametrize(
    ("sop_class", "name"),
    [
        ("1.2.840.10008.5.1.4.1.1.88.33", "Comprehensive SR Storage"),
        ("1.2.840.10008.5.1.4.1.1.9.1.1", "12-lead ECG Waveform Storage"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "Grayscale Softcopy Presentation State Storage"),
        ("1.2.840.10008.5.1.4.1.1.481.5", "RT Plan Storage"),
        ("1.2.840.10008.5.1.4.1.1.66", "Raw Data Storage"),
        ("1.2.840.10008.5.1.4.1.1.104.1", "Encapsulated PDF Storage"),
        ("1.2.840.10008.5.1.4.1.1.1.1", "Digital X-Ray Image Storage"),
        ("1.2.840.10008.1.3.10", "a DICOMDIR"),
        ("1.2.3.4.5", "1.2.3.4.5"),
    ],
)
def test_objects_without_pixels_are_named(sop_class, name):
    reason, message = refused(file_bytes(identified(1, "F", sop_class, SYNTAXES["explicit-little"])))
    assert reason == "no_pixels"
    assert name in message


def test_a_presentation_state_of_another_writer_is_told_apart():
    source = pydicom.dcmread(io.BytesIO(encode_dicom(HAND, TAGS)))
    state = highdicom.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=[source],
        series_instance_uid="1.2.3",
        series_number=2,
        sop_instance_uid="1.2.4",
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
        content_label="LABEL",
    )
    reason, message = refused(file_bytes(state))
    assert (reason, "Presentation State" in message) == ("no_pixels", True)


def test_one_bit_and_floating_point_pixels_are_refused():
    data = encode_dicom(HAND, TAGS, "explicit-little")
    floating = data.replace(b"\xe0\x7f\x10\0OW", b"\xe0\x7f\x08\0OF", 1)
    assert refused(floating)[0] == "unsupported_format"


@pytest.mark.parametrize(
    "encoding", ["explicit-little", "implicit-little", "deflated", "rle", *LOSSLESS[-5:], "jpeg-baseline"]
)
def test_cut_files_give_no_radiograph(encoding):
    data = encode_dicom(HAND, DicomTags(5, bits=8), encoding)
    start = data.index(b"\xe0\x7f\x10\0") if encoding != "deflated" else 400
    for end in (start + 40, (start + len(data)) // 2, len(data) - 60):
        assert refused(data[:end])[0] == "truncated"
    assert refused(data[:300])[0] == "truncated"  # inside the file meta information
    if encoding != "deflated":
        assert refused(data[: data.index(b"PHANTOM-") + 3])[0] in ("truncated", "no_pixels")


def test_a_codestream_may_not_be_larger_than_the_header_says():
    for encoding, marker, at in (
        ("jpeg-ls", b"\xff\xf7", 5),
        ("jpeg-lossless", b"\xff\xc3", 5),
        ("jpeg2000", b"\xff\x4f\xff\x51", 8),
    ):
        data = bytearray(encode_dicom(HAND, TAGS, encoding))
        place = data.index(marker) + at
        struct.pack_into(">HH" if at == 5 else ">II", data, place, 60000, 60000)
        tracemalloc.start()
        assert refused(bytes(data))[0] == "too_large"
        assert tracemalloc.get_traced_memory()[1] < 2e6
        tracemalloc.stop()


def test_a_codestream_of_another_size_is_unreadable():
    reason, message = refused(encode_dicom(HAND, DicomTags(5, extra={"Rows": 97}), "jpeg-ls"))
    assert (reason, message) == ("unreadable", "the jpeg-ls data are 77 x 96 x 1, the header declares 77 x 97 x 1")


def test_an_rle_bomb_does_not_grow_beyond_its_size():
    data = encode_dicom(np.zeros((64, 64), np.uint8), DicomTags(1, extra={"Rows": 8, "Columns": 8}), "rle")
    assert refused(data)[0] == "unreadable"


def test_a_deflated_file_may_be_larger_than_its_first_part():
    image = np.random.default_rng(3).integers(0, 256, (1024, 1030), np.uint8)
    image[0, :2] = 0, 255
    assert np.array_equal(decoded(encode_dicom(image, DicomTags(1, bits=8), "deflated")).pixels, image)


def test_a_deflate_bomb_is_refused_before_it_grows():
    data = encode_dicom(HAND, TAGS, "deflated")
    (length,) = struct.unpack_from("<I", data, 140)
    body = zlib.decompress(data[144 + length :], -15)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = data[: 144 + length] + packer.compress(body)
    bomb += b"".join(packer.compress(bytes(1 << 20)) for _ in range(300)) + packer.flush()
    tracemalloc.start()
    reason, _ = refused(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (reason, len(bomb) < 1e6, peak < 60e6) == ("too_large", True, True)


def test_a_frame_is_not_held_as_floating_point():
    side = 1500
    data = encode_dicom(np.tile(np.arange(250, dtype=np.uint8), (side, side // 250)), TAGS)
    tracemalloc.start()
    decoded(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * side**2 * 2 + 5e6  # file, masked values and result; in float64 each would be four times that


def test_nothing_of_the_patient_is_said(caplog, capfd):
    secret = "Secret^Name"
    extra = {"PatientName": secret, "PatientID": secret, "StudyInstanceUID": secret, "BodyPartExamined": "x" * 30}
    with caplog.at_level(logging.DEBUG):
        for more in ({}, {"Rows": None}, {"PhotometricInterpretation": secret}):
            data = encode_dicom(HAND, DicomTags(5)).replace(b"2.25.8", b"a.bc.8")
            assert secret not in repr(decoded(data))
            broken = encode_dicom(
                HAND, DicomTags(5, extra={**{k: v for k, v in extra.items() if "UID" not in k}, **more})
            )
            try:
                assert secret not in repr(decoded(broken))
            except InputProblem as problem:
                assert secret not in str(problem)
    assert secret not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "encoding", ["implicit-little", "explicit-big", "deflated", "rle", "jpeg-extended", "jpeg-ls", "htj2k"]
)
def test_damage_leaves_as_an_input_problem_only(encoding):
    whole = encode_dicom(HAND, TAGS, encoding)
    rng = np.random.default_rng(11)
    for k in range(60):
        data = bytearray(whole[: int(rng.integers(1, len(whole)))] if k % 3 == 0 else whole)
        for at in rng.integers(0, min(len(data), 2000 if k % 2 else len(data)), 4):
            data[at] ^= 1 << int(rng.integers(8))
        try:
            radiograph = decode_dicom(bytes(data), 1.0, "file")
        except InputProblem as problem:
            assert problem.message
        else:
            assert radiograph.pixels.dtype in (np.uint8, np.uint16)
            assert radiograph.pixels.size <= 1e6


def test_encodings_refuse_bits_they_cannot_hold():
    with pytest.raises(UsageError, match="12 bits in jpeg-baseline"):
        encode_dicom(HAND, TAGS, "jpeg-baseline")
    with pytest.raises(UsageError, match="signed"):
        encode_dicom(HAND, DicomTags(1, signed=True), "jpeg2000")


# The reason of a file, or the shape of its radiograph; README.md's list of reasons tells what each means.
REAL = {
    "dwv__gdcm-CR-MONO1-10-chest.dcm": (440, 440),
    "fo-dicom__CR-ModalitySequenceLUT.dcm": (1576, 1976),
    "fo-dicom__HasFragmentSequence.dcm": "multi_frame",
    "highdicom__dx_image.dcm": (169, 211),
    "pydicom-data__RG3_J2KI.dcm": (1760, 1760),
    "pydicom-data__RG3_J2KR.dcm": (1760, 1760),
    "pydicom-data__liver_deflate.dcm": "multi_frame",  # segmentations of three frames
    "pydicom-data__liver_nonbyte_aligned_deflate.dcm": "multi_frame",
    "pydicom__6154": (16, 16),
    "pydicom__DICOMDIR-bigEnd": "no_pixels",
    "pydicom__DICOMDIR-nopatient": "no_pixels",
    "pydicom__ExplVR_BigEndNoMeta.dcm": "no_pixels",  # an RT ion plan
    "pydicom__IM000001": "no_pixels",  # CT headers whose pixel data were taken out
    "pydicom__IM000005": "no_pixels",
    "pydicom__IM00000Q": "no_pixels",
    "pydicom__IM00000R": "no_pixels",
    "pydicom__IM000015": "no_pixels",
    "pydicom__IM00001A": "no_pixels",
    "pydicom__MR_truncated.dcm": "truncated",
    "pydicom__chrJapMulti.dcm": "no_pixels",  # a CR header whose pixel data were taken out
    "pydicom__empty_charset_LEI.dcm": "no_pixels",
    "pydicom__nested_priv_SQ.dcm": "unreadable",  # two bytes of pixel data and no Rows
    "pydicom__rtplan_truncated.dcm": "no_pixels",  # cut, but no RT plan has an image
    "pydicom__summer.dcm": "no_pixels",  # colour palettes
    "pydicom__waveform_ecg.dcm": "no_pixels",
    "pydicom__winter.dcm": "no_pixels",
    "robyoung__RG2_JPLY": (2140, 1760),
    "robyoung__RG3_JLSL": (1760, 1760),
    "robyoung__RG3_JLSN": (1760, 1760),
    "robyoung__RG3_JPLL": (1760, 1760),
    "robyoung__RG3_JPLY": (1760, 1760),
    "robyoung__RG3_RLE": (1760, 1760),
    "robyoung__RG3_UNC": (1760, 1760),
    "robyoung__rwvm.dcm": "no_pixels",  # a real world value mapping
    "tfio__CR-MONO1-10-chest.dcm": (440, 440),
    "xrv__Fake_MONOHR1.dcm": (1024, 1024),
}
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real DICOM files are not there (BONEAGE_TEST_DATA)")


@needs_data
def test_every_real_file_has_its_outcome():
    found = {}
    for path in DATA.iterdir():
        if path.suffix != ".csv":
            data = path.read_bytes()
            assert looks_like_dicom(data), path.name
            try:
                found[path.name] = decode_dicom(data, 100, "file").pixels.shape
            except InputProblem as problem:
                assert not re.search(r"[\w-]+\^", problem.message)
                found[path.name] = problem.reason
    assert found == REAL


@needs_data
def test_the_lossless_encodings_of_one_radiograph_are_equal():
    files = (
        "pydicom-data__RG3_J2KR.dcm",
        "robyoung__RG3_JLSL",
        "robyoung__RG3_JPLL",
        "robyoung__RG3_RLE",
        "robyoung__RG3_UNC",
    )
    first, *others = [decode_dicom((DATA / name).read_bytes(), 100, "file").pixels for name in files]
    assert all(np.array_equal(first, other) for other in others)
    for name, levels in (("robyoung__RG3_JLSN", 4), ("pydicom-data__RG3_J2KI.dcm", 9), ("robyoung__RG3_JPLY", 48)):
        lossy = decode_dicom((DATA / name).read_bytes(), 100, "file").pixels
        assert np.abs(lossy.astype(int) - first).max() <= (levels + 1) * 65535 / 1023
