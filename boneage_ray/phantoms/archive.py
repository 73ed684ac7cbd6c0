"""Writes synthetic archives in the layouts of real ones, file by file, to a folder or an S3 prefix.

Hand archive (RSNA layout)::

    URI/boneage-training-dataset.csv                                id,boneage,male
    URI/boneage-training-dataset/boneage-training-dataset/1000.png
    URI/masks/1000.png         255 on hand and forearm, else 0; only with --masks

Cephalogram archive::

    URI/images/001.png
    URI/facial/001.txt         19 lines x,y in ISBI order
    URI/vertebral/001.json     labelme: shapes of group 2, 3, 4 with 3, 5, 5 points
    URI/stages.csv             image,stage
    URI/pixel_spacing.csv      image,pixel_spacing_mm

DICOM images end in .dcm and use all encodings of phantoms.dicom in turn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from boneage_ray.anatomy.growth import Sex
from boneage_ray.errors import UsageError
from boneage_ray.phantoms.cephalogram import CephalogramPhantom, cephalogram_phantom
from boneage_ray.phantoms.dicom import SYNTAXES, DicomTags, Encoding, encode_dicom
from boneage_ray.phantoms.dicom_bad import DICOM_SPOILERS
from boneage_ray.phantoms.film import Image
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.phantoms.png import encode_gray_png, encode_palette_png
from boneage_ray.storage import join, write_bytes

HAND_FOLDER = "boneage-training-dataset/boneage-training-dataset"
HAND_CSV = "boneage-training-dataset.csv"
AGES_MONTHS = (12, 216)
FIRST_ID = 1000
HAND_MM = 220.0  # height of a hand picture, for the pixel spacing of DICOM


@dataclass(frozen=True)
class HandEntry:
    """The truth of one image. `kind` is "good" or the planted fault; `labelled`: it has a label, `stored`: it has a file."""

    id: str
    age_months: int
    sex: Sex
    kind: str = "good"
    labelled: bool = True
    stored: bool = True


@dataclass(frozen=True)
class CephalogramEntry:
    """The truth of one image; `image` is the file's name."""

    image: str
    stage: str
    pixel_spacing_mm: float


# Planted after the good images, in this order; the last three are valid.
BAD_KINDS = (
    "blank",
    "inverted",
    "truncated",
    "text",
    "zero_bytes",
    "no_image",
    "no_label",
    "valid_16_bit",
    "valid_rgba",
    "valid_palette",
)
# The same for a DICOM archive; the last two are valid.
DICOM_BAD_KINDS = ("no_image", "no_label", *DICOM_SPOILERS)


def write_hand_archive(
    uri: str, count: int, seed: int, size: int, bad: bool = False, dicom: bool = False
) -> list[HandEntry]:
    """Write `count` hands of `size` pixels height and their labels, PNG or DICOM, and return the truth.

    Ages are whole months spread evenly over 12 to 216. `bad` adds one of each of BAD_KINDS or DICOM_BAD_KINDS. Equal arguments
    write equal bytes. Raises UsageError for a count below 1 or a negative seed, StorageError if writing fails.
    """
    _check(count, seed)
    entries = _plan_hands(count, seed, (DICOM_BAD_KINDS if dicom else BAD_KINDS) if bad else ())
    for k, entry in enumerate(entries):
        if entry.stored:
            image = hand_phantom(image_seed(seed, k), entry.age_months, entry.sex, size).image
            data = _hand_dicom(entry, image, k, image_seed(seed, k)) if dicom else _hand_png(entry, image)
            write_bytes(join(uri, HAND_FOLDER, f"{entry.id}.{'dcm' if dicom else 'png'}"), data)
    rows = [f"{e.id},{e.age_months},{e.sex == 'M'}" for e in entries if e.labelled]
    write_bytes(join(uri, HAND_CSV), _lines(["id,boneage,male", *rows]))
    return entries


def write_hand_masks(uri: str, entries: Sequence[HandEntry], seed: int, size: int) -> None:
    """Add the true masks of the `entries` that `write_hand_archive` returned for this seed and size."""
    for k, entry in enumerate(entries):
        if entry.stored:
            mask = hand_phantom(image_seed(seed, k), entry.age_months, entry.sex, size).mask
            write_bytes(join(uri, "masks", f"{entry.id}.png"), encode_gray_png(mask))


