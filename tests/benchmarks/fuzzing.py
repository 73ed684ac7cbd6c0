"""Damaged radiographs, made the same way every time: what `fuzz.py` and tests/decoding/test_fuzz.py feed to the decoders.

File k of a run depends on the seed files, the run's seed and k alone, so one file can be made again by its number.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from boneage_ray.phantoms.dicom import SYNTAXES, DicomTags, encode_dicom
from boneage_ray.phantoms.hand import hand_phantom

INTERESTING = (0, 1, 2, 7, 8, 9, 12, 15, 16, 17, 31, 32, 63, 64, 127, 128, 255, 256, 4096, 32767, 32768, 65535)
LARGE = (65536, 100_000, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
SHARES = {"PNG": 0.3, "JPEG": 0.25, "DICOM": 0.37, "TIFF": 0.06, "BMP": 0.02}
DAMAGES = ("truncate", "bits", "head bits", "overwrite", "insert", "delete", "header", "header", "splice")
_DICOM_NUMBERS = {
    "Rows": (0x28, 0x10),
    "Columns": (0x28, 0x11),
    "BitsAllocated": (0x28, 0x100),
    "BitsStored": (0x28, 0x101),
    "HighBit": (0x28, 0x102),
    "PixelRepresentation": (0x28, 0x103),
    "SamplesPerPixel": (0x28, 0x02),
}
_DICOM_TEXTS = {
    "TransferSyntaxUID": (0x02, 0x10),
    "PhotometricInterpretation": (0x28, 0x04),
    "NumberOfFrames": (0x28, 0x08),
    "PixelSpacing": (0x28, 0x30),
    "WindowCenter": (0x28, 0x1050),
    "WindowWidth": (0x28, 0x1051),
    "RescaleSlope": (0x28, 0x1053),
    "RescaleIntercept": (0x28, 0x1052),
    "SOPClassUID": (0x08, 0x16),
}
_DICOM_VALUES = (
    *(uid.encode() for uid in SYNTAXES.values()),
    *(b"1.2.840.10008.1.2.4.100", b"1.2.840.10008.1.2.4.110", b"1.2.3", b"RGB", b"PALETTE COLOR", b"YBR_FULL_422"),
    *(b"MONOCHROME1", b"MONOCHROME2", b"0", b"-1", b"1e400", b"nan", b"2", b"99999999999", b"0\\0", b"x\xff", b""),
)


@dataclass(frozen=True)
class Seed:
    """A sound file: its name, kind (PNG, JPEG, DICOM, TIFF, BMP) and bytes."""

    name: str
    kind: str
    data: bytes


@dataclass(frozen=True)
class Fuzzed:
    """A damaged file: its number, the seed file's index, what was done to it."""

    number: int
    seed: int
    kind: str
    damage: str
    data: bytes


