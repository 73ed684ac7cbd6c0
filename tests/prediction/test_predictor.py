"""A bundle made callable: the same answer for a case, whatever stands beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pictures import picture

from boneage_ray import bundle
from boneage_ray.bundle import Bundle
from boneage_ray.errors import UsageError
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
    assert alone == pytest.approx(together, abs=2e-3)
    assert backwards == pytest.approx(together, abs=2e-3)


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