def write_cephalogram_archive(
    uri: str, count: int, seed: int, size: int, dicom: bool = False
) -> list[CephalogramEntry]:
    """Write `count` heads of `size` pixels height with their landmarks, PNG or DICOM, and return the truth.

    The six stages are equally frequent. Equal arguments write equal bytes. Raises what `write_hand_archive` raises.
    """
    _check(count, seed)
    stages = np.random.default_rng([seed, 3]).permutation(np.arange(count) % 6 + 1)
    entries = []
    for k, stage in enumerate(stages):
        name = f"{k + 1:03d}"
        phantom = cephalogram_phantom(image_seed(seed, k), int(stage), size)
        image = f"{name}.{'dcm' if dicom else 'png'}"
        data = _cephalogram_dicom(phantom, k, image_seed(seed, k)) if dicom else encode_gray_png(phantom.image)
        write_bytes(join(uri, "images", image), data)
        write_bytes(join(uri, "facial", f"{name}.txt"), _lines(f"{x!r},{y!r}" for x, y in phantom.facial.tolist()))
        write_bytes(join(uri, "vertebral", f"{name}.json"), _labelme(phantom, image))
        entries.append(CephalogramEntry(image, phantom.stage, phantom.pixel_spacing_mm))
    write_bytes(join(uri, "stages.csv"), _lines(["image,stage", *(f"{e.image},{e.stage}" for e in entries)]))
    spacings = [f"{e.image},{e.pixel_spacing_mm!r}" for e in entries]
    write_bytes(join(uri, "pixel_spacing.csv"), _lines(["image,pixel_spacing_mm", *spacings]))
    return entries


def image_seed(seed: int, k: int) -> int:
    """Seed of the k-th picture of an archive."""
    return seed * 1_000_003 + k


def _check(count: int, seed: int) -> None:
    if count < 1:
        raise UsageError(f"count {count}: an archive needs at least one phantom")
    if seed < 0:
        raise UsageError(f"seed {seed}: a seed must be 0 or more")


def _plan_hands(count: int, seed: int, bad_kinds: Iterable[str]) -> list[HandEntry]:
    rng = np.random.default_rng([seed, 1])
    kinds = ["good"] * count + list(bad_kinds)
    total = len(kinds)
    youngest, oldest = AGES_MONTHS
    # One age in each of `total` equal intervals, for even coverage in a small archive.
    slots = (rng.permutation(total) + rng.random(total)) / total
    ages = youngest + np.floor(slots * (oldest - youngest + 1)).astype(int)
    male = rng.random(total) < 0.5
    return [
        HandEntry(
            str(FIRST_ID + k),
            int(ages[k]),
            "M" if male[k] else "F",
            kind,
            kind != "no_label",
            kind != "no_image",
        )
        for k, kind in enumerate(kinds)
    ]


def _hand_png(entry: HandEntry, image: Image) -> bytes:
    spoil: Callable[[Image], bytes] = _SPOILERS.get(entry.kind, encode_gray_png)
    return spoil(image)


def _hand_dicom(entry: HandEntry, image: Image, k: int, seed: int) -> bytes:
    """A file in the k-th encoding; every second one MONOCHROME1, every third one with ImagerPixelSpacing only."""
    spacing = (HAND_MM / image.shape[0],) * 2
    tags = DicomTags(seed, entry.sex, inverted=k % 2 == 1, window=(2048.0, 4096.0))
    tags = replace(tags, detector_spacing_mm=spacing) if k % 3 == 2 else replace(tags, spacing_mm=spacing)
    if entry.kind in DICOM_SPOILERS:
        return DICOM_SPOILERS[entry.kind](image, tags)
    return _in_turn(image, tags, k)


def _cephalogram_dicom(phantom: CephalogramPhantom, k: int, seed: int) -> bytes:
    spacing = (phantom.pixel_spacing_mm, phantom.pixel_spacing_mm)
    return _in_turn(phantom.image, DicomTags(seed, spacing_mm=spacing, body_part="HEAD"), k)


def _in_turn(image: Image, tags: DicomTags, k: int) -> bytes:
    encodings: list[Encoding] = list(SYNTAXES)
    encoding = encodings[k % len(encodings)]
    if encoding == "jpeg-baseline":
        tags = replace(tags, bits=8, window=None)
    return encode_dicom(image, tags, encoding)


def _truncated(image: Image) -> bytes:
    whole = encode_gray_png(image)
    return whole[: len(whole) * 3 // 5]


_SPOILERS: dict[str, Callable[[Image], bytes]] = {
    "blank": lambda image: encode_gray_png(np.full_like(image, 40)),
    "inverted": lambda image: encode_gray_png(255 - image),
    "truncated": _truncated,
    "text": lambda _: b"This is a note, not a picture.\n",
    "zero_bytes": lambda _: b"",
    "valid_16_bit": lambda image: encode_gray_png(image.astype(np.uint16) * np.uint16(257)),
    "valid_rgba": lambda image: encode_gray_png(np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGRA))),
    "valid_palette": encode_palette_png,
}


def _labelme(phantom: CephalogramPhantom, image: str) -> bytes:
    parts = ((2, phantom.vertebral[:3]), (3, phantom.vertebral[3:8]), (4, phantom.vertebral[8:]))
    height, width = phantom.image.shape
    annotation = {
        "version": "5.0.1",
        "flags": {},
        "shapes": [_shape(group, points) for group, points in parts],
        "imagePath": f"../images/{image}",
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    return json.dumps(annotation, indent=1).encode()


def _shape(group: int, points: NDArray[np.float64]) -> dict[str, object]:
    kind = "linestrip" if group == 2 else "polygon"
    return {
        "label": f"C{group}",
        "points": points.tolist(),
        "group_id": group,
        "shape_type": kind,
        "flags": {},
    }


def _lines(lines: Iterable[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()
