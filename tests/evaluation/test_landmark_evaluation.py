"""Evaluation of landmarks on prepared records: rows, the worker on a shard, the table, and the sheets drawn from it."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from boneage_ray import bundle
from boneage_ray.anatomy.cephalometry import LANDMARKS
from boneage_ray.datasets.plan import Shard
from boneage_ray.evaluation.split_job import write_predictions
from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.prediction.members import resolve
from boneage_ray.preparation.geometry import given_points
from boneage_ray.preparation.prepare import ImageConfig, prepare_pixels
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.records.schema import from_table, record_schema, to_table
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.tasks.build import build_model
from boneage_ray.tasks.cephalogram.config import CephalogramTaskConfig
from boneage_ray.tasks.cephalogram.findings.analysis import analyse_landmarks
from boneage_ray.tasks.cephalogram.findings.predictions import (
    LANDMARK_PREDICTIONS,
    LandmarkWorker,
    _compared,
    as_landmark_predictions,
)
from boneage_ray.tasks.cephalogram.findings.sheets import heatmaps_of, sheets_of

TINY = ["model.encoder=tu-test_resnet", "image.size=64", "precision=float32"]


def record(seed, stage=4, size=256, side=64, **changes):
    phantom = cephalogram_phantom(seed, stage, size)
    image, to_original, _, _ = prepare_pixels(phantom.image, ImageConfig(size=side))
    return {
        "record_id": f"p{seed}",
        "input_uri": f"a/p{seed}.png",
        "sex": None,
        "pixel_spacing_mm": phantom.pixel_spacing_mm,
        "image": image.tobytes(),
        "height": side,
        "width": side,
        "to_original": to_original,
        "vertebral": phantom.vertebral.tolist(),
        "facial": phantom.facial.tolist(),
    } | changes


def predicted(record, off=0.0):
    """What a network says that errs by so many pixels of the original along x, in pixels of the prepared image."""
    s, tx, ty = record["to_original"]
    points = np.full((len(LANDMARKS), 4), 0.9, np.float32)
    points[:, :2] = (given_points(record["vertebral"], record["facial"]) - (tx - off, ty)) / s
    points[:, 2] = 0.2
    return points


def test_given_points_stand_in_order_with_nan_where_there_are_none():
    one = record(1, facial=None)
    found = given_points(one["vertebral"], one["facial"])
    assert found.shape == (32, 2)
    assert found[:13].tolist() == one["vertebral"]
    assert np.isnan(found[13:]).all()
    assert np.isnan(given_points(None, one["facial"])).all()


@pytest.mark.parametrize("stage", [1, 4, 6])
def test_a_row_holds_points_truth_and_both_stages_in_the_original(stage):
    one = record(2, stage)
    row = _compared(one, predicted(one, off=2.0), CephalogramTaskConfig())
    assert (row["record_id"], row["confidence"]) == ("p2", pytest.approx(0.9))
    assert (row["cvm_stage"], row["true_cvm_stage"]) == (f"CS{stage}",) * 2
    assert sum(row["cvm_probabilities"].values()) == pytest.approx(1.0)
    for point, name, (x, y) in zip(
        row["landmarks"], LANDMARKS, given_points(one["vertebral"], one["facial"]), strict=True
    ):
        assert point["name"] == name
        assert (point["true_x"], point["true_y"]) == (x, y)
        assert (point["x"], point["y"]) == (pytest.approx(x + 2, abs=2e-3), pytest.approx(y, abs=2e-3))
        assert point["sigma"] == pytest.approx(0.2 * one["to_original"][0], abs=1e-3)


def test_a_row_of_a_facial_model_has_no_stage_of_its_own():
    one = record(3)
    points = predicted(one)
    points[:13] = np.nan
    row = _compared(one, points, CephalogramTaskConfig())
    assert (row["cvm_stage"], row["cvm_typical"], row["cvm_probabilities"]) == (None,) * 3
    assert row["true_cvm_stage"] == "CS4"
    assert row["landmarks"][0]["x"] is None
    assert row["landmarks"][0]["confidence"] is None


def test_a_row_without_vertebral_truth_has_no_true_stage():
    one = record(4, vertebral=None)
    points = predicted(record(4))
    row = _compared(one, points, CephalogramTaskConfig())
    assert (row["cvm_stage"], row["true_cvm_stage"]) == ("CS4", None)


def test_points_that_are_no_vertebrae_have_no_stage():
    one = record(5)
    points = predicted(one)
    points[:13, :2] = 7.0
    row = _compared(one, points, CephalogramTaskConfig())
    assert (row["cvm_stage"], row["cvm_typical"], row["true_cvm_stage"]) == (None, None, "CS4")


def test_rows_become_arrays():
    records = [record(6), record(7, facial=None, pixel_spacing_mm=None)]
    rows = [_compared(one, predicted(one, off=3.0), CephalogramTaskConfig()) for one in records]
    found = as_landmark_predictions(rows)
    assert found.points_NK4.shape == (2, 32, 4)
    assert np.nanmax(np.abs(found.radial - 3.0)) < 2e-3
    assert np.isfinite(found.radial).sum() == 32 + 13
    assert found.spacing_N.tolist() == pytest.approx([records[0]["pixel_spacing_mm"], np.nan], nan_ok=True)
    figures = analyse_landmarks(found)
    assert figures["sets"]["vertebral"]["mre_px"] == pytest.approx(3.0, abs=2e-3)
    assert figures["sets"]["vertebral"]["mre_mm"] == pytest.approx(3.0 * records[0]["pixel_spacing_mm"], abs=2e-3)
    assert (figures["stage"]["n"], figures["stage"]["accuracy"]) == (2, 1.0)


def test_rows_come_back_from_the_table_as_they_are(tmp_path):
    one = record(8, facial=None)
    rows = [
        _compared(one, points, CephalogramTaskConfig()) | {"part": 0, "row": k}
        for k, points in enumerate((predicted(one), np.full((32, 4), np.nan)))
    ]
    write_predictions(str(tmp_path), rows, LANDMARK_PREDICTIONS)
    assert from_table(pq.read_table(str(tmp_path / "predictions.parquet"))) == rows


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    recipe = override(find_recipe("cephalogram-light"), TINY)
    place = str(tmp_path_factory.mktemp("model"))
    return place, bundle.save(place, recipe, build_model(recipe.model).state_dict(), {"val_loss": 1.0})


class Data:
    """Stands for prepared data with one shard."""

    def __init__(self, uri, rows):
        self.all = [Shard(uri, rows)]

    def shards(self, split):
        return self.all


def test_a_worker_judges_the_records_that_have_landmarks_and_their_sheets_are_drawn(model, tmp_path, one_thread):
    place, sha256 = model
    uri = str(tmp_path / "part.parquet")
    records = [record(1), record(2, vertebral=None, facial=None), record(3, facial=None)]
    pq.write_table(to_table(records, record_schema()), uri)
    found = LandmarkWorker([place], sha256, 1, RunDevice())({"number": 0, "slice": {"uri": uri, "start": 0, "stop": 3}})
    rows = found["rows"]
    assert [(row["record_id"], row["part"], row["row"]) for row in rows] == [("p1", 0, 0), ("p3", 0, 2)]
    assert [row["true_cvm_stage"] for row in rows] == ["CS4", "CS4"]
    assert rows[1]["landmarks"][20]["true_x"] is None
    assert np.isfinite([point["x"] for point in rows[1]["landmarks"]]).all()
    analysis = analyse_landmarks(as_landmark_predictions(rows))
    assert [analysis["sets"][name]["n"] for name in ("vertebral", "facial")] == [2, 1]
    sheets = sheets_of(analysis, Data(uri, 3), "test", rows)
    assert [len(sheets[f"{title}, vertebral points"]) for title in ("Worst quarter", "Best quarter")] == [1, 1]
    models = resolve([place])
    maps = heatmaps_of(analysis, models, Data(uri, 3), "test", rows)
    assert sorted(said for _, said in maps) == ["p1", "p3"]
    assert cv2.imdecode(np.frombuffer(maps[0][0], np.uint8), 1).shape == (4 * 150, 8 * 150, 3)
    ((data, said),) = sheets["Worst quarter, facial points"]
    mean = analysis["sets"]["facial"]["mre_mm"]
    assert said.startswith(f"p1: {mean:.2f} mm, worst point ")
    assert cv2.imdecode(np.frombuffer(data, np.uint8), 1).shape == (420, 420, 3)


def test_a_sheet_shows_the_truth_where_it_lies(tmp_path):
    one = record(9, size=300, side=128)
    uri = str(tmp_path / "part.parquet")
    pq.write_table(to_table([one], record_schema()), uri)
    points = predicted(one, off=6.0)
    row = _compared(one, points, CephalogramTaskConfig()) | {"part": 0, "row": 0}
    sheets = sheets_of(analyse_landmarks(as_landmark_predictions([row])), Data(uri, 1), "test", [row])
    ((data, said),) = sheets["Worst quarter, facial points"]
    assert said.startswith(f"p9: {6 * one['pixel_spacing_mm']:.2f} mm")
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), 1).astype(int)
    s, tx, ty = one["to_original"]
    nasion = (np.array(one["facial"][1]) - (tx, ty)) / s
    for x, y, colour in (*[(*nasion, (0, 230, 255))], (nasion[0] + 6 / s, nasion[1], (255, 220, 0))):
        column, line = (round((at + 0.5) * 420 / 128 - 0.5) for at in (x, y))
        around = picture[line - 4 : line + 5, column - 4 : column + 5].reshape(-1, 3)
        assert np.abs(around - colour).max(1).min() < 40


def test_without_a_spacing_the_sheets_are_in_pixels(tmp_path):
    one = record(9, size=300, side=128) | {"pixel_spacing_mm": None}
    uri = str(tmp_path / "part.parquet")
    pq.write_table(to_table([one], record_schema()), uri)
    row = _compared(one, predicted(one, off=6.0), CephalogramTaskConfig()) | {"part": 0, "row": 0}
    analysis = analyse_landmarks(as_landmark_predictions([row]))
    ((_, said),) = sheets_of(analysis, Data(uri, 1), "test", [row])["Worst quarter, facial points"]
    assert said.startswith("p9: 6.00 px, worst point 6.00 px")
