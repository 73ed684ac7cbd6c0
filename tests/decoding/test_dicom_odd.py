"""DICOM files whose header and pixels do not fit together, and rare kinds of pixels: read as the standard and dcmtk show them."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dcmtk import by_dcmtk, shown_by_dcmtk
from pydicom.dataset import Dataset

from boneage_ray.decoding.decode import decode
from boneage_ray.decoding.dicom.start import looks_like_dicom
from boneage_ray.errors import InputProblem
from boneage_ray.phantoms.dicom import (
    SYNTAXES,
    DicomTags,
    encode_dicom,
    file_bytes,
    phantom_values,
    write_values,
)
from boneage_ray.phantoms.hand import hand_phantom

DATA = Path(os.environ.get("BONEAGE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "odd"
HAND = hand_phantom(5, 120, "F", 96).image  # 96 x 77
WINDOW = (2048.0, 4096.0)
TAGS = DicomTags(5, window=WINDOW)
VALUES = phantom_values(HAND, TAGS)
FULL = decode(encode_dicom(HAND, TAGS)).pixels


def refused(data):
    with pytest.raises(InputProblem) as caught:
        decode(data)
    assert caught.value.step == "decode"
    return caught.value.reason, caught.value.message


def changed(data, **elements):
    """A file with some elements of another value; None takes one out."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return file_bytes(dataset)


def lut(keyword, first, entries, bits=16):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.LUTData = list(entries)
    item["LUTData"].VR = "US"
    return {keyword: [item]}


@pytest.mark.parametrize(
    "damaged",
    [
        lut("ModalityLUTSequence", 0, range(4096), bits=18),
        lut("ModalityLUTSequence", 0, []),
        lut("ModalityLUTSequence", 5000, range(4096)),  # all values of the image become its first entry
        lut("ModalityLUTSequence", 0, range(256), bits=8),  # that of 8 bits: nearly all values become its last entry
    ],
)
def test_a_modality_lut_that_does_not_fit_is_left_out(damaged):
    radiograph = decode(encode_dicom(HAND, DicomTags(5, window=(100.0, 50.0), extra=damaged)))
    assert radiograph.flags == ("modality_lut_unusable",)
    assert np.array_equal(radiograph.pixels, decode(encode_dicom(HAND, DicomTags(5))).pixels)


