"""DICOM files with one planted fault each, and valid ones of an unusual kind."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

from boneage_ray.phantoms.dicom import SYNTAXES, DicomTags, encode_dicom, file_bytes, identified
from boneage_ray.phantoms.film import Image

_REPORT = "1.2.840.10008.5.1.4.1.1.88.11"
_VIDEO = "1.2.840.10008.1.2.4.102"


def _truncated(image: Image, tags: DicomTags) -> bytes:
    whole = encode_dicom(image, tags, "explicit-little")
    return whole[: len(whole) * 3 // 5]


def _report(_: Image, tags: DicomTags) -> bytes:
    dataset = identified(tags.seed, tags.sex, _REPORT, SYNTAXES["explicit-little"])
    dataset.Modality, dataset.ValueType, dataset.ContinuityOfContent = "SR", "CONTAINER", "SEPARATE"
    dataset.CompletionFlag, dataset.VerificationFlag, dataset.ContentSequence = "COMPLETE", "UNVERIFIED", []
    return file_bytes(dataset)


def _multi_frame(image: Image, tags: DicomTags) -> bytes:
    return encode_dicom(image, replace(tags, extra={"NumberOfFrames": 3}), "explicit-little")


def _bomb(image: Image, tags: DicomTags) -> bytes:
    """A header of 60,000 x 60,000 pixels before the pixels of a small picture."""
    return encode_dicom(image, replace(tags, extra={"Rows": 60_000, "Columns": 60_000}), "jpeg-lossless-sv1")


def _hidden_bomb(image: Image, tags: DicomTags) -> bytes:
    """A correct DICOM header around a JPEG that declares 60,000 x 60,000 pixels."""
    whole = bytearray(encode_dicom(image, replace(tags, bits=8), "jpeg-baseline"))
    struct.pack_into(">HH", whole, whole.index(b"\xff\xc0") + 5, 60_000, 60_000)
    return bytes(whole)


def _unknown_syntax(image: Image, tags: DicomTags) -> bytes:
    """An image whose transfer syntax is MPEG-4 video."""
    return encode_dicom(image, replace(tags, syntax=_VIDEO), "jpeg-lossless-sv1")


def _inverted_polarity(image: Image, tags: DicomTags) -> bytes:
    return encode_dicom(image, replace(tags, inverted=True), "jpeg-ls")


def _bare(image: Image, tags: DicomTags) -> bytes:
    """A file without preamble and file meta information, as in old archives."""
    whole = encode_dicom(image, tags, "implicit-little")
    (length,) = struct.unpack_from("<I", whole, 140)  # value of (0002,0000), the first element after "DICM"
    return whole[144 + length :]


# Planted after the good images, in this order; the last two are valid.
DICOM_SPOILERS: dict[str, Callable[[Image, DicomTags], bytes]] = {
    "dicom_truncated": _truncated,
    "dicom_report": _report,
    "dicom_multi_frame": _multi_frame,
    "dicom_bomb": _bomb,
    "dicom_hidden_bomb": _hidden_bomb,
    "dicom_unknown_syntax": _unknown_syntax,
    "valid_monochrome1": _inverted_polarity,
    "valid_bare_dicom": _bare,
}
