"""The stability suite: what moves by how much, what is refused, and how a report tells it."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest
from test_evaluate import RECIPE, data

from boneage_ray import bundle
from boneage_ray.errors import InputProblem
from boneage_ray.evaluation.changes import suite
from boneage_ray.evaluation.page import Page, PageStatus, render_page
from boneage_ray.findings import stability
from boneage_ray.findings.stability import StabilityWorker, chosen_rows, original_of, summarise
from boneage_ray.findings.stability_section import stability_sections
from boneage_ray.findings.task_findings import findings_of
from boneage_ray.models.regressor import Regressor
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.preparation.prepare import prepare_image
from boneage_ray.recipes import find_recipe
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.tasks.age.findings import AgeFindings
from boneage_ray.tasks.cephalogram.findings.landmarks import landmarks_moved


class MeanBrightness:
    """Answers with the mean gray level of the prepared image as an age in months."""

    name, sha256, batch_size = "mean", "0", 4

    def __call__(self, columns):
        months = [float(image.mean()) for image in columns["image"]]
        return {"age_months": months, "stages": [{"three": "child" if age < 100 else "adult"} for age in months]}


def worker(monkeypatch, tmp_path):
    """A worker whose model is `MeanBrightness`."""
    bundle.save(str(tmp_path / "m"), RECIPE, Regressor(RECIPE.model).state_dict(), {})
    found = StabilityWorker([str(tmp_path / "m")], bundle.read_manifest(str(tmp_path / "m"))[1], 1, RunDevice())
    found.predictor = MeanBrightness()
    return found


def rows_of(found, prepared):
    shard = prepared.shards("test")[0]
    return found({"number": 0, "slices": [[{"uri": shard.uri, "start": 0, "stop": 1}]]})["rows"]


def test_a_model_of_the_mean_brightness_moves_by_just_that_much(monkeypatch, tmp_path):
    level = np.full((64, 64), 90, np.uint8)
    monkeypatch.setattr(stability, "pixels_of", lambda record: level)
    rows = {row["change"]: row for row in rows_of(worker(monkeypatch, tmp_path), data(tmp_path / "d", RECIPE))}
    assert len(rows) == len(suite())
    assert not any(row["original"] for row in rows.values())
    moved = {name: row["moved"]["age_months"] for name, row in rows.items()}
    assert (moved["brightness +10 %"], moved["brightness -20 %"], moved["brightness +20 %"]) == (26.0, -51.0, 51.0)
    assert moved["white and black exchanged"] == 75.0  # 255 - 90 - 90
    assert (
        moved["left and right exchanged"] == moved["turned by +10\u00b0"] == moved["50 % of the pixels a side"] == 0.0
    )
    assert rows["brightness +10 %"]["moved"]["stage_three"] == 1.0
    assert rows["brightness -20 %"]["moved"]["stage_three"] == 0.0


def test_an_original_is_changed_and_prepared_anew(monkeypatch, tmp_path):
    file = tmp_path / "hand.png"
    cv2.imwrite(str(file), hand_phantom(0, 120, "F", 256).image)
    sha = hashlib.sha256(file.read_bytes()).hexdigest()
    found = worker(monkeypatch, tmp_path)
    record = {"input_uri": str(file), "input_sha256": sha}
    assert original_of(record, found.images).pixels.shape == hand_phantom(0, 120, "F", 256).image.shape
    assert original_of(record | {"input_sha256": "0"}, found.images) is None
    assert original_of(record | {"input_uri": str(tmp_path / "gone.png")}, found.images) is None
    assert original_of(record | {"input_uri": f"{tmp_path}/a.zip!/hand.png"}, found.images) is None

    monkeypatch.setattr(stability, "original_of", lambda record, images: original)
    original = original_of(record, found.images)
    rows = {row["change"]: row for row in rows_of(found, data(tmp_path / "d", RECIPE))}
    assert all(row["original"] for row in rows.values())
    brighter = prepare_image(
        cv2.imencode(".png", np.clip(original.pixels + 25.5, 0, 255).round().astype(np.uint8))[1].tobytes(),
        found.images[0],
    )
    plain = prepare_image(file.read_bytes(), found.images[0])
    assert rows["brightness +10 %"]["moved"]["age_months"] == pytest.approx(
        brighter.pixels.mean() - plain.pixels.mean(), abs=0.6
    )
    assert rows["8 bits"]["moved"]["age_months"] == 0.0


def test_what_the_gate_refuses_is_counted_by_its_reason(monkeypatch, tmp_path):
    def refuse(radiograph, image):
        raise InputProblem("quality", "blank", "nothing is to be seen", "rejected")

    found = worker(monkeypatch, tmp_path)
    file = tmp_path / "hand.png"
    cv2.imwrite(str(file), hand_phantom(0, 120, "F", 256).image)
    sha = hashlib.sha256(file.read_bytes()).hexdigest()
    original = original_of({"input_uri": str(file), "input_sha256": sha}, found.images)
    monkeypatch.setattr(stability, "original_of", lambda record, images: original)
    monkeypatch.setattr(stability, "prepare_radiograph", refuse)
    told = summarise(rows_of(found, data(tmp_path / "d", RECIPE)))
    assert (told["cases"], told["not_scored"]) == (1, 1)
    assert all(change["n"] == 0 and change["refused"] == {} for change in told["changes"])
    (section,) = stability_sections({"stability": told}, AgeFindings.measures, "")
    assert section.text[-1] == "Not enough cases: 1 were taken, none was scored."


def row(record, change, moved=None, reason=None):
    return {"record_id": record, "group": "g", "change": change, "original": True, "reason": reason, "moved": moved}


ROWS = [
    row("1", "a", {"age_months": 2.0, "stage_three": 0.0}),
    row("2", "a", {"age_months": -4.0, "stage_three": 1.0}),
    row("3", "a", reason="blank"),
    row("1", "b", {"age_months": 1.0, "stage_three": 0.0}),
    row("2", "b", {"age_months": 1.0, "stage_three": 0.0}),
    row("3", "b", {"age_months": 1.0, "stage_three": 0.0}),
]


def test_figures_of_a_hand_made_example():
    told = summarise(ROWS)
    assert (told["cases"], told["from_original"], told["not_scored"]) == (3, 3, 0)
    first, second = told["changes"]
    assert (first["n"], first["refused"]) == (2, {"blank": 1})
    assert first["moved"]["age_months"] == {"mean": -1.0, "mean_abs": 3.0, "p95_abs": 3.9, "largest_abs": 4.0}
    assert first["moved"]["stage_three"]["mean"] == 0.5
    assert second["moved"]["age_months"]["p95_abs"] == 1.0


def test_the_section_says_what_moves_most_and_what_is_refused():
    (section,) = stability_sections({"stability": summarise(ROWS)}, AgeFindings.measures, "boneage evaluate")
    assert section.text[1:] == (
        [
            "The age moves most on average, in months, after: a (3.0); b (1.0).",
            "Cases were no longer scored after: a (1).",
        ]
    )
    assert section.tables[0].rows[0] == ["a", "2", "1", "3.0", "3.9", "4.0", "-1.0", "50.0%"]
    page = render_page(Page("t", {}, PageStatus("good", "x"), [], [section]))
    assert "How far the age moves after each of 2 changes" in page
    assert stability_sections({}, AgeFindings.measures, "") == []


def test_rows_are_spread_over_the_split():
    assert chosen_rows(950)[:3] == [0, 24, 49]
    assert len(chosen_rows(950)) == 40
    assert chosen_rows(950)[-1] == 949
    assert chosen_rows(1) == [0]


def test_points_are_compared_in_the_unchanged_image():
    def scored(points, stage):
        named = [{"name": name, "x": x, "y": y, "sigma": 1.0} for name, (x, y) in points.items()]
        return {"landmarks": named, "cvm_stage": stage, "pixel_spacing_mm": 0.5}

    before = scored({"a": (10.0, 20.0), "b": (30.0, 40.0), "c": (0.0, 0.0)}, "CS3")
    after = scored({"a": (89.0, 20.0), "b": (69.0, 44.0)}, "CS4")  # mirrored at x = 99 / 2; b is 4 pixels lower
    back = np.array([[-1.0, 0, 99], [0, 1, 0]])
    assert landmarks_moved(before, after, back) == {"points_px": 2.0, "points_mm": 1.0, "cvm_stage": 1.0}
    told = summarise([row("1", "a", landmarks_moved(before, after, back))])
    (section,) = stability_sections({"stability": told}, findings_of(find_recipe("cephalogram")).measures, "")
    assert section.text[1] == "The mean place of the points moves most on average, in mm, after: a (1.00)."
    assert section.tables[0].rows[0] == ["a", "1", "0", "1.00", "1.00", "1.00", "+1.00", "100.0%"]