def phantom_seeds(size=200):
    """A phantom hand in every encoding."""
    pixels = hand_phantom(1, 120, "F", size).image
    wide = pixels.astype(np.uint16) * 200
    seeds = [Seed(f"phantom {name}", "DICOM", _dicom(pixels, name)) for name in SYNTAXES]
    rest = (
        ("PNG", pixels, {}),
        ("PNG", wide, {}),
        ("JPEG", pixels, {"quality": 90}),
        ("JPEG", pixels, {"quality": 80, "progressive": True}),
        *(("TIFF", pixels, {"compression": way}) for way in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")),
        ("TIFF", wide, {"compression": "raw"}),
        ("BMP", pixels, {}),
    )
    return seeds + [
        Seed(f"phantom {kind} {k}", kind, _encoded(px, kind, **how)) for k, (kind, px, how) in enumerate(rest)
    ]


def _dicom(pixels, name):
    bits = 8 if name == "jpeg-baseline" else 12
    window = (2.0 ** (bits - 1), 2.0**bits)
    return encode_dicom(pixels, DicomTags(seed=1, sex="F", bits=bits, spacing_mm=(0.2, 0.2), window=window), name)


def _encoded(pixels, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def real_seeds(data, pictures=40, films=20):
    """Real hands (PNG), cephalograms (JPEG, every second one shrunk) and every file of the DICOM set."""
    hands = sorted(Path(data, "hands").rglob("*.png"))
    found = sorted(Path(data, "cephalograms").rglob("*.jpg"))
    seeds = [Seed(path.name, "PNG", path.read_bytes()) for path in hands[:: max(1, len(hands) // pictures)][:pictures]]
    for k, path in enumerate(found[:: max(1, len(found) // films)][:films]):
        content = path.read_bytes()
        if k % 2:
            content = _encoded(np.asarray(Image.open(path).convert("L").resize((484, 600))), "JPEG", quality=90)
        seeds.append(Seed(path.name, "JPEG", content))
    dicoms = sorted(p for p in Path(data, "dicom").glob("*") if p.suffix != ".csv")
    return seeds + [Seed(path.name, "DICOM", path.read_bytes()) for path in dicoms]


def fuzzed(seeds, number, seed=0):
    """File `number` of the run `seed`."""
    rng = np.random.default_rng([seed, number])
    kinds = [kind for kind in SHARES if any(s.kind == kind for s in seeds)]
    shares = np.array([SHARES[kind] for kind in kinds])
    kind = kinds[rng.choice(len(kinds), p=shares / shares.sum())]
    index = int(rng.choice([k for k, s in enumerate(seeds) if s.kind == kind]))
    damage = str(rng.choice(DAMAGES))
    data = bytearray(seeds[index].data)
    other = seeds[int(rng.choice([k for k, s in enumerate(seeds) if s.kind == kind]))].data
    return Fuzzed(number, index, kind, damage, bytes(_damaged(data, kind, damage, rng, other)))


def _damaged(data, kind, damage, rng, other):
    if damage == "header":
        return HEADERS[kind](data, rng)
    if damage == "splice":
        return _splice(data, kind, rng, other)
    at, length = int(rng.integers(0, len(data))), int(rng.choice((1, 2, 4, 16, 256, 4096)))
    if damage == "truncate":
        return data[:at]
    if damage == "overwrite":
        data[at : at + length] = rng.bytes(min(length, len(data) - at))
    elif damage == "insert":
        data[at:at] = rng.bytes(length)
    elif damage == "delete":
        del data[at : at + length]
    else:
        end = min(len(data), 1024) if damage == "head bits" else len(data)
        for _ in range(int(rng.integers(1, 21))):
            data[int(rng.integers(0, end))] ^= 1 << int(rng.integers(0, 8))
    return data


def _splice(data, kind, rng, other):
    """The head of one file before the body of another; for DICOM one's file meta group before the other's data set."""
    at = int(rng.integers(0, len(data)))
    if kind == "DICOM" and rng.random() < 0.7:
        return data[: _meta_end(data)] + other[_meta_end(other) :]
    return data[:at] + other[at:]


def _meta_end(data):
    """Where the data set begins."""
    if data[128:132] != b"DICM" or data[132:136] != b"\2\0\0\0":
        return min(len(data), 400)
    return 144 + struct.unpack_from("<I", data, 140)[0]


def _number(rng, limit=2**32):
    choices = [n for n in (*INTERESTING, *LARGE) if n < limit]
    return int(rng.choice(choices)) if rng.random() < 0.7 else int(rng.integers(0, limit))


def _png(data, rng):
    """IHDR edits under a correct CRC."""
    field, code, limit = ((16, ">I", 2**32), (20, ">I", 2**32), (24, ">B", 256), (25, ">B", 256), (28, ">B", 256))[
        rng.integers(5)
    ]
    struct.pack_into(code, data, field, _number(rng, limit))
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    return data


def _jpeg(data, rng):
    """SOF edits: precision, height, width, components; or the length of a random segment."""
    at, starts = 2, []
    while at + 4 < len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        starts.append(at)
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    frames = [at for at in starts if 0xC0 <= data[at + 1] <= 0xCF and data[at + 1] not in (0xC4, 0xC8, 0xCC)]
    if not frames or rng.random() < 0.2:
        struct.pack_into(">H", data, int(rng.choice(starts)) + 2, _number(rng, 2**16))
        return data
    field, code, limit = ((4, ">B", 256), (5, ">H", 2**16), (7, ">H", 2**16), (9, ">B", 256), (1, ">B", 256))[
        rng.integers(5)
    ]
    struct.pack_into(code, data, frames[0] + field, _number(rng, limit))
    return data


def _dicom_header(data, rng):
    """One element's value or length, found by its tag; both byte orders."""
    numbers = rng.random() < 0.5
    names = _DICOM_NUMBERS if numbers else _DICOM_TEXTS
    name = str(rng.choice(list(names)))
    for order in "<>":
        at = data.find(struct.pack(f"{order}HH", *names[name]), 128)
        if at >= 0:
            break
    else:
        return _damaged(data, "DICOM", "head bits", rng, b"")
    explicit = data[at + 4 : at + 6].isalpha()
    length_at, length_code = (at + 6, "H") if explicit else (at + 4, "I")
    length = struct.unpack_from(f"{order}{length_code}", data, length_at)[0]
    if rng.random() < 0.15:
        struct.pack_into(f"{order}{length_code}", data, length_at, _number(rng, 2**16))
    elif numbers:
        struct.pack_into(f"{order}H", data, at + 8, _number(rng, 2**16))
    else:
        value = _DICOM_VALUES[rng.integers(len(_DICOM_VALUES))]
        value += b" " * (len(value) % 2)
        struct.pack_into(f"{order}{length_code}", data, length_at, len(value))
        data[at + 8 : at + 8 + length] = value
    return data


def _tiff(data, rng):
    """The type, count or value of one entry of the first directory."""
    order = "<" if data[:2] == b"II" else ">"
    at = struct.unpack_from(f"{order}I", data, 4)[0]
    entry = at + 2 + 12 * int(rng.integers(struct.unpack_from(f"{order}H", data, at)[0]))
    field, code, limit = ((2, "H", 20), (4, "I", 2**32), (8, "I", 2**32), (8, "I", 2**16), (8, "H", 2**16))[
        rng.integers(5)
    ]
    struct.pack_into(order + code, data, entry + field, _number(rng, limit))
    return data


def _bmp(data, rng):
    field, code, limit = ((18, "<I", 2**32), (22, "<I", 2**32), (28, "<H", 2**16), (30, "<I", 16), (10, "<I", 2**32))[
        rng.integers(5)
    ]
    struct.pack_into(code, data, field, _number(rng, limit))
    return data


HEADERS = {"PNG": _png, "JPEG": _jpeg, "DICOM": _dicom_header, "TIFF": _tiff, "BMP": _bmp}
