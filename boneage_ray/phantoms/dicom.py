"""Phantom pictures as DICOM files in every supported transfer syntax, with names that are clearly not a person's.

>>> from boneage_ray.decoding.dicom.read import decode_dicom
>>> picture = np.arange(256, dtype=np.uint8).reshape(16, 16)
>>> decode_dicom(encode_dicom(picture, DicomTags(seed=1, bits=8), "jpeg-ls"), 1, "none").pixels.tolist() == picture.tolist()
True
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from boneage_ray.errors import UsageError

Encoding = Literal[
    "implicit-little",
    "explicit-little",
    "explicit-big",
    "deflated",
    "rle",
    "jpeg-baseline",
    "jpeg-extended",
    "jpeg-lossless",
    "jpeg-lossless-sv1",
    "jpeg-ls",
    "jpeg-ls-near",
    "jpeg2000-lossless",
    "jpeg2000",
    "htj2k-lossless",
    "htj2k-rpcl",
    "htj2k",
]
_UID = "1.2.840.10008.1.2"
SYNTAXES: dict[Encoding, str] = {
    "implicit-little": _UID,
    "explicit-little": f"{_UID}.1",
    "explicit-big": f"{_UID}.2",
    "deflated": f"{_UID}.1.99",
    "rle": f"{_UID}.5",
    "jpeg-baseline": f"{_UID}.4.50",
    "jpeg-extended": f"{_UID}.4.51",
    "jpeg-lossless": f"{_UID}.4.57",
    "jpeg-lossless-sv1": f"{_UID}.4.70",
    "jpeg-ls": f"{_UID}.4.80",
    "jpeg-ls-near": f"{_UID}.4.81",
    "jpeg2000-lossless": f"{_UID}.4.90",
    "jpeg2000": f"{_UID}.4.91",
    "htj2k-lossless": f"{_UID}.4.201",
    "htj2k-rpcl": f"{_UID}.4.202",
    "htj2k": f"{_UID}.4.203",
}
LOSSY: frozenset[Encoding] = frozenset(("jpeg-baseline", "jpeg-extended", "jpeg-ls-near", "jpeg2000", "htj2k"))
NEAR = 2  # the largest error of a value in jpeg-ls-near
_DX_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"


@dataclass(frozen=True)
class DicomTags:
    """The tags of the file. `seed` gives the UIDs and the patient id.

    `bits`: stored, 8 to 16 (8 bits allocated for 8). `signed`: values are stored around zero, with a RescaleIntercept.
    `inverted`: MONOCHROME1. `spacing_mm`: PixelSpacing, and `detector_spacing_mm`: ImagerPixelSpacing, each (rows, columns).
    `window`: center and width, or None. `syntax`: a false transfer syntax. `extra`: further elements by keyword, which
    override the others.
    """

    seed: int
    sex: str = ""
    bits: int = 12
    signed: bool = False
    inverted: bool = False
    spacing_mm: tuple[float, float] | None = None
    detector_spacing_mm: tuple[float, float] | None = None
    window: tuple[float, float] | None = None
    body_part: str = "HAND"
    syntax: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


def encode_dicom(image: NDArray[np.uint8], tags: DicomTags, encoding: Encoding = "explicit-little") -> bytes:
    """(H, W) uint8 pixels as one DX file; 0 and 255 become the ends of the stored range. Equal arguments, equal bytes.

    Raises UsageError for bits that the encoding cannot hold (jpeg-baseline 8, jpeg-extended 12), and for signed pixels in
    the lossy JPEGs, which would lose the sign bit.
    """
    _check(tags, encoding)
    return write_values(phantom_values(image, tags), tags, encoding)


def phantom_values(image: NDArray[np.uint8], tags: DicomTags) -> NDArray[Any]:
    """The stored values (H, W) of a picture: stretched to `bits`, inverted and shifted below zero as in the tags."""
    top = (1 << tags.bits) - 1
    scaled = np.rint(image.astype(np.float64) * (top / 255)).astype(np.int32)
    if tags.inverted:
        scaled = top - scaled
    if tags.signed:
        scaled -= 1 << (tags.bits - 1)
    kind = "i" if tags.signed else "u"
    return scaled.astype(f"{kind}{1 if tags.bits == 8 else 2}")


def write_values(values: NDArray[Any], tags: DicomTags, encoding: Encoding) -> bytes:
    """Stored values (H, W) as one file; the values may have bits set above `tags.bits`."""
    from pydicom.config import disable_value_validation

    with disable_value_validation():  # the tags may hold wrong values on purpose
        return file_bytes(_image(values, tags, encoding))


def _image(values: NDArray[Any], tags: DicomTags, encoding: Encoding) -> Any:  # noqa: ANN401  as in file_bytes
    from pydicom.encaps import encapsulate

    dataset = _dataset(values, tags, SYNTAXES[encoding])
    size = values.dtype.itemsize
    if encoding in _ENCODERS:
        patterns = values.view(f"u{size}") & np.array((1 << tags.bits) - 1, f"u{size}")
        dataset.PixelData = encapsulate([_ENCODERS[encoding](patterns, tags.bits)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    else:
        raw = values.astype(values.dtype.newbyteorder(">" if encoding == "explicit-big" else "<")).tobytes()
        dataset.PixelData = raw + b"\0" * (len(raw) % 2)
        dataset["PixelData"].VR = "OB" if size == 1 and encoding != "implicit-little" else "OW"
    if tags.syntax:
        dataset.file_meta.TransferSyntaxUID = tags.syntax
    for keyword, value in tags.extra.items():
        setattr(dataset, keyword, value)
    return dataset


def file_bytes(dataset: Any) -> bytes:  # noqa: ANN401  a pydicom Dataset, which is imported late
    """A dataset with file meta as the bytes of a file."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def uid(*parts: object) -> str:
    """A UID below 2.25, equal for equal parts."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


def identified(seed: int, sex: str, sop_class: str, syntax: str) -> Any:  # noqa: ANN401  as in file_bytes
    """A dataset with file meta, UIDs and the synthetic patient, and no image."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = UID(sop_class)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID(uid("object", seed))
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.ImplementationClassUID = UID(uid("boneage phantoms"))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid("study", seed), uid("series", seed)
    dataset.PatientName, dataset.PatientID = "Phantom^Synthetic", f"PHANTOM-{seed}"
    dataset.PatientSex, dataset.PatientBirthDate = sex, ""
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber, dataset.StudyID = "20000101", "000000", "", ""
    dataset.ReferringPhysicianName, dataset.Manufacturer = "", "boneage-ray phantoms"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    return dataset


