"""A bundle made callable: the same answer for a case, whatever stands beside it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from pictures import picture

from boneage_ray import bundle
from boneage_ray.anatomy.growth import stage_of
from boneage_ray.bundle import Bundle
from boneage_ray.errors import UsageError
from boneage_ray.models.boosted_trees import Cases, fit_trees
from boneage_ray.models.regressor import Regressor
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override

RECIPE = override(find_recipe("demo"), ["image.size=64", "precision=float32", "model.backbone.name=test_resnet"])
IMAGES = [picture(64, 64, seed) for seed in range(10)]
SEXES = ["F", "M", None, "F", "M", None, "F", "M", None, "F"]


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return Regressor(RECIPE.model).state_dict()


@pytest.fixture(scope="module")
def predictor(weights):
    return Predictor(Bundle(RECIPE, weights, {}, {}, "abc"), "cpu")


def test_columns_in_columns_out(predictor):
    out = predictor({"image": IMAGES, "sex": SEXES})
    assert set(out) == {"age_months", "stages"}
    assert len(out["age_months"]) == len(out["stages"]) == 10
    assert all(0 < age < 240 for age in out["age_months"])
    assert set(out["stages"][0]) == {"three", "four"}


def test_a_case_has_the_same_answer_alone_and_in_any_company(predictor):
    together = predictor({"image": IMAGES, "sex": SEXES})["age_months"]
    alone = [predictor({"image": [i], "sex": [s]})["age_months"][0] for i, s in zip(IMAGES, SEXES, strict=True)]
    backwards = predictor({"image": IMAGES[::-1], "sex": SEXES[::-1]})["age_months"][::-1]
    assert alone == together == backwards


def test_a_batch_that_the_device_has_no_memory_for_is_halved(weights, monkeypatch):
    predictor = Predictor(Bundle(RECIPE, weights, {}, {}, "abc"), "cpu")
    whole, sizes = predictor({"image": IMAGES, "sex": SEXES})["age_months"], []
    predictor.batch_size = 8
    forward = predictor.model.with_features

    def within(image_B1HW, sex_B):
        sizes.append(len(image_B1HW))
        if len(image_B1HW) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(image_B1HW, sex_B)

    monkeypatch.setattr(predictor.model, "with_features", within)
    room = 3
    assert predictor({"image": IMAGES, "sex": SEXES})["age_months"] == pytest.approx(whole, abs=2e-3)
    assert sizes == [8, 4, 2, 2, 2, 2, 2]
    assert predictor.batch_size == 2
    room = 0
    with pytest.raises(UsageError, match="the device has no memory for one image: CUDA out of memory"):
        predictor({"image": IMAGES, "sex": SEXES})


def test_unknown_sex_is_a_third_answer(predictor):
    ages = predictor({"image": [IMAGES[0]] * 3, "sex": ["F", "M", None]})["age_months"]
    assert len(set(ages)) == 3


def test_the_answer_is_that_of_the_model_in_evaluation_mode(predictor, weights):
    model = Regressor(RECIPE.model)
    model.load_state_dict(weights)
    with torch.inference_mode():
        years = model.eval()(torch.from_numpy(IMAGES[0][None, None] / np.float32(255)), torch.tensor([1]))["age_years"]
    assert predictor({"image": [IMAGES[0]], "sex": ["M"]})["age_months"][0] == pytest.approx(
        12 * years.item(), abs=2e-3
    )


def test_nothing_given_nothing_answered(predictor):
    assert predictor({"image": [], "sex": []}) == {}


def test_a_saved_bundle_predicts_the_same(predictor, weights, tmp_path):
    bundle.save(str(tmp_path), RECIPE, weights, {})
    loaded = Predictor(bundle.load(str(tmp_path)), "cpu")
    given = {"image": IMAGES[:4], "sex": SEXES[:4]}
    assert loaded(given) == predictor(given)
    assert loaded.sha256 == bundle.read_manifest(str(tmp_path))[1]


def test_weights_that_do_not_fit_the_recipe_are_refused(weights):
    lacking = {name: value for name, value in weights.items() if name != "age.bias"}
    with pytest.raises(UsageError, match=r"the bundle demo does not fit the model: missing 1 \(age.bias\)"):
        Predictor(Bundle(RECIPE, lacking, {}, {}, "abc"), "cpu")


BLENDED = RECIPE.derive(name="blended", model={"stage_heads": ("four",)}, blend={"rounds": 12, "eta": 0.3, "gamma": 0})


@pytest.fixture(scope="module")
def blended():
    """A predictor with trees that know nothing of the images, so that the two opinions lie apart."""
    torch.manual_seed(1)
    model = Regressor(BLENDED.model).eval()
    rng = np.random.default_rng(0)
    with torch.inference_mode():
        batch = torch.from_numpy(np.stack([picture(64, 64, 100 + k) for k in range(40)])[:, None] / np.float32(255))
        features = model.features(batch).numpy()
    cases = Cases(features, np.full(40, 10.0), rng.uniform(1, 5, 40))
    trees = fit_trees(BLENDED.blend, cases, cases, seed=0, threads=1).to_bytes()
    return Predictor(Bundle(BLENDED, model.state_dict(), {}, {}, "abc", trees), "cpu"), model.state_dict()


def test_with_trees_the_age_is_the_blend_and_its_parts_are_told(blended):
    predictor, weights = blended
    out = predictor({"image": IMAGES, "sex": SEXES})
    plain = Predictor(Bundle(BLENDED.derive(blend=None), weights, {}, {}, "abc"), "cpu")
    alone = plain({"image": IMAGES, "sex": SEXES})
    assert set(out) == {"age_months", "stages", "age_parts"}
    assert [part["cnn"] for part in out["age_parts"]] == pytest.approx(alone["age_months"], abs=2e-3)
    assert all(set(part) == {"cnn", "trees"} and 6 < part["trees"] < 66 for part in out["age_parts"])
    expected = [0.7 * part["cnn"] + 0.3 * part["trees"] for part in out["age_parts"]]
    assert out["age_months"] == pytest.approx(expected, abs=2e-3)


def test_stages_come_from_their_head_or_else_from_the_blended_age(blended):
    predictor, weights = blended
    columns = {"image": IMAGES, "sex": SEXES}
    out = predictor(columns)
    plain = Predictor(Bundle(BLENDED.derive(blend=None), weights, {}, {}, "abc"), "cpu")(columns)
    assert [s["four"] for s in out["stages"]] == [s["four"] for s in plain["stages"]]
    assert [s["three"] for s in out["stages"]] == [stage_of(age, "three") for age in out["age_months"]]


def test_the_network_runs_once_for_both(blended, monkeypatch):
    predictor, _ = blended
    runs = []
    backbone = predictor.model.backbone
    monkeypatch.setattr(backbone, "forward", lambda x, run=backbone.forward: (runs.append(len(x)), run(x))[1])
    predictor({"image": IMAGES, "sex": SEXES})
    assert runs == [1] * 10


def test_a_blend_without_its_trees_is_refused(blended):
    with pytest.raises(UsageError, match="the bundle blended has no trees for its blend"):
        Predictor(Bundle(BLENDED, blended[1], {}, {}, "abc"), "cpu")


def test_damaged_trees_and_those_of_another_model_are_refused(blended):
    weights = blended[1]
    with pytest.raises(UsageError, match=r"trees.json of the bundle blended does not hold boosted trees"):
        Predictor(Bundle(BLENDED, weights, {}, {}, "abc", b"{}"), "cpu")
    other = Cases(np.eye(8, 3, dtype=np.float32), np.ones(8), np.arange(8.0))
    trees = fit_trees(BLENDED.blend, other, other, seed=0, threads=1).to_bytes()
    with pytest.raises(UsageError, match=r"has trees on 3 features and weight 0.7; the model has 128 features"):
        Predictor(Bundle(BLENDED, weights, {}, {}, "abc", trees), "cpu")


def test_without_xgboost_a_blend_names_the_extra_and_others_do_without(blended, predictor, weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    assert Predictor(Bundle(RECIPE, weights, {}, {}, "abc"), "cpu")({"image": IMAGES[:1], "sex": ["F"]})
    with pytest.raises(UsageError, match=r"pip install 'boneage-ray\[blend\]'"):
        Predictor(Bundle(BLENDED, blended[1], {}, {}, "abc", b"{}"), "cpu")


def test_a_network_that_answers_nonsense_stays_nonsense_in_the_blend(blended):
    predictor, weights = blended
    broken = {name: value.clone() for name, value in weights.items()}
    broken["age.bias"][0] = float("nan")
    trees = predictor.trees.to_bytes()
    out = Predictor(Bundle(BLENDED, broken, {}, {}, "abc", trees), "cpu")({"image": IMAGES[:1], "sex": ["F"]})
    assert np.isnan(out["age_months"][0])
