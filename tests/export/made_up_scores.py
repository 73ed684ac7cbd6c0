"""A scored OUT that was never scored: rows written by hand, over DICOM files with a patient that nobody is."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess

import numpy as np
import pyarrow.parquet as pq
import pytest

from boneage_ray.anatomy.cephalometry import LANDMARKS
from boneage_ray.decoding.decode import decode
from boneage_ray.phantoms.dicom import DicomTags, encode_dicom
from boneage_ray.records.schema import empty_result, result_schema, to_table

PATIENT = {"PatientName": "Nobody^Nora", "PatientID": "NB-4711", "PatientBirthDate": "20110203"}
STUDY = {"StudyDate": "20200405", "StudyTime": "101112", "AccessionNumber": "ACC-99", "StudyID": "S1"}
MODEL = {"model": "made-up", "model_sha256": "ab" * 32, "package_version": "0.1.0"}
HAND = {
    "sex": "F",
    "sex_source": "dicom",
    "pixel_spacing_mm": 0.15,
    "pixel_spacing_source": "dicom:PixelSpacing",
    "age_months": 99.4,
    "age_low_months": 86.0,
    "age_high_months": 112.04,
    "interval_coverage": 0.9,
    "chronological_age_months": 110.0,
    "age_difference_months": -10.6,
    "stages": {"three": "child", "four": "child"},
    "flags": ["spacing_at_detector"],
}
HEAD = {
    "pixel_spacing_mm": 0.1,
    "pixel_spacing_source": "dicom:PixelSpacing",
    "landmarks": [
        {"name": name, "x": 40.0 + 5 * k, "y": 60.25 + 4 * k, "sigma": 1.5} for k, name in enumerate(LANDMARKS)
    ],
    "cvm_stage": "CS3",
    "cvm_typical": False,
    "cvm_probabilities": {"CS1": 0.0, "CS2": 0.04, "CS3": 0.8, "CS4": 0.16, "CS5": 0.0, "CS6": 0.0},
    "cvm_measurements": {"C2_depth_mm": 1.25, "C3_width_to_height": 1.5, "C4_lower_border_px": 130.0},
}


def picture(height=400, width=300):
    """A radiograph (H, W) of 8 bits: bright in the middle, dark at the rim."""
    y, x = np.mgrid[0:height, 0:width]
    return (235 * np.exp(-(((x - width / 2) / width) ** 2 + ((y - height / 2) / height) ** 2) * 6)).astype(np.uint8)


def dicom_file(path, seed, encoding="explicit-little", **extra):
    """A DICOM file of that picture with the patient above; `extra`: elements by keyword."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = DicomTags(seed=seed, sex="F", bits=8, spacing_mm=(0.15, 0.15), extra=PATIENT | STUDY | extra)
    path.write_bytes(encode_dicom(picture(), tags, encoding))
    return path


def row_of(path, values, **more):
    """The result row of a file: scored with these values, or whatever `more` says."""
    data = path.read_bytes()
    uids = decode(data).uids if path.suffix == ".dcm" else {}
    made = empty_result() | {
        "input_uri": str(path),
        "input_sha256": hashlib.sha256(data).hexdigest(),
        "input_bytes": len(data),
        "status": "scored",
        "sex_source": "unknown",
    }
    return made | MODEL | uids | values | more


def write_scored(out, *parts, drop=()):
    """OUT with one part for each list of rows; `drop`: columns that an older version did not have."""
    for number, rows in enumerate(parts):
        target = out / "results" / f"part-{number:05d}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(to_table(rows, result_schema()).drop_columns(list(drop)), target)
    (out / "summary.json").write_text("{}")
    (out / "run.json").write_text(json.dumps({"started": "2026-03-04T05:06:07+00:00", "seconds": 12.3}))
    return out


def program(name):
    """The path of a validator; a test that lacks it is skipped, but fails in CI, which installs it."""
    import os

    path = shutil.which(name)
    if path is None and os.environ.get("CI"):
        pytest.fail(f"{name} is not installed: .ci/run installs dicom3tools and dcmtk")
    if path is None:
        pytest.skip(f"{name} is not installed (Debian packages dicom3tools and dcmtk)")
    return path


def output(name, *arguments):
    """What a validator prints on both streams."""
    done = subprocess.run([program(name), *map(str, arguments)], capture_output=True, check=False)
    return (done.stdout + done.stderr).decode("utf-8", "replace")
