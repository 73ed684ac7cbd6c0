"""How long `boneage export` takes: reports, pictures, tables and FHIR of hands and heads, in seconds and CPU seconds.

    python tests/benchmarks/exporting.py --work DIR --count 1000

Fifty files of full size are read again and again, each time for another row. Rows are written by hand: nothing is scored here.
On a shared machine the seconds of all cores count: over two idle cores they are twice those of the clock.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pydicom
from common import boneage, machine

sys.path.insert(0, str(Path(__file__).parents[1] / "export"))
from made_up_scores import HAND, HEAD, MODEL, write_scored

from boneage_ray.phantoms.dicom import DicomTags, encode_dicom
from boneage_ray.records.schema import empty_result

SIZES = {"hands": (2044, 1514, 12, HAND), "heads": (2400, 1935, 8, HEAD)}
ROWS_A_PART, DISTINCT = 128, 50


def made(folder, kind, count):
    """OUT with `count` rows of a kind over as many DICOM files; made once."""
    out = folder / f"{kind}-{count}"
    if out.exists():
        return out
    height, width, bits, values = SIZES[kind]
    rng = np.random.default_rng(0)
    noise = cv2.resize(rng.integers(0, 255, (height // 8, width // 8), np.uint8), (width, height))
    sources = []
    for seed in range(min(count, DISTINCT)):
        path = folder / f"{kind}-files" / f"{seed:05d}.dcm"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_dicom(noise, DicomTags(seed=seed, sex="F", bits=bits, spacing_mm=(0.1, 0.1))))
        data = path.read_bytes()
        row = empty_result() | MODEL | {"input_uri": str(path), "status": "scored", "sex_source": "dicom"}
        row |= {"input_sha256": hashlib.sha256(data).hexdigest(), "input_bytes": len(data)} | values
        sources.append(row | uids_of(path))
    rows = [sources[k % len(sources)] | {"pixel_spacing_mm": 0.1 + k / 1e6} for k in range(count)]
    return write_scored(out, *(rows[k : k + ROWS_A_PART] for k in range(0, count, ROWS_A_PART)))


def uids_of(path):
    """The UIDs of a file, without its pixels."""
    tags = pydicom.dcmread(path, stop_before_pixels=True)
    return {"study_uid": tags.StudyInstanceUID, "series_uid": tags.SeriesInstanceUID, "sop_uid": tags.SOPInstanceUID}


def cpu_seconds():
    """Of this process's children that have ended, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main():
    """Print one line for each kind and format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1000)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    print(machine())
    for kind in SIZES:
        out, to = made(arguments.work, kind, arguments.count), arguments.work / "to"
        for formats in (("dicom-sr", "dicom-sc"), ("dicom-sr",), ("dicom-sc",), ("csv",), ("fhir",)):
            shutil.rmtree(to, ignore_errors=True)
            flags = [word for name in formats for word in ("--format", name)]
            before = cpu_seconds()
            run = boneage("export", out, *flags, "--to", to, memory=True)
            size = sum(path.stat().st_size for path in to.rglob("*") if path.is_file())
            print(
                f"{kind} {' + '.join(formats):<20} {arguments.count} rows {run.seconds:6.1f} s, "
                f"{cpu_seconds() - before:6.1f} CPU s {run.peak_mib:5.0f} MiB of memory, {size / 2**20:6.1f} MiB written"
            )


if __name__ == "__main__":
    main()
