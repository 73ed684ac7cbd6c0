"""Several models that predict as one: the mean of what each says alone, to the digit that is stored."""

from __future__ import annotations

import math
import statistics
from functools import partial

import pytest
import torch
from pictures import encoded, picture

from boneage_ray import bundle
from boneage_ray.archives.archive import Input
from boneage_ray.errors import MismatchError
from boneage_ray.models.regressor import Regressor
from boneage_ray.prediction import ensemble, members
from boneage_ray.prediction.rows import load_input, score_rows
from boneage_ray.preparation.prepare import prepare_image
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.records.schema import from_table, result_schema, to_table
from boneage_ray.tasks.age.ensemble import combine_ages
from boneage_ray.tasks.age.findings.rows import add_age

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = override(find_recipe("demo"), ["image.size=64", "precision=float32", "model.backbone.name=test_resnet"])
CROPPED = RECIPE.derive(name="cropped", image={"size": 48, "crop": "hand"})
STRICT = RECIPE.derive(name="strict", image={"quality": {"min_side": 90}})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """name -> URI of a bundle that answers something of its own for every image."""
    root, places = tmp_path_factory.mktemp("models"), {}
    for seed, recipe in enumerate((RECIPE, CROPPED, STRICT)):
        torch.manual_seed(seed)
        model = Regressor(recipe.model)
        for name, parameter in model.named_parameters():
            if not name.startswith("backbone."):
                torch.nn.init.normal_(parameter, std=0.1)
        places[recipe.name] = str(root / recipe.name)
        bundle.save(places[recipe.name], recipe, model.state_dict(), {})
    return places


def scored(*uris):
    """The rows of one run over the same six files, one of them small and one no image."""
    models = members.resolve(uris)
    scorer = ensemble.load_predictor(models, "cpu")
    prepares = [partial(prepare_image, config=image) for image in models.images]
    files = [encoded(picture(100, 100, k)) for k in range(4)] + [encoded(picture(80, 80, 9)), b"text"]
    cases = [
        load_input(Input(f"{k}.png", str(k), sex="FM"[k % 2], sex_source="option"), data, *prepares)
        for k, data in enumerate(files)
    ]
    rows = list(score_rows(cases, scorer, add_age))
    assert from_table(to_table(rows, result_schema())) == rows
    return rows


def test_two_scored_as_one_are_the_mean_of_two_runs_to_the_digit_that_is_stored(saved):
    a, b = scored(saved["demo"]), scored(saved["cropped"])
    both = scored(saved["demo"], saved["cropped"])
    assert [row["status"] for row in both] == ["scored"] * 5 + ["failed"]
    assert len({row["age_months"] for row in both}) == 6
    for one, other, whole in zip(a[:5], b[:5], both[:5], strict=True):
        ages = [one["age_months"], other["age_months"]]
        assert ages[0] != ages[1]
        assert whole["age_months"] == round(statistics.fmean(ages), 3)
        assert whole["age_spread_months"] == round(statistics.stdev(ages), 3)
        assert whole["model"] == "cropped+demo"
        assert set(one["flags"]) | set(other["flags"]) == set(whole["flags"])
    assert both[0]["model_sha256"] == members.resolve([saved["cropped"], saved["demo"]]).sha256


def test_the_order_of_the_models_changes_nothing(saved):
    assert scored(saved["demo"], saved["cropped"]) == scored(saved["cropped"], saved["demo"])


def test_a_single_model_has_no_spread(saved):
    rows = scored(saved["demo"])
    assert {row["age_spread_months"] for row in rows} == {None}
    assert {row["model"] for row in rows} == {"demo"}


def test_what_one_member_refuses_is_refused_for_all_with_its_reason(saved):
    alone, lenient, both = (scored(*map(saved.get, n)) for n in (["strict"], ["demo"], ["demo", "strict"]))
    assert lenient[4]["status"] == "scored"
    assert [row["status"] for row in both] == ["scored"] * 4 + ["rejected", "failed"]
    for name in ("status", "step", "reason", "message"):
        assert both[4][name] == alone[4][name]
    assert (both[4]["reason"], both[4]["age_months"], both[4]["age_spread_months"]) == ("too_small", None, None)


def test_a_member_that_was_exchanged_meanwhile_is_refused(saved, tmp_path):
    model = Regressor(RECIPE.model).state_dict()
    uri = str(tmp_path / "model")
    bundle.save(uri, RECIPE, model, {})
    models = members.resolve([uri, saved["cropped"]])
    bundle.save(uri, RECIPE, model, {"val_mae_months": 1.0})
    with pytest.raises(MismatchError, match="was replaced while it was in use"):
        ensemble.load_predictor(models, "cpu")


def test_nothing_given_nothing_answered(saved):
    assert ensemble.load_predictor(members.resolve([saved["demo"], saved["cropped"]]), "cpu")({"sex": []}) == {}


def answer(ages, three):
    return {"age_months": ages, "stages": [{"three": name, "four": "infant"} for name in three]}


def test_mean_spread_and_parts():
    answers = [answer([100.0, 60.0], ["child"] * 2), answer([103.0, 60.0], ["child"] * 2)]
    found = combine_ages(["a", "b"], answers, [])
    assert found["age_months"] == [101.5, 60.0]
    assert found["age_spread_months"] == [2.121, 0.0]
    assert found["age_parts"] == [{"a": 100.0, "b": 103.0}, {"a": 60.0, "b": 60.0}]


def test_without_heads_the_mean_age_decides_the_stage():
    answers = [answer([140.0], ["child"]), answer([150.0], ["child"])]
    assert combine_ages(["a", "b"], answers, [])["stages"] == [{"three": "adolescent", "four": "pre-adolescent"}]


@pytest.mark.parametrize(
    ("votes", "age", "stage"),
    [
        (["child", "child", "adult"], 230.0, "child"),  # most votes
        (["child", "adolescent"], 150.0, "adolescent"),  # equal: the one nearest to the mean age's class
        (["child", "adolescent"], 100.0, "child"),
        (["child", "adult"], 150.0, "child"),  # equally near: the younger
        (["child", "adult"], 230.0, "adult"),
    ],
)
def test_members_that_all_have_a_head_vote(votes, age, stage):
    answers = [answer([age], [vote]) for vote in votes]
    found = combine_ages([str(k) for k in range(len(votes))], answers, ["three"])["stages"]
    assert found[0]["three"] == stage


@pytest.mark.parametrize("age", [math.nan, math.inf, -math.inf])
def test_an_age_that_is_not_finite_stays_so(age):
    found = combine_ages(["a", "b"], [answer([age], ["child"]), answer([100.0], ["child"])], [])
    assert not math.isfinite(found["age_months"][0])
