"""Decode the bytes of one file to a radiograph. The format is recognised by content, never by the file's extension.

Raster formats are tried first because their first bytes are unmistakable, then DICOM. For anything else the message names the
format, where it is a known one.
"""

from __future__ import annotations

from typing import Literal

from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.decoding.raster.read import decode_raster, raster_format
from boneage_ray.errors import InputProblem

FORMATS = ("DICOM", "PNG", "JPEG", "TIFF", "BMP")
_OTHERS: tuple[tuple[int, bytes, str], ...] = (  # offset, bytes there, what it is
    (0, b"PK\3\4", "a ZIP archive; name it .zip and it is opened"),
    (0, b"PK\5\6", "a ZIP archive with nothing in it"),
    (0, b"\x1f\x8b", "gzip-compressed; a .tar.gz archive is opened by that name, a single file must be unpacked first"),
    (257, b"ustar", "a tar archive; name it .tar and it is opened"),
    (0, b"BZh", "bzip2-compressed; unpack it first"),
    (0, b"\xfd7zXZ\0", "xz-compressed; unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed; unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it first"),
    (0, b"Rar!", "a RAR archive; unpack it first"),
    (0, b"%PDF", "a PDF document; export the radiograph from it as PNG or DICOM"),
    (0, b"GIF8", "a GIF; save it as PNG"),
    (8, b"WEBP", "a WebP; save it as PNG"),
    (8, b"AVI ", "a video; one radiograph a file is needed"),
    (0, b"\x1aE\xdf\xa3", "a video; one radiograph a file is needed"),
    (4, b"ftyphei", "a HEIC photo; save it as PNG or JPEG"),
    (4, b"ftypmif1", "a HEIC photo; save it as PNG or JPEG"),
    (4, b"ftypavi", "an AVIF; save it as PNG"),
    (4, b"ftyp", "a video; one radiograph a file is needed"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 file; it is read inside of DICOM only, save it as PNG"),
    (0, b"\xff\x4f\xff\x51", "a bare JPEG 2000 codestream; it is read inside of DICOM only"),
    (0, b"\xff\x0a", "a JPEG XL; save it as PNG"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL; save it as PNG"),
    (344, b"n+1\0", "a NIfTI volume; a radiograph is one picture"),
    (344, b"ni1\0", "a NIfTI header; a radiograph is one picture"),
    (0, b"\x89HDF", "an HDF5 file; save the radiograph as PNG or DICOM"),
    (0, b"\x93NUMPY", "a NumPy array; save it as 16-bit PNG"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"II\xbc\x01", "a JPEG XR; save it as PNG"),
    (0, b"8BPS", "a Photoshop file; save it as PNG or TIFF"),
    (0, b"\x7fELF", "a program"),
)
_TEXTS = (
    (b"<?xml", "an XML document"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<svg", "an SVG drawing"),
)


def decode(data: bytes, max_megapixels: float = 100.0, voi: Literal["file", "none"] = "file") -> Radiograph:
    """Decode one image file. Raises `InputProblem` (step decode) with the reason when it cannot be used.

    `max_megapixels` is checked against the header before anything is decompressed; `voi` applies to DICOM only.
    """
    if not data:
        raise InputProblem("decode", "truncated", "the file is empty (0 bytes)")
    kind = raster_format(data)
    # A TIFF may begin in the preamble of a DICOM file (PS3.10, 7.1); the DICOM header holds more.
    if kind is None or (kind == "TIFF" and data[128:132] == b"DICM"):
        from boneage_ray.decoding.dicom.read import decode_dicom, looks_like_dicom

        if looks_like_dicom(data):
            return decode_dicom(data, max_megapixels, voi)
    if kind is None:
        raise InputProblem("decode", "unsupported_format", _what_it_is(data))
    return Radiograph(decode_raster(data, kind, max_megapixels))


def _what_it_is(data: bytes) -> str:
    needed = f"not one of {', '.join(FORMATS)} (recognised by content)"
    for offset, start, name in _OTHERS:
        if data.startswith(start, offset):
            return f"{needed} but {name}"
    if data.startswith(b"\xff\xd8"):
        return f"{needed}; starts as a JPEG and ends early"
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    for start, name in _TEXTS:
        if head.lower().startswith(start):
            return f"{needed} but {name}"
    if _is_text(data[:512]):
        return f"{needed} but {'JSON' if head[:1] in (b'{', b'[') else 'plain text'}"
    return needed


def _is_text(head: bytes) -> bool:
    """UTF-8 (perhaps cut inside a letter) without control characters, or UTF-16 by its mark."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    text = head.decode("utf-8", "ignore")
    return len(text.encode()) >= len(head) - 3 and all(letter.isprintable() or letter in "\t\r\n\f" for letter in text)
