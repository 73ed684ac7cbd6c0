"""Evaluation of masks: figures by hand, the worker on a shard, and the page."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from boneage_ray import bundle
from boneage_ray.evaluation.split_job import write_predictions
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.preparation.prepare import ImageConfig, prepare_pixels
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.records.schema import record_schema, to_table
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.tasks.build import build_model
from boneage_ray.tasks.mask.findings.overlay import overlay_png
from boneage_ray.tasks.mask.findings.page import mask_page
from boneage_ray.tasks.mask.findings.predictions import (
    MASK_PREDICTIONS,
    MaskWorker,
    analyse_masks,
    in_order,
    overlays_of,
    shown_groups,
)

TINY = ["model.encoder=tu-test_resnet", "model.stride=32", "model.patch=64", "image.size=96", "precision=float32"]


def row(record_id, dice, iou):
    shown = {"record_id": record_id, "input_uri": f"a/{record_id}.png", "dice": dice, "iou": iou}
    return shown | {"true_part": 0.25, "predicted_part": 0.2, "part": 0}


def page_of(rows, facts=None):
    picture = overlay_png(np.full((40, 30), 90, np.uint8), np.eye(40, 30, dtype=np.uint8))
    overlays = {row["record_id"]: picture for row in rows}
    return mask_page(analyse_masks(rows), shown_groups(rows), overlays, facts or {}, "boneage evaluate")


ROWS = [row(f"r{k}", 0.9 + k / 200, 0.8 + k / 200) for k in range(20)]


def test_figures_are_means_and_least_over_images():
    found = analyse_masks(ROWS)
    assert found["n"] == 20
    assert found["dice_mean"] == pytest.approx(0.9475)
    assert (found["dice_min"], found["iou_min"]) == (0.9, 0.8)
    assert found["dice_percentiles"]["50"] == pytest.approx(0.9475)
    low, high = found["dice_mean_interval"]
    assert 0.93 < low < found["dice_mean"] < high < 0.965
    assert found["worst"][0]["record_id"] == "r0"


def test_one_image_has_no_interval():
    found = analyse_masks(ROWS[:1])
    assert found["iou_mean_interval"] is None
    assert "one image" in page_of(ROWS[:1])


def test_the_order_is_from_the_worst():
    assert [row["record_id"] for row in in_order(ROWS[::-1])][:2] == ["r0", "r1"]


def test_the_page_shows_the_worst_the_middle_and_the_best_and_escapes():
    rows = [*ROWS, row("<script>", 0.1, 0.05)]
    page = page_of(rows, {"Model": "m"})
    assert page.count("data:image/png;base64") == 18
    assert "<script>:" not in page
    assert "1 of 21 images have a Dice below 0.9" in page
    for name in ("Worst images", "Middle images", "Best images"):
        assert name in page


def test_the_page_of_good_masks_raises_no_caution():
    assert "Every image has a Dice of 0.9 or more" in page_of(ROWS)


def test_outlines_are_drawn_where_the_masks_end():
    image, mask = np.zeros((50, 40), np.uint8), np.zeros((50, 40), np.uint8)
    mask[10:30, 5:25] = 1
    picture = cv2.imdecode(np.frombuffer(overlay_png(image, mask), np.uint8), 1)
    assert picture.shape == (50, 40, 3)
    assert picture[10, 5].tolist() == [0, 200, 255]
    assert picture[20, 15].tolist() == [0, 0, 0]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    recipe = override(find_recipe("hand-mask"), TINY)
    place = str(tmp_path_factory.mktemp("model"))
    return place, bundle.save(place, recipe, build_model(recipe.model).state_dict(), {"val_loss": 1.0})


def record(number, masked=True):
    phantom = hand_phantom(number, 100, "F", 120)
    config = ImageConfig(size=96, mask="file", mask_overlay=False)
    image, to_original, _, mask = prepare_pixels(phantom.image, config, (phantom.mask > 0).astype(np.uint8))
    return {
        "record_id": str(number),
        "input_uri": f"a/{number}.png",
        "image": image.tobytes(),
        "mask": mask.tobytes() if masked else None,
        "height": 96,
        "width": 96,
        "to_original": to_original,
    }


def test_a_worker_judges_the_records_that_have_a_mask(model, tmp_path):
    place, sha256 = model
    uri = str(tmp_path / "part.parquet")
    pq.write_table(to_table([record(1), record(2, masked=False), record(3)], record_schema()), uri)
    found = MaskWorker([place], sha256, str(tmp_path), 1, RunDevice())(
        {"number": 4, "slice": {"uri": uri, "start": 0, "stop": 3}}
    )
    assert found["number"] == 4
    assert [row["record_id"] for row in found["rows"]] == ["1", "3"]
    for judged in found["rows"]:
        assert 0 <= judged["iou"] <= judged["dice"] <= 1
        assert 0.1 < judged["true_part"] < 0.6
    json.dumps(found)
    overlays = overlays_of(str(tmp_path), found["rows"][1:])
    assert list(overlays) == ["3"]
    assert overlays["3"].startswith(b"\x89PNG")
    write_predictions(str(tmp_path), found["rows"], MASK_PREDICTIONS)
    assert pq.read_table(str(tmp_path / "predictions.parquet"))["record_id"].to_pylist() == ["1", "3"]


def test_figures_are_plain_json():
    json.dumps(analyse_masks(ROWS), allow_nan=False)