def _dataset(values: NDArray[Any], tags: DicomTags, syntax: str) -> Any:  # noqa: ANN401  as in file_bytes
    dataset = identified(tags.seed, tags.sex, _DX_FOR_PRESENTATION, syntax)
    dataset.Modality, dataset.PresentationIntentType = "DX", "FOR PRESENTATION"
    dataset.ImageType = ["DERIVED", "PRIMARY", ""]
    dataset.BodyPartExamined, dataset.BurnedInAnnotation = tags.body_part, "NO"
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if tags.inverted else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if tags.inverted else "IDENTITY"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = values.dtype.itemsize * 8, tags.bits, tags.bits - 1
    dataset.PixelRepresentation = int(tags.signed)
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 1 << (tags.bits - 1) if tags.signed else 0
    dataset.RescaleType = "US"
    lossy = any(SYNTAXES[encoding] == syntax for encoding in LOSSY)
    dataset.LossyImageCompression = "01" if lossy else "00"
    if tags.spacing_mm:
        dataset.PixelSpacing = [f"{mm:.8g}" for mm in tags.spacing_mm]
    if tags.detector_spacing_mm:
        dataset.ImagerPixelSpacing = [f"{mm:.8g}" for mm in tags.detector_spacing_mm]
    if tags.window:
        dataset.WindowCenter, dataset.WindowWidth = tags.window
    return dataset


def _check(tags: DicomTags, encoding: Encoding) -> None:
    allowed = {"jpeg-baseline": (8,), "jpeg-extended": (12,)}.get(encoding, range(8, 17))
    if tags.bits not in allowed:
        raise UsageError(f"{tags.bits} bits in {encoding}: give {' or '.join(map(str, allowed))} bits")
    if tags.signed and encoding in LOSSY:
        raise UsageError(f"signed pixels in {encoding}: give a lossless encoding")


def _jpeg(**options: Any) -> Callable[[NDArray[Any], int], bytes]:  # noqa: ANN401  options of the encoder
    def encode(values: NDArray[Any], bits: int) -> bytes:
        import imagecodecs

        return bytes(imagecodecs.jpeg8_encode(values, bitspersample=bits, **options))

    return encode


def _jpeg_ls(near: int) -> Callable[[NDArray[Any], int], bytes]:
    def encode(values: NDArray[Any], bits: int) -> bytes:
        import imagecodecs

        return bytes(imagecodecs.jpegls_encode(values, level=near))

    return encode


def _jpeg2000(**options: Any) -> Callable[[NDArray[Any], int], bytes]:  # noqa: ANN401  options of the encoder
    def encode(values: NDArray[Any], bits: int) -> bytes:
        import imagecodecs

        return bytes(imagecodecs.jpeg2k_encode(values, codecformat="j2k", bitspersample=bits, **options))

    return encode


def _htj2k(step: float | None) -> Callable[[NDArray[Any], int], bytes]:
    """An HTJ2K encoder; `step`: quantisation as a fraction of the stored range, None for lossless."""

    def encode(values: NDArray[Any], bits: int) -> bytes:
        import imagecodecs

        # The encoder takes it as a fraction of the range of the words.
        level = None if step is None else step / (1 << (values.itemsize * 8 - bits))
        return bytes(imagecodecs.htj2k_encode(values, level=level, reversible=step is None))

    return encode


def _rle(values: NDArray[Any], bits: int) -> bytes:
    """PS3.5 annex G: one segment per byte plane, the high one first; runs do not cross rows."""
    import imagecodecs

    height = values.shape[0]
    planes = np.moveaxis(
        values.astype(values.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1, values.itemsize), 2, 0
    )
    segments = []
    for plane in planes:
        packed = b"".join(bytes(imagecodecs.packbits_encode(row.tobytes())) for row in plane)
        segments.append(packed + b"\0" * (len(packed) % 2))
    offsets = np.zeros(16, "<u4")
    offsets[0] = len(segments)
    offsets[1 : len(segments) + 1] = 64 + np.cumsum([0, *map(len, segments[:-1])])
    return offsets.tobytes() + b"".join(segments)


_ENCODERS: dict[Encoding, Callable[[NDArray[Any], int], bytes]] = {
    "rle": _rle,
    "jpeg-baseline": _jpeg(level=95),
    "jpeg-extended": _jpeg(level=98),
    "jpeg-lossless": _jpeg(lossless=True, predictor=6),
    "jpeg-lossless-sv1": _jpeg(lossless=True, predictor=1),
    "jpeg-ls": _jpeg_ls(0),
    "jpeg-ls-near": _jpeg_ls(NEAR),
    "jpeg2000-lossless": _jpeg2000(reversible=True),
    "jpeg2000": _jpeg2000(reversible=False, level=60),
    "htj2k-lossless": _htj2k(None),
    "htj2k-rpcl": _htj2k(None),  # the encoder supports no other order than RPCL
    "htj2k": _htj2k(0.0005),
}
