"""What the report of ages shows beyond its errors: certainty, the map of the cases, heat maps, the gate's ROC."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from made_up_predictions import many
from pictures import picture

from boneage_ray import bundle
from boneage_ray.evaluation.page import PagePicture
from boneage_ray.evaluation.retention import retention_figures, retention_section
from boneage_ray.evaluation.roc import area_under_roc, roc_points
from boneage_ray.models.pixel_gate import PixelGate
from boneage_ray.models.regressor import Regressor
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.tasks.age.findings.analysis import analyse_ages
from boneage_ray.tasks.age.findings.feature_map import age_map, map_figures, map_section, placed, sex_map
from boneage_ray.tasks.age.findings.gate_roc import EACH, gate_figures, gate_section
from boneage_ray.tasks.age.findings.grad_cam import grad_cam, grad_cams
from boneage_ray.tasks.age.findings.heat_sheets import chosen_cases, pair
from boneage_ray.tasks.age.findings.looks import SPREAD, WIDTH, certainty_figures
from boneage_ray.tasks.age.findings.page import age_page
from boneage_ray.tasks.age.findings.similar import nearest_cases

RECIPE = override(find_recipe("demo"), ["image.size=64", "precision=float32", "model.backbone.name=test_resnet"])


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    """A small network with random weights whose gate keeps everything (its limit is far below)."""
    torch.manual_seed(3)
    model = Regressor(RECIPE.model)
    place = str(tmp_path_factory.mktemp("model"))
    count = model.encoder_features
    gate = PixelGate(np.zeros(count), np.ones(count), np.full(count, 1 / count), 1.0).as_json()
    bundle.save(place, RECIPE, model.state_dict(), {}, extras=bundle.Extras(gate=gate))
    found = Predictor(bundle.load(place), "cpu")
    found.tells_features = True
    return found


def test_the_error_of_what_is_kept_falls_with_a_spread_that_knows_the_error():
    error = np.arange(100.0)
    found = retention_figures(error, error)
    assert [(line["share"], line["n"], line["error"]) for line in found["lines"]][::6] == [
        (1.0, 100, 49.5),
        (0.5, 50, 24.5),
    ]
    assert [line["error"] for line in found["lines"]] == [line["best"] for line in found["lines"]]
    assert (found["half"]["kept"], found["half"]["left_out"]) == (24.5, 74.5)
    worst = retention_figures(-error, error)
    assert worst["lines"][-1]["error"] == 74.5
    half = retention_figures(np.repeat([1.0, 2.0], 50), np.repeat([4.0, 8.0], 50))
    assert [line["error"] for line in half["lines"]][-1] == 4.0


@pytest.mark.parametrize(("n", "said"), [(3, "Not enough cases (3 of 20)."), (0, "Not enough cases (0 of 20).")])
def test_few_cases_have_no_curve(n, said):
    found = retention_figures(np.arange(float(n)), np.ones(n))
    assert retention_section(found, SPREAD, "MAE (months)", "x").text == [said]


def test_equal_certainty_says_nothing():
    found = retention_figures(np.ones(50), np.arange(50.0))
    assert found["lines"] == []
    assert "Every case has the same spread of the members" in retention_section(found, SPREAD, "MAE", "x").text[0]


def test_the_spread_goes_before_the_width_and_cases_without_an_interval_are_left_out():
    cases = many(40)
    bounds = [None if k < 5 else (age - 5, age + 5 + k) for k, age in enumerate(cases.predicted_months)]
    by_width = dataclasses.replace(cases, bounds=bounds, level=0.9)
    assert certainty_figures(cases) is None
    found = certainty_figures(by_width)
    assert (found["by"], found["n"]) == (WIDTH, 35)
    both = certainty_figures(dataclasses.replace(by_width, spread_months=[1.0] * 40))
    assert (both["by"], both["n"], both["equal"]) == (SPREAD, 40, True)


def test_the_roc_counts_what_lies_below_the_limit():
    assert roc_points(np.array([1.0, 2.0]), np.array([-1.0])) == [(0.0, 0.0), (0.0, 1.0), (0.5, 1.0), (1.0, 1.0)]
    assert area_under_roc(np.array([1.0, 2.0]), np.array([-1.0])) == 1.0
    assert area_under_roc(np.array([1.0]), np.array([1.0])) == 0.5
    assert len(roc_points(np.arange(5000.0), np.arange(5000.0) - 9)) == 200


def row(number, features, sex="F"):
    return {"record_id": str(number), "true_months": 12.0 * number, "sex": sex, "features": features}


def test_near_features_lie_near_on_the_map_and_equal_seeds_give_equal_maps():
    rng = np.random.default_rng(0)
    groups = np.repeat([0.0, 40.0], 30)[:, None] + rng.normal(0, 1, (60, 8))
    first = placed(groups)
    middles = first[:30].mean(0), first[30:].mean(0)
    within = max(first[:30].std(0).max(), first[30:].std(0).max())
    assert np.hypot(*(middles[0] - middles[1])) > 3 * within
    assert np.array_equal(first, placed(groups))


def test_the_map_says_how_far_ages_and_sexes_of_neighbours_go_together():
    rows = [row(k, np.array([k, 0.0, k * 0.5]), "FM"[k % 2]) for k in range(30)]
    found = map_figures(rows)
    assert len(found["places"]) == 30
    assert found["age_spread_months"] < 0.5 * found["by_chance"]
    assert found["same_sex"]["by_chance"] == 0.5
    one_sex = map_figures([row(k, np.array([k, 1.0])) for k in range(30)])
    assert one_sex["same_sex"] is None
    assert "nan" not in str(one_sex).lower()


def test_a_map_of_too_few_or_equal_cases_says_so():
    few = map_figures([row(k, np.array([k, 1.0])) for k in range(3)])
    assert map_section(few, [], "", "x").text == ["Not enough cases (3 of 20)."]
    equal = map_figures([row(k, np.ones(4)) for k in range(25)])
    assert "all features are equal" in map_section(equal, [], "", "x").text[0]


def test_heat_maps_of_several_cases_are_those_of_each(predictor):
    images, sexes = [picture(64, 64, k) for k in range(10)], ["F", "M"] * 5
    together = grad_cams(predictor, images, sexes)
    assert [heat.shape for heat in together] == [(64, 64)] * 10
    for heat, image, sex in zip(together, images, sexes, strict=True):
        assert np.allclose(heat, grad_cam(predictor, image, sex), atol=1e-4)
        assert heat.max() == pytest.approx(1.0, abs=1e-5)
    sheet = pair(images[0], together[0])
    assert cv2.imdecode(np.frombuffer(sheet, np.uint8), cv2.IMREAD_COLOR).shape == (256, 512, 3)
    assert PagePicture(sheet, "a", "b").markup().startswith('<img alt="a" src="data:image/jpeg;base64,')


def test_worst_and_typical_cases_are_apart():
    rng = np.random.default_rng(1)
    true, errors = rng.uniform(10, 200, 100), rng.normal(0, 9, 100)
    worst, typical = chosen_cases(true, errors)
    assert np.abs(errors[worst]).min() >= np.abs(np.delete(errors, worst)).max()
    assert (len(worst), len(typical), len({*worst, *typical})) == (12, 12, 24)
    assert [true[k] for k in typical] == sorted(true[k] for k in typical)
    assert chosen_cases([1, 2, 3], [5.0, -9.0, 1.0]) == ([1, 0, 2], [])


def test_the_gate_is_measured_on_the_cases_and_on_pictures_drawn_anew(predictor):
    rows = [{"likeness": -1.0 if k < 2 else 2.0} for k in range(40)]
    found = gate_figures(predictor, rows)
    assert (found["n"], found["rejected"]) == (40, 2)
    assert {kind["drawn"] for kind in found["kinds"]} == {EACH}
    assert found["others"] == sum(kind["n"] for kind in found["kinds"])
    section = gate_section(found, "x")
    assert "reject 2 of the 40 cases" in section.text[0]
    assert len(section.pictures) == 1
    few = gate_section(gate_figures(predictor, rows[:3]), "x")
    assert few.text[1] == "Not enough cases for its ROC (3 of 20)."
    assert gate_figures(predictor, [{"likeness": None}]) is None


def test_features_are_told_only_where_asked_for(predictor):
    columns = {"image": [picture(64, 64, 1)], "sex": ["F"]}
    told = predictor(columns)
    assert told["features"][0].shape == (predictor.model.encoder_features,)
    predictor.tells_features = False
    assert {"features", "likeness"} & set(predictor(columns)) == set()
    predictor.tells_features = True


def test_the_page_of_a_thousand_cases_stays_small():
    cases, rng = many(1000), np.random.default_rng(0)
    rows = [
        row(k, None, sex) | {"true_months": age}
        for k, (age, sex) in enumerate(zip(cases.true_months, cases.sex, strict=True))
    ]
    places = rng.normal(0, 20, (1000, 2))
    maps = [draw(places, rows) for draw in (age_map, sex_map)]
    page = age_page(analyse_ages(cases, 120.0), cases, {}, {}, "x")
    sheets = 24 * len(pair(rng.integers(0, 256, (224, 224), np.uint8), rng.random((224, 224), np.float32)))
    assert len(page) + sum(map(len, maps)) + sheets * 4 / 3 < 8_000_000


def test_nearest_training_cases_are_found_in_standard_deviations_and_a_feature_that_never_moves_is_left_out():
    known = [[0.0, 100.0, 7.0], [1.0, 400.0, 7.0], [2.0, 100.0, 7.0], [1.1, 110.0, 7.0]]
    assert nearest_cases(known, [[0.9, 100.0, 9.0], [0.1, 380.0, 7.0]]) == [[3, 0, 2], [1, 0, 3]]
