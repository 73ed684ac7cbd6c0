"""What ours, pydicom and dcmtk make of each DICOM file of a folder, and where they disagree.

    python tests/benchmarks/viewers.py FOLDER [FOLDER ...] [--only-disagreements]

dcmtk is Debian's package of that name: dcmj2pnm, and dcml2pnm for JPEG-LS; it does not read JPEG 2000. pydicom uses the plugins
that are installed: pylibjpeg with its libjpeg and openjpeg make it read most. Pictures are gray levels without a window, by
pydicom's own modality, colour and polarity steps; dcmtk's have 8 bits and no overlays. A picture of ours disagrees with another
one if no straight line maps the levels of one to those of the other. A file that one refuses and another shows is listed with the
reason. Files of several frames, of which dcmtk shows the first, are only counted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pydicom
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

from boneage_ray.decoding.decode import decode
from boneage_ray.decoding.dicom.read import looks_like_dicom
from boneage_ray.errors import InputProblem

WEIGHTS = np.array([0.299, 0.587, 0.114])
LOSSY_STEP = 0.02  # two decoders of one lossy codestream may differ by that
STEP_OF_8_BITS = 1.01 / 255


class Seen(NamedTuple):
    """One program's view of a file: gray levels or None, and in words what it said."""

    pixels: np.ndarray | None
    said: str


def ours(data):
    try:
        radiograph = decode(data, voi="none")
    except InputProblem as problem:
        return Seen(None, f"{problem.reason}: {problem.message}")
    return Seen(radiograph.pixels.astype(float), ", ".join(radiograph.flags))


def by_pydicom(path):
    """The first frame of a file in gray, after the Modality LUT, MONOCHROME1 inverted."""
    try:
        tags = pydicom.dcmread(path, force=True)
        pixels = tags.pixel_array
        photometric = str(tags.PhotometricInterpretation)
        if photometric == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, tags)
        if pixels.ndim > 2 and int(tags.get("NumberOfFrames") or 1) > 1:
            return Seen(None, f"{tags.NumberOfFrames} frames")
        if pixels.ndim == 3:
            return Seen(pixels.astype(float) @ WEIGHTS, "")
        pixels = apply_modality_lut(pixels, tags).astype(float)
        return Seen(-pixels if photometric == "MONOCHROME1" else pixels, "")
    except Exception as error:  # noqa: BLE001  whatever it does not read is a line of the table
        return Seen(None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def by_dcmtk(path, folder):
    """The file in gray of 8 bits, without a window."""
    said = ""
    for program in ("dcmj2pnm", "dcml2pnm"):
        out = folder / "out.pnm"
        out.unlink(missing_ok=True)
        done = subprocess.run(
            [program, "--min-max-window", "--no-overlays", str(path), str(out)],
            capture_output=True,
            text=True,
            errors="replace",  # what a broken file makes dcmtk quote need not be text
            check=False,
            timeout=60,
        )
        if done.returncode == 0 and out.exists():
            pixels = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)
            if pixels is not None:
                return Seen(pixels[..., ::-1] @ WEIGHTS if pixels.ndim == 3 else pixels.astype(float), "")
        said = said or (done.stderr.strip().splitlines() or ["no picture"])[-1]
    return Seen(None, said)


def disagreement(one, other, step):
    """In words, how two pictures differ; None where one is a straight line of the other, within `step` of its range."""
    if one.shape != other.shape:
        return f"{one.shape} and {other.shape}"
    if not np.ptp(one) or not np.ptp(other):
        return None if np.ptp(one) == np.ptp(other) else "one is blank"
    slope, offset = np.polyfit(other.ravel(), one.ravel(), 1)
    off = np.abs(slope * other + offset - one) / np.ptp(one)
    if slope > 0 and off.mean() <= step / 2 and np.quantile(off, 0.999) <= 4 * step:
        return None
    return f"slope {slope:.3g}, levels off by {off.mean():.4f} on average, {off.max():.3f} at most"


def compared(path, folder):
    """(our outcome, lines of disagreement) of one file."""
    data = path.read_bytes()
    mine, others = ours(data), {"pydicom": by_pydicom(path), "dcmtk": by_dcmtk(path, folder)}
    lines = []
    for name, seen in others.items():
        if mine.said.startswith("multi_frame"):
            continue
        if mine.pixels is None and seen.pixels is not None:
            lines.append(f"{name} shows it; ours: {mine.said}")
        elif mine.pixels is not None and seen.pixels is None:
            lines.append(
                f"{name} does not show it ({seen.said[:100]}); ours does" + (f": {mine.said}" if mine.said else "")
            )
        elif mine.pixels is not None and (differs := disagreement(mine.pixels, seen.pixels, step(name, path, mine))):
            lines.append(f"{name} shows another picture: {differs}; ours: {mine.said}")
    return ("decoded" if mine.pixels is not None else mine.said.split(":")[0]), lines


def step(name, path, mine):
    """How far the levels of two programs may be apart: lossy codestreams and colour leave them more room."""
    bare = path.read_bytes()[128:132] != b"DICM"
    syntax = "" if bare else str(pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID", ""))
    if syntax.rpartition(".")[2] in ("50", "51", "81", "91", "203"):
        return LOSSY_STEP
    return STEP_OF_8_BITS if name == "dcmtk" or mine.pixels.max() <= 255 or "colour" in mine.said else 1e-4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--only-disagreements", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    outcomes, disagreements = Counter(), Counter()
    paths = [path for folder in given.folders for path in sorted(folder.rglob("*")) if path.is_file()]
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            if not looks_like_dicom(path.read_bytes()[: 1 << 20]):
                continue
            outcome, lines = compared(path, Path(folder))
            outcomes[outcome] += 1
            disagreements.update({line.split(";")[0].split(" (")[0].split(":")[0] for line in lines})
            if lines or not given.only_disagreements:
                print("\n  ".join([f"{path.name}: {outcome}", *lines]), flush=True)
    print(f"\n{sum(outcomes.values())} files: {dict(outcomes.most_common())}")
    print(f"disagreements: {dict(disagreements.most_common()) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
