"""What the pipeline makes of a few stored files: another result means another PIPELINE_VERSION."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from boneage_ray import PIPELINE_VERSION
from boneage_ray.archives.archive import asked
from boneage_ray.errors import InputProblem
from boneage_ray.findings.task_findings import ScoredFiles, findings_of
from boneage_ray.prediction import ensemble, members, rows
from boneage_ray.preparation.prepare import AS_THE_RECIPE_SAYS, ImageConfig, Reading, prepare_image
from boneage_ray.tasks.cephalogram.config import CephalogramTaskConfig
from boneage_ray.tasks.cephalogram.findings.landmarks import landmark_adder

FOLDER = Path(__file__).parents[1] / "golden"
STORED = FOLDER / "rows.json"
LEFT_OUT = ("input_uri", "package_version", "message")
FIX = (
    "the same files have other results than in tests/golden/rows.json. If that is not wanted, find the reason. If it is, raise "
    "PIPELINE_VERSION in boneage_ray/__init__.py, then run BONEAGE_WRITE_GOLDEN=1 pytest tests/scoring/test_golden_rows.py: "
    "results of the old number are then neither continued nor updated"
)

UNGATED = Reading(pixel_gate=False)
SETTINGS = {
    "plain": ImageConfig(size=64),
    "cropped": ImageConfig(size=64, crop="hand"),
    "masked": ImageConfig(size=64, mask="hand", mask_dilation=0.02),
    "enhanced": ImageConfig(size=64, clahe_clip=2.0, sharpen=1.0),
    "all gray levels": ImageConfig(size=64, voi="none"),
}


def inputs():
    return sorted((FOLDER / "inputs").iterdir())


def scored(reading=AS_THE_RECIPE_SAYS):
    """Name -> result row of each stored file, by the built-in model in float32."""
    found = members.resolve(["builtin:hand"])
    predictor = ensemble.load_predictor(found, "cpu", auto="float32")
    add = findings_of(found.recipe).adder(ScoredFiles(str(FOLDER), lambda name, data: None))
    (image,) = found.scored_images(reading)
    loaded = [
        rows.load_input(asked(str(path), sex, None), path.read_bytes(), lambda data: prepare_image(data, image))
        for path, sex in zip(inputs(), "FMFMFM", strict=True)
    ]
    return {
        Path(row["input_uri"]).name: {k: v for k, v in row.items() if k not in LEFT_OUT}
        for row in rows.score_rows(loaded, predictor, add)
    }


class Known:
    """Stands for a bundle of cephalograms: it answers with the stored points, as one without error would."""

    name, sha256, batch_size = "cephalogram", "0" * 64, 4

    def __init__(self, points):
        self.points = points

    def __call__(self, columns):
        return {"points": [self.points for _ in columns["sex"]], "levels_moved": [0] * len(columns["sex"])}


def staged():
    """Rows of the stored head, whose points are given in its own pixels: with a pixel spacing, and without."""
    stored = json.loads((FOLDER / "head_points.json").read_text())
    image, path = ImageConfig(size=128), FOLDER / "inputs" / "head.png"
    s, tx, ty = prepare_image(path.read_bytes(), image).to_original
    points = np.full((32, 4), 0.9, np.float32)
    points[:, :2] = (np.array(stored["points"]) - (tx, ty)) / s
    points[:, 2] = 0.1
    loaded = [
        rows.load_input(asked(str(path), None, spacing), path.read_bytes(), lambda data: prepare_image(data, image))
        for spacing in (stored["pixel_spacing_mm"], None)
    ]
    found = rows.score_rows(loaded, Known(points), landmark_adder(CephalogramTaskConfig()))
    return [{k: v for k, v in row.items() if k not in LEFT_OUT} for row in found]


def prepared():
    """Settings -> for each stored file the mean gray of four quarters, and the place in the original; or the reason."""
    return {name: [seen(path, config) for path in inputs()] for name, config in SETTINGS.items()}


def seen(path, config):
    try:
        image = prepare_image(path.read_bytes(), config)
    except InputProblem as problem:
        return problem.reason
    half = config.size // 2
    pixels = image.pixels.astype(float)
    quarters = [pixels[y : y + half, x : x + half].mean() for y in (0, half) for x in (0, half)]
    return [*(round(float(value), 3) for value in (*quarters, *np.ravel(image.to_original))), sorted(image.flags)]


def close(found, kept):
    """Whether two JSON values are equal, numbers within 0.02."""
    if isinstance(found, dict) and isinstance(kept, dict):
        return found.keys() == kept.keys() and all(close(found[key], kept[key]) for key in found)
    if isinstance(found, list) and isinstance(kept, list):
        return len(found) == len(kept) and all(map(close, found, kept))
    if isinstance(found, float) and isinstance(kept, float):
        return found == pytest.approx(kept, abs=0.02)
    return found == kept


def differences(found, kept):
    return [name for name in {**found, **kept} if not close(found.get(name), kept.get(name))]


@pytest.fixture(scope="module")
def golden():
    """(present, stored) values; both with the number that they belong to."""
    now = {
        "pipeline_version": PIPELINE_VERSION,
        "rows": scored(),
        "ungated": scored(UNGATED),
        "staged": staged(),
        "prepared": prepared(),
    }
    now = json.loads(json.dumps(now))
    if "BONEAGE_WRITE_GOLDEN" in os.environ:
        STORED.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n")
    return now, json.loads(STORED.read_text())


def test_results_change_only_with_the_number(golden):
    now, stored = golden
    models = [{row["model_sha256"] for row in found["rows"].values()} for found in golden]
    assert models[0] == models[1], (
        "another built-in model is no other pipeline: write the stored results anew, keep the number"
    )
    assert differences(now["rows"], stored["rows"]) == [], FIX
    assert differences(now["ungated"], stored["ungated"]) == [], FIX
    assert differences(now["prepared"], stored["prepared"]) == [], FIX
    assert close(now["staged"], stored["staged"]), FIX


def test_the_stored_results_are_those_of_the_number(golden):
    now, stored = golden
    assert now["pipeline_version"] == stored["pipeline_version"], FIX


def test_the_stored_results_hold_scored_rejected_and_failed_inputs(golden):
    _, stored = golden
    statuses = {name: (row["status"], row["reason"]) for name, row in stored["rows"].items()}
    assert statuses["truncated.png"] == ("failed", "truncated")
    assert {statuses[name][0] for name in ("hand-0.png", "hand-1.png", "hand-2.png", "hand.dcm")} == {"scored"}
    assert statuses["head.png"] == ("rejected", "out_of_distribution")
    assert [stored["ungated"][name]["status"] for name in ("hand.dcm", "head.png")] == ["scored", "scored"]
    assert stored["prepared"].keys() == SETTINGS.keys()
    assert [row["cvm_stage"] for row in stored["staged"]] == ["CS4", "CS4"]


def test_a_small_change_of_a_result_is_seen(golden):
    _, stored = golden
    row = stored["rows"]["hand-1.png"]
    other = {**row, "age_months": row["age_months"] + 0.05}
    assert differences({"a": other}, {"a": row}) == ["a"]
    assert differences({"a": {**row, "flags": ["inverted"]}}, {"a": row}) == ["a"]
    assert differences({}, {"a": row}) == ["a"]
