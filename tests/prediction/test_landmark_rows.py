"""Landmarks go back into the geometry of their files, and a stage is told only where the points bear it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from pictures import encoded

from boneage_ray.anatomy import cvm
from boneage_ray.anatomy.cephalometry import FACIAL, LANDMARKS, VERTEBRAL
from boneage_ray.archives.archive import Input
from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.prediction.rows import load_input, score_rows
from boneage_ray.preparation.prepare import ImageConfig, prepare_image
from boneage_ray.records.schema import from_table, result_schema, to_table
from boneage_ray.tasks.cephalogram.config import CephalogramTaskConfig
from boneage_ray.tasks.cephalogram.findings.landmarks import (
    confidence,
    landmark_adder,
    named,
    points_in_original,
    staged,
)

TASK = CephalogramTaskConfig()
IMAGE = ImageConfig(size=128)
HEAD = cephalogram_phantom(1, 4, 300)


class Known:
    """Stands for a bundle: it answers with points that it was given."""

    name, sha256, batch_size = "cephalogram", "0" * 64, 4

    def __init__(self, *points):
        self.points = list(points)

    def __call__(self, columns):
        return {"points": [self.points.pop(0) for _ in columns["image"]], "levels_moved": [0] * len(columns["image"])}


def loaded(data=None, name="1", **known):
    known = {"pixel_spacing_mm": HEAD.pixel_spacing_mm, "pixel_spacing_source": "option"} | known
    data = encoded(HEAD.image) if data is None else data
    return load_input(Input(f"s/{name}.png", name, **known), data, partial(prepare_image, config=IMAGE))


def answer(case, sigma=0.1, sure=0.9, head=HEAD):
    """(32, 4) what a network without error says of a head, in pixels of the prepared image."""
    s, tx, ty = case.outcome.to_original
    found = np.full((32, 4), sure, np.float32)
    found[:, :2] = (np.concatenate([head.vertebral, head.facial]) - (tx, ty)) / s
    found[:, 2] = sigma
    return found


def rows(cases, *points, task=TASK):
    found = list(score_rows(cases, Known(*points), landmark_adder(task)))
    assert from_table(to_table(found, result_schema())) == found, "every row fits the schema as it is"
    return found


def test_points_and_sigma_go_back_to_the_original_and_confidence_stays():
    given = np.zeros((32, 4), np.float32)
    given[0] = (10.0, 20.0, 1.5, 0.75)
    given[1] = np.nan
    before = given.copy()
    found = points_in_original(given, (4.0, 100.0, -8.0))
    assert found[0].tolist() == [140.0, 72.0, 6.0, 0.75]
    assert np.isnan(found[1]).all()
    assert found[2].tolist() == [100.0, -8.0, 0.0, 0.0]
    assert np.array_equal(given, before, equal_nan=True)


def test_confidence_is_of_the_vertebrae_or_else_of_the_face():
    points = np.zeros((32, 4))
    points[:13, 3], points[13:, 3] = 0.2, 0.8
    assert confidence(points) == pytest.approx(0.2)
    points[:13] = np.nan
    assert confidence(points) == pytest.approx(0.8)
    assert confidence(np.full((32, 4), np.nan)) == 0.0


def test_names_stand_only_with_the_points_that_were_found():
    points = np.full((32, 4), np.nan)
    points[2], points[31] = (1.2346, 2, 0.5, 0.9), (7, 8, 1, np.nan)
    points[3] = (1, 2, np.nan, 0.9)
    assert named(points_in_original(points, (1.0, 0.0, 0.0))) == [
        {"name": "C2_inferior_anterior", "x": 1.235, "y": 2.0, "sigma": 0.5},
        {"name": "articulare", "x": 7.0, "y": 8.0, "sigma": 1.0},
    ]


@pytest.mark.parametrize("stage", [1, 2, 3, 4, 5, 6])
def test_a_row_tells_landmarks_stage_measurements_and_probabilities(stage):
    head = cephalogram_phantom(3, stage, 300)
    case = loaded(encoded(head.image), pixel_spacing_mm=head.pixel_spacing_mm)
    (row,) = rows([case], answer(case, head=head))
    assert (row["status"], row["reason"], row["message"], row["age_months"]) == ("scored", None, None, None)
    assert [point["name"] for point in row["landmarks"]] == list(LANDMARKS)
    places = np.array([(point["x"], point["y"]) for point in row["landmarks"]])
    assert np.abs(places - np.concatenate([head.vertebral, head.facial])).max() < 2e-3
    assert row["landmarks"][0]["sigma"] == pytest.approx(0.1 * case.outcome.to_original[0], abs=1e-3)
    assert row["cvm_stage"] == head.stage
    assert row["cvm_typical"] in (True, False)
    assert sum(row["cvm_probabilities"].values()) == pytest.approx(1.0)
    assert max(row["cvm_probabilities"], key=row["cvm_probabilities"].get) == head.stage
    assert row["flags"] == ["sex_unknown"]


def test_whoever_measures_the_points_of_a_row_finds_its_stage_and_its_measurements():
    case = loaded()
    (row,) = rows([case], answer(case))
    places = [(point["x"], point["y"]) for point in row["landmarks"][: len(VERTEBRAL)]]
    again = cvm.stage(places, row["pixel_spacing_mm"], TASK.cvm)
    assert (again.stage, again.typical, again.measurements) == (
        row["cvm_stage"],
        row["cvm_typical"],
        row["cvm_measurements"],
    )


def test_an_unknown_spacing_is_judged_scale_free_and_flagged():
    case = loaded(pixel_spacing_mm=None, pixel_spacing_source=None)
    (row,) = rows([case], answer(case))
    assert row["cvm_stage"] == "CS4"
    assert row["flags"] == ["sex_unknown", "spacing_unknown", "cvm_scale_free"]
    assert "C2_depth_px" in row["cvm_measurements"]


def test_a_left_facing_head_has_the_same_stage():
    mirrored = cephalogram_phantom(1, 4, 300)
    width = mirrored.image.shape[1]
    for points in (mirrored.vertebral, mirrored.facial):
        points[:, 0] = width - 1 - points[:, 0]
    case = loaded(encoded(np.ascontiguousarray(mirrored.image[:, ::-1])))
    (row,) = rows([case], answer(case, head=mirrored))
    assert row["cvm_stage"] == "CS4"
    assert "cvm_left_facing" in row["flags"]


def test_points_that_are_not_sure_are_no_stage_but_a_rejection():
    case = loaded()
    (row,) = rows([case], answer(case, sure=0.2))
    assert (row["status"], row["step"], row["reason"]) == ("rejected", "predict", "out_of_distribution")
    assert "confidence 0.200, 0.25 is needed" in row["message"]
    assert (row["landmarks"], row["cvm_stage"], row["cvm_probabilities"], row["cvm_measurements"]) == (None,) * 4


def test_one_vertebra_that_is_not_seen_is_enough_to_reject():
    """As of a head that is cut off above C4: the mean over all points would hide it."""
    case = loaded()
    points = answer(case)
    points[8:13, 3] = 0.1
    (row,) = rows([case], points)
    assert (row["status"], row["reason"]) == ("rejected", "out_of_distribution")
    assert confidence(points) == pytest.approx(0.1)


def test_the_least_confidence_is_the_configs():
    case = loaded()
    (row,) = rows([case], answer(case, sure=0.25))
    assert row["status"] == "scored"
    strict = TASK.model_copy(update={"min_confidence": 0.95})
    (row,) = rows([case], answer(case), task=strict)
    assert row["status"] == "rejected"


def test_points_that_are_no_vertebrae_are_told_without_a_stage():
    case = loaded()
    points = answer(case)
    points[:13, :2] = 64.0
    (row,) = rows([case], points)
    assert row["status"] == "scored"
    assert len(row["landmarks"]) == 32
    assert (row["cvm_stage"], row["cvm_typical"], row["cvm_probabilities"], row["cvm_measurements"]) == (None,) * 4
    assert row["flags"][-1] == "cvm_not_measurable"
    assert row["message"].startswith("these landmarks cannot be measured")


def test_a_facial_model_tells_no_stage():
    case = loaded()
    points = answer(case)
    points[:13] = np.nan
    (row,) = rows([case], points)
    assert [point["name"] for point in row["landmarks"]] == list(FACIAL)
    assert (row["status"], row["cvm_stage"], row["flags"], row["message"]) == ("scored", None, ["sex_unknown"], None)
    assert staged(points, None, TASK) is None


def test_points_too_uncertain_for_probabilities_keep_their_stage():
    case = loaded()
    (row,) = rows([case], answer(case, sigma=8.0))
    assert (row["cvm_stage"], row["cvm_probabilities"]) == ("CS4", None)
    assert "cvm_no_probabilities" in row["flags"]


def test_a_bad_file_among_good_ones_stops_no_other():
    cases = [loaded(name="a"), loaded(b"", "b"), loaded(name="c")]
    found = rows(cases, answer(cases[0]), answer(cases[2]))
    assert [(row["status"], row["cvm_stage"]) for row in found] == [
        ("scored", "CS4"),
        ("failed", None),
        ("scored", "CS4"),
    ]
