"""Read from the header how a DICOM file stores its pixels, and refuse what is not supported (PS3.3 C.7.6.3)."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from boneage_ray.decoding.dicom.file import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    DicomFile,
    check_size,
    name_of,
)
from boneage_ray.errors import InputProblem

NATIVE = frozenset((IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED))
RLE = "1.2.840.10008.1.2.5"
_JPEG = "1.2.840.10008.1.2.4."
# Lossless ones keep junk in the bits above BitsStored, which is masked; lossy ones overshoot, which is clipped.
LOSSLESS = frozenset(_JPEG + end for end in ("57", "70", "80", "90", "201", "202"))
LOSSY = frozenset(_JPEG + end for end in ("50", "51", "81", "91", "203"))
_GRAY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


@dataclass(frozen=True)
class PixelLayout:
    """How the pixels are stored, PS3.3 C.7.6.3: `shift` is the place of the lowest stored bit."""

    rows: int
    columns: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    shift: int
    signed: bool
    planar: bool
    floating: bool = False

    @property
    def wide(self) -> bool:
        """Whether values have more than 16 bits: integers of 32, and floating point."""
        return self.allocated > 16

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns, samples."""
        return self.rows, self.columns, self.samples


def read_layout(file: DicomFile, max_megapixels: float) -> PixelLayout:
    """Read and check the header without decoding pixels. Raises `InputProblem` for what cannot be read."""
    tags = file.tags
    rows, columns = required(tags, "Rows"), required(tags, "Columns")
    frames = header_whole(tags, "NumberOfFrames")
    if frames is not None and frames > 1:
        raise InputProblem("decode", "multi_frame", f"{frames} frames; one radiograph a file is needed")
    check_size(rows, columns, max_megapixels)
    photometric = str(tags.get("PhotometricInterpretation") or "").strip().upper()
    if not photometric:
        raise _missing("PhotometricInterpretation")
    floating = file.pixel.keyword != "PixelData"
    allocated = required(tags, "BitsAllocated")
    stored = allocated if floating else required(tags, "BitsStored")
    high = None if floating else header_whole(tags, "HighBit")
    layout = PixelLayout(
        rows=rows,
        columns=columns,
        samples=header_whole(tags, "SamplesPerPixel") or (3 if photometric in _COLOUR else 1),
        photometric=photometric,
        allocated=allocated,
        stored=stored,
        shift=(stored - 1 if high is None else high) + 1 - stored,
        signed=floating or required(tags, "PixelRepresentation", least=0) == 1,
        planar=_planar(tags),
        floating=floating,
    )
    _check_syntax(file)
    _check_format(file, layout)
    return layout


def header_whole(tags: Dataset, keyword: str) -> int | None:
    """A whole number of the header, or None where it is absent, empty or not a number."""
    try:
        value = tags.get(keyword)
        return None if value is None else int(value)
    except (ValueError, TypeError, OverflowError, AttributeError, NotImplementedError, KeyError):
        return None


def required(tags: Dataset, keyword: str, least: int = 1) -> int:
    """A whole number that every image needs. Raises `InputProblem` where it is absent or too small."""
    value = header_whole(tags, keyword)
    if value is None or value < least:
        raise _missing(keyword)
    return value


def _planar(tags: Dataset) -> bool:
    """Whether the samples of colour lie in planes, which only this element tells. Raises `InputProblem` where it is unusable."""
    value = header_whole(tags, "PlanarConfiguration")
    if value not in (None, 0, 1) or (value is None and tags.get("PlanarConfiguration") is not None):
        raise InputProblem("decode", "unreadable", "the DICOM header has an unusable PlanarConfiguration")
    return value == 1


def _missing(keyword: str) -> InputProblem:
    return InputProblem("decode", "unreadable", f"the DICOM header lacks a usable {keyword}, which an image needs")


def _check_syntax(file: DicomFile) -> None:
    if file.syntax and file.syntax not in NATIVE | LOSSLESS | LOSSY | {RLE}:
        message = f"transfer syntax {name_of(file.syntax)} ({file.syntax}) is not read"
        raise InputProblem("decode", "unsupported_transfer_syntax", message)


def _check_format(file: DicomFile, layout: PixelLayout) -> None:
    if layout.floating:
        _check_floats(file, layout)
    elif layout.allocated not in (8, 16) and not (layout.allocated == 32 and layout.photometric in _GRAY[:2]):
        raise _unsupported(f"{layout.allocated} bits allocated")
    elif layout.wide and file.big_endian:
        # The standard has words of 16 bits (OW) here: pydicom and dcmtk show different pictures.
        raise _unsupported(f"{layout.allocated} bits allocated in big endian")
    if layout.photometric not in _GRAY + _COLOUR:
        raise _unsupported("a photometric interpretation other than " + ", ".join((*_GRAY, *_COLOUR)))
    colour = layout.photometric in _COLOUR
    if layout.samples != (3 if colour else 1) or (colour and layout.allocated == 16 and layout.signed):
        raise _unsupported(f"{layout.photometric} of {layout.samples} samples with {layout.allocated} bits")
    if layout.shift < 0 or layout.shift + layout.stored > layout.allocated:
        message = f"impossible header: {layout.stored} bits stored, {layout.allocated} allocated, or a wrong HighBit"
        raise InputProblem("decode", "unreadable", message)


def _check_floats(file: DicomFile, layout: PixelLayout) -> None:
    bits = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}[file.pixel.keyword]
    if layout.allocated != bits or layout.photometric not in _GRAY[:2]:
        raise _unsupported(f"{file.pixel.keyword} of {layout.allocated} bits and {layout.photometric}")
    if file.syntax not in NATIVE or file.pixel.length is None:
        raise _unsupported(f"{file.pixel.keyword} that is compressed")


def _unsupported(what: str) -> InputProblem:
    return InputProblem(
        "decode",
        "unsupported_format",
        f"{what}; gray and colour in 8 or 16 allocated bits are read, and gray in 32 or floating point",
    )