def test_a_modality_lut_that_fits_is_used(tmp_path):
    square = (np.arange(4096, dtype=np.int64) ** 2 // 4095).tolist()
    data = encode_dicom(HAND, DicomTags(5, window=WINDOW, extra=lut("ModalityLUTSequence", 0, square, 12)))
    radiograph = decode(data)
    assert radiograph.flags == ()
    expected = np.rint(np.array(square)[VALUES] / 4095 * 65535)
    assert np.abs(radiograph.pixels - expected).max() <= 1
    assert np.abs(shown_by_dcmtk(data, tmp_path) - expected / 257).max() <= 1


DEEP = np.stack([VALUES * 16, VALUES[::-1] * 16, np.full_like(VALUES, 30000)], -1)
LUMINANCE = DEEP @ np.array([0.299, 0.587, 0.114])


def colour_file(samples, encoding="explicit-little", **extra):
    stored = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB", **extra}
    tags = DicomTags(5, bits=16, extra={**stored, "PixelData": samples.astype("<u2").tobytes()})
    return encode_dicom(HAND, tags, "explicit-little")


@pytest.mark.parametrize("planar", [0, 1])
def test_colour_of_sixteen_bits_becomes_gray(planar, tmp_path):
    data = colour_file(np.moveaxis(DEEP, -1, 0) if planar else DEEP, PlanarConfiguration=planar)
    radiograph = decode(data)
    assert (radiograph.pixels.dtype, radiograph.flags) == (np.uint16, ("colour_converted",))
    assert np.abs(radiograph.pixels - LUMINANCE).max() <= 1
    shown = shown_by_dcmtk(data, tmp_path, "-v")[..., ::-1] @ np.array([0.299, 0.587, 0.114])
    assert np.abs(shown - LUMINANCE / 257).max() <= 1


@pytest.mark.parametrize("encoding", ["rle", "jpeg2000-lossless", "jpeg-ls"])
def test_compressed_colour_of_sixteen_bits_becomes_gray(encoding):
    import imagecodecs

    plain = pydicom.dcmread(io.BytesIO(colour_file(DEEP)))
    if encoding == "rle":
        plain.compress(SYNTAXES["rle"], generate_instance_uid=False)
    else:
        frame = (
            imagecodecs.jpegls_encode(DEEP)
            if encoding == "jpeg-ls"
            else imagecodecs.jpeg2k_encode(DEEP, codecformat="j2k", reversible=True, mct=False)
        )
        plain.PixelData = pydicom.encaps.encapsulate([bytes(frame)])
        plain["PixelData"].VR, plain["PixelData"].is_undefined_length = "OB", True
        plain.file_meta.TransferSyntaxUID = SYNTAXES[encoding]
    radiograph = decode(file_bytes(plain))
    assert radiograph.flags == ("colour_converted",)
    assert np.abs(radiograph.pixels - LUMINANCE).max() <= 1


def test_colour_of_twelve_bits_fills_the_range():
    radiograph = decode(colour_file(DEEP >> 4, BitsStored=12, HighBit=11))
    assert np.abs(radiograph.pixels - LUMINANCE).max() <= 24  # a step of 12 bits is 16
    assert refused(colour_file(DEEP, PixelRepresentation=1))[0] == "unsupported_format"
    assert refused(colour_file(DEEP[:90]))[0] == "truncated"


def palette(data, segmented=False, first=0, count=4096):
    extra = {"PhotometricInterpretation": "PALETTE COLOR", "WindowCenter": None, "WindowWidth": None}
    for colour in ("Red", "Green", "Blue"):
        extra[f"{colour}PaletteColorLookupTableDescriptor"] = [count, first, 16]
        name = "Segmented" if segmented else ""
        extra[f"{name}{colour}PaletteColorLookupTableData"] = data
    return {key: value for key, value in extra.items() if value is not None}


def test_palettes_of_sixteen_bits_keep_their_levels(tmp_path):
    data = encode_dicom(HAND, DicomTags(5, extra=palette((np.arange(4096, dtype="<u2") * 16).tobytes())))
    radiograph = decode(data)
    assert (radiograph.pixels.dtype, radiograph.flags) == (np.uint16, ("colour_converted",))
    assert np.abs(radiograph.pixels - VALUES.astype(int) * 16).max() <= 1
    assert np.abs(shown_by_dcmtk(data, tmp_path, "-v")[..., 0] - VALUES / 16).max() <= 1


def test_segmented_palettes_are_expanded():
    # One discrete entry of 0, then a linear segment of 4,095 entries up to 4095.
    segments = np.array([0, 1, 0, 1, 4095, 4095], "<u2").tobytes()
    radiograph = decode(encode_dicom(HAND, DicomTags(5, extra=palette(segments, segmented=True))))
    assert radiograph.flags == ("colour_converted",)
    assert np.abs(radiograph.pixels - VALUES.astype(int)).max() <= 1
    broken = encode_dicom(HAND, DicomTags(5, extra=palette(segments[:6], segmented=True)))
    assert refused(broken)[0] == "unsupported_format"


def float_file(values, **extra):
    keyword = "FloatPixelData" if values.itemsize == 4 else "DoubleFloatPixelData"
    absent = ("BitsStored", "HighBit", "PixelRepresentation", "PixelData", "WindowCenter", "WindowWidth")
    own = {"BitsAllocated": values.itemsize * 8, keyword: values.tobytes()}
    return changed(encode_dicom(HAND, TAGS), **{**dict.fromkeys(absent), **own, **extra})


@pytest.mark.parametrize("kind", ["<f4", "<f8"])
def test_floating_point_pixels_become_gray(kind):
    values = (VALUES / 4095 - 0.25).astype(kind)  # -0.25 to 0.75
    radiograph = decode(float_file(values))
    assert (radiograph.pixels.dtype, radiograph.flags) == (np.uint16, ())
    low, high = int(VALUES.min()), int(VALUES.max())
    assert np.abs(radiograph.pixels - (VALUES.astype(float) - low) / (high - low) * 65535).max() <= 1.5
    windowed = decode(float_file(values, WindowCenter=0.25, WindowWidth=2.0, VOILUTFunction="LINEAR_EXACT"))
    assert np.abs(windowed.pixels - (VALUES / 8190 + 0.25) * 65535).max() <= 1.5
    inverted = decode(float_file(values, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"))
    assert np.abs(65535 - inverted.pixels.astype(int) - radiograph.pixels).max() <= 1


@pytest.mark.parametrize("encoding", ["explicit-little", "rle"])
@pytest.mark.parametrize(("kind", "stored"), [("<u4", 32), ("<i4", 32), ("<i4", 24)])
def test_integers_of_thirty_two_bits_become_gray(kind, stored, encoding, tmp_path):
    values = ((VALUES.astype(np.int64) - (2048 if kind == "<i4" else 0)) << (stored - 12)).astype(kind)
    sign = {"BitsAllocated": 32, "BitsStored": stored, "HighBit": stored - 1, "PixelRepresentation": int(kind == "<i4")}
    data = changed(encode_dicom(HAND, DicomTags(5)), **sign, PixelData=values.tobytes())
    if encoding == "rle":
        data = by_dcmtk("dcmcrle", data, tmp_path)
    radiograph = decode(data)
    assert radiograph.flags == ()
    low, high = int(VALUES.min()), int(VALUES.max())
    expected = (VALUES.astype(float) - low) / (high - low) * 65535
    assert np.abs(radiograph.pixels - expected).max() <= 1.5
    assert np.abs(shown_by_dcmtk(data, tmp_path, "--min-max-window") - expected / 257).max() <= 1


def test_integers_of_thirty_two_bits_in_big_endian_are_shown_in_two_ways_and_refused():
    header = {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31, "PixelData": VALUES.astype(">u4").tobytes()}
    found = refused(encode_dicom(HAND, DicomTags(5, extra=header), "explicit-big"))
    assert found[0] == "unsupported_format"
    assert "big endian" in found[1]


def test_floats_that_are_no_numbers_are_black():
    values = VALUES.astype("<f4")
    values[:5] = np.nan
    values[5:8] = np.inf
    values[8:10] = -9.0
    radiograph = decode(float_file(values, FloatPixelPaddingValue=-9.0))
    assert radiograph.flags == ("values_not_finite",)
    assert not radiograph.pixels[:10].any()
    part = VALUES[10:].astype(float)
    assert np.abs(radiograph.pixels[10:] - (part - part.min()) / np.ptp(part) * 65535).max() <= 1.5
    assert refused(float_file(np.full_like(values, np.nan)))[0] == "unreadable"
    assert refused(float_file(values[:90]))[0] == "truncated"
    assert refused(float_file(values, BitsAllocated=16))[0] == "unsupported_format"


def test_one_far_value_does_not_take_the_levels_of_all_others(tmp_path):
    header = {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}
    far = VALUES.astype("<u4")
    far[0, 0] = 0xFFFFFFFF
    data = changed(encode_dicom(HAND, TAGS), **header, PixelData=far.tobytes())
    radiograph = decode(data)
    assert radiograph.flags == ()
    off = np.abs(radiograph.pixels - FULL.astype(int))
    assert off.ravel()[1:].max() <= 1
    assert np.abs(shown_by_dcmtk(data, tmp_path) - radiograph.pixels / 257).max() <= 1
    many = np.random.default_rng(0).permutation(300 * 400).reshape(300, 400).astype("<u4") * 30000
    many[0, 0] = 0
    data = changed(data, Rows=300, Columns=400, PixelData=many.tobytes(), WindowCenter=9e8, WindowWidth=1.8e9)
    radiograph = decode(data, voi="none")
    assert radiograph.flags == ("levels_reduced",)
    assert np.abs(radiograph.pixels - many.astype(float) / many.max() * 65535).max() <= 2.5


@pytest.mark.parametrize("kind", ["<i2", "<u4", "<i4"])
@pytest.mark.parametrize("stored", [11, 10, 8])
def test_one_rule_for_bits_above_the_stored_ones_also_of_signed_and_wide_words(kind, stored):
    middle = 2048 if "i" in kind else 0
    values = (VALUES.astype(np.int64) - middle).astype(kind)
    size = values.itemsize * 8
    header = {"BitsAllocated": size, "PixelRepresentation": int("i" in kind), "RescaleIntercept": middle}
    whole = encode_dicom(HAND, DicomTags(5, bits=12, window=WINDOW, extra={**header, "PixelData": values.tobytes()}))
    assert (decode(whole).flags, np.array_equal(decode(whole).pixels, FULL)) == ((), True)
    radiograph = decode(changed(whole, BitsStored=stored, HighBit=stored - 1))
    assert radiograph.flags == ("bits_stored_wrong",)
    assert np.array_equal(radiograph.pixels, FULL)
    # Old writers put their overlay above 12 bits without extending the sign.
    beside = (values.astype(np.int64) & 0xFFF).astype(kind)
    beside[30:50, 20:50] |= 0x1000
    radiograph = decode(changed(whole, PixelData=beside.tobytes()))
    assert radiograph.flags == ("bits_outside_stored",)
    assert np.array_equal(radiograph.pixels, FULL)


def test_values_without_a_picture_in_or_above_the_stored_bits_are_in_doubt():
    noise = np.random.default_rng(2).integers(0, 65536, VALUES.shape).astype(np.uint16)
    found = refused(
        write_values(noise, DicomTags(1, bits=16, extra={"BitsStored": 8, "HighBit": 7}), "explicit-little")
    )
    assert found[0] == "unreadable"


@pytest.mark.parametrize(("syntax", "codec"), [("jpeg2000", "jpeg2000"), ("jpeg-ls-near", "jpeg-ls")])
def test_the_codestream_tells_whether_it_is_lossy(syntax, codec):
    """A syntax that allows losses does not make them: bits beside the values of a lossless codestream are masked."""
    text = np.zeros(VALUES.shape, np.uint16)
    text[20:30, 10:60:7] = 0x8000
    wide = DicomTags(5, bits=16, window=WINDOW, extra={"BitsStored": 12, "HighBit": 11})
    lossless = write_values(VALUES | text, wide, "jpeg2000-lossless" if codec == "jpeg2000" else codec)
    radiograph = decode(restated(lossless, syntax))
    assert radiograph.flags == ("bits_outside_stored",)
    assert np.array_equal(radiograph.pixels, FULL)


def restated(data, encoding):
    """The file with another transfer syntax stated, and nothing else changed."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    old, new = str(dataset.file_meta.TransferSyntaxUID), SYNTAXES[encoding]
    padded = old.encode() + b"\0" * (len(old) % 2)
    at = data.index(b"\x02\0\x10\0UI") + 6
    value = new.encode() + b"\0" * (len(new) % 2)
    whole = data[:at] + struct.pack("<H", len(value)) + value + data[at + 2 + len(padded) :]
    (length,) = struct.unpack_from("<I", whole, 140)
    return whole[:140] + struct.pack("<I", length + len(value) - len(padded)) + whole[144:]


@pytest.mark.parametrize(
    ("inside", "stated"),
    [
        ("explicit-little", "jpeg-ls"),
        ("explicit-little", "rle"),
        ("jpeg-lossless-sv1", "explicit-little"),
        ("jpeg-ls", "explicit-little"),
        ("rle", "explicit-little"),
        ("rle", "jpeg-ls"),
        ("jpeg-ls", "rle"),
        ("jpeg2000-lossless", "jpeg-lossless"),
    ],
)
def test_pixels_that_prove_another_syntax_are_read(inside, stated):
    data = encode_dicom(HAND, TAGS, inside)
    radiograph = decode(restated(data, stated))
    assert radiograph.flags == ("transfer_syntax_wrong",)
    assert np.array_equal(radiograph.pixels, FULL)


@pytest.mark.parametrize("stated", ["explicit-little", "jpeg-ls", "jpeg2000"])
def test_a_codestream_may_stand_without_items(stated):
    whole = encode_dicom(HAND, TAGS, "jpeg-ls")
    start = whole.index(b"\xe0\x7f\x10\0OB")
    frame = whole[whole.index(b"\xff\xd8\xff") : -8]
    bare = whole[: start + 8] + struct.pack("<I", len(frame)) + frame
    radiograph = decode(restated(bare, stated))
    assert radiograph.flags == ("transfer_syntax_wrong",)
    assert np.array_equal(radiograph.pixels, FULL)
    assert refused(restated(bare[:-50], stated))[0] == "truncated"


def test_a_contradicted_byte_order_is_refused_and_a_data_set_that_is_not_deflated_is_read():
    for inside, stated, said in (
        ("explicit-little", "explicit-big", ("Explicit VR Big Endian", "little")),
        ("explicit-big", "implicit-little", ("Implicit VR Little Endian", "big")),
    ):
        reason, message = refused(restated(encode_dicom(HAND, TAGS, inside), stated))
        assert reason == "unreadable"
        assert all(word in message for word in said)
    radiograph = decode(restated(encode_dicom(HAND, TAGS), "deflated"))
    assert radiograph.flags == ("transfer_syntax_wrong",)
    assert np.array_equal(radiograph.pixels, FULL)


def test_a_jpeg_that_says_another_colour_space_than_the_header_is_read_as_it_says(tmp_path):
    """Writers that convert to Y Cb Cr often leave RGB in the header: read so, a gray hand would lose most of its contrast."""
    gray = np.repeat(HAND[..., None], 3, -1)
    header = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    plain = colour_file(gray, **header)
    plain = changed(plain, PixelData=gray.tobytes())
    for options, photometric in ((("+eb",), "RGB"), (("+eb", "+cr"), "YBR_FULL")):
        right = by_dcmtk("dcmcjpeg", plain, tmp_path, *options)
        wrong = decode(changed(right, PhotometricInterpretation=photometric))
        assert decode(right).flags == ("colour_converted",)
        assert wrong.flags == ("colour_converted", "colour_space_wrong")
        assert np.array_equal(wrong.pixels, decode(right).pixels)
        assert np.abs(wrong.pixels.astype(float) - HAND).mean() < 3


def test_colour_whose_planes_are_not_known_is_refused():
    reason, message = refused(changed(colour_file(DEEP), PlanarConfiguration=2))
    assert (reason, "PlanarConfiguration" in message) == ("unreadable", True)


def test_luminance_of_sixteen_bits_is_the_first_sample_of_four_by_two():
    halved = np.stack([VALUES[:, 0:76:2], VALUES[:, 1:76:2], VALUES[:, 0:76:2] * 0, VALUES[:, 0:76:2] * 0], -1) * 16
    data = colour_file(halved, Columns=76, PhotometricInterpretation="YBR_FULL_422")
    assert np.abs(decode(data).pixels - VALUES[:, :76].astype(int) * 16).max() <= 1


def test_pixels_that_prove_nothing_are_refused_and_both_are_said():
    native = encode_dicom(HAND, TAGS)
    longer = encode_dicom(HAND, DicomTags(5, extra={"PixelData": VALUES.tobytes() + bytes(4)}))
    reason, message = refused(restated(longer, "jpeg-ls"))
    assert reason == "unreadable"
    assert "JPEG-LS" in message
    assert "uncompressed" in message
    assert refused(restated(native[:-100], "jpeg-ls"))[0] in ("truncated", "unreadable")
    data = encode_dicom(HAND, TAGS, "jpeg-ls")
    at = data.index(b"\xff\xd8\xff")
    reason, message = refused(restated(data[:at] + b"\1\2\3" + data[at + 3 :], "explicit-little"))
    assert reason == "unreadable"
    assert "Explicit VR Little Endian" in message
    assert "neither JPEG" in message


@pytest.mark.parametrize("encoding", ["explicit-little", "rle", "jpeg-ls", "jpeg2000-lossless"])
def test_one_rule_for_bits_above_the_stored_ones(encoding):
    """As an overlay beside the values they are masked, as a part of the values they are used."""
    text = np.zeros(VALUES.shape, np.uint16)
    text[20:30, 10:60:7] = 0x8000
    text[50:52, 20:70] = 0x1000
    wide = DicomTags(5, bits=16, window=WINDOW, extra={"BitsStored": 12, "HighBit": 11})
    radiograph = decode(write_values(VALUES | text, wide, encoding))
    assert radiograph.flags == ("bits_outside_stored",)
    assert np.array_equal(radiograph.pixels, FULL)
    narrow = DicomTags(5, bits=12, window=WINDOW, extra={"BitsStored": 10, "HighBit": 9})
    radiograph = decode(write_values(VALUES, narrow, encoding))
    assert radiograph.flags == ("bits_stored_wrong",)
    assert np.array_equal(radiograph.pixels, FULL)
    # Of both one cannot be told from the other.
    doubtful = np.where(np.indices(VALUES.shape)[1] < 66, VALUES & 0x3FF | (text & 0x8000) >> 5, VALUES)
    doubtful[:, 66:] = VALUES[:, 20:31]
    found = refused(write_values(doubtful.astype(np.uint16), narrow, encoding))
    assert found == (
        "unreadable",
        "values of more than 10 bits: BitsStored is wrong, or other data lie above them",
    )


@pytest.mark.parametrize("encoding", ["implicit-little", "explicit-little", "explicit-big"])
@pytest.mark.parametrize("first", [0x0010, 0x0018, 0x0028])
def test_a_data_set_may_begin_behind_group_0008(encoding, first):
    data = encode_dicom(HAND, TAGS, encoding)
    dataset = pydicom.dcmread(io.BytesIO(data))
    for tag in [tag for tag in dataset.keys() if tag.group < first]:  # noqa: SIM118  a Dataset yields elements
        del dataset[tag]
    buffer = io.BytesIO()
    pydicom.dcmwrite(
        buffer,
        dataset,
        implicit_vr=encoding == "implicit-little",
        little_endian=encoding != "explicit-big",
        enforce_file_format=False,
    )
    bare = buffer.getvalue()
    bare = bare[132:] if bare[128:132] == b"DICM" else bare
    if bare[:2] == b"\x02\0":
        bare = bare[12 + struct.unpack_from("<I", bare, 8)[0] :]
    assert int.from_bytes(bare[:2], "big" if encoding == "explicit-big" else "little") >= first
    assert looks_like_dicom(bare)
    assert np.array_equal(decode(bare).pixels, FULL)
    assert refused(bare[1:])[0] == "unsupported_format"  # shifted by a byte
    assert not looks_like_dicom(bare[: bare.index(b"\x28\0" if encoding != "explicit-big" else b"\0\x28") + 1])


def test_a_broken_element_that_is_no_pixel_costs_nothing_but_itself():
    whole = encode_dicom(
        HAND, DicomTags(5, "F", window=WINDOW, spacing_mm=(0.15, 0.15), extra={"SpecificCharacterSet": "ISO_IR 100"})
    )
    sequence = struct.pack("<HH2sHI", 0x0040, 0x0275, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    sequence += struct.pack("<HH2sH", 8, 5, b"CS", 10) + b"ISO_IR\x00100"
    sequence += struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    pixels = whole.index(b"\xe0\x7f\x10\0OW")
    presented = whole.index(b"\x50\x20\x20\0CS")  # (2050,0020), behind group 0040
    for broken in (whole.replace(b"ISO_IR 100", b"ISO_IR\x00100"), whole[:presented] + sequence + whole[presented:]):
        radiograph = decode(broken)
        assert (radiograph.flags, radiograph.sex, radiograph.pixel_spacing_mm) == (("element_unreadable",), "F", 0.15)
        assert np.array_equal(radiograph.pixels, FULL)
        assert refused(broken[:-300])[0] == "truncated"
    assert refused(whole[: pixels - 3])[0] == "truncated"


@pytest.mark.skipif(not DATA.is_dir(), reason="the odd DICOM files are not there (BONEAGE_TEST_DATA)")
def test_the_odd_files_of_one_hand_show_the_same_picture():
    flags = {
        "bits-above-stored-jpeg2000.dcm": ("bits_outside_stored",),
        "bits-above-stored-native.dcm": ("bits_outside_stored",),
        "character-set-with-nul.dcm": ("element_unreadable",),
        "sex-in-words.dcm": (),
        "spacing-negative-imager-good.dcm": ("spacing_unusable", "spacing_at_detector"),
        "states-explicit-is-jpeg.dcm": ("transfer_syntax_wrong",),
        "states-jpegls-is-native.dcm": ("transfer_syntax_wrong",),
        "window-128-256-on-12-bits.dcm": ("voi_clips",),
        "window-3500-600-on-12-bits.dcm": ("voi_clips",),
    }
    right = decode((DATA / "sex-in-words.dcm").read_bytes()).pixels.astype(float)
    for path in sorted(DATA.glob("*.dcm")):
        radiograph = decode(path.read_bytes())
        assert radiograph.flags == flags[path.name], path.name
        assert (radiograph.pixel_spacing_mm, radiograph.sex) == (0.15, "F")
        lossy = radiograph.pixels.dtype == np.uint8
        assert np.abs(radiograph.pixels * (257.0 if lossy else 1.0) - right).max() <= (1000 if lossy else 0), path.name
