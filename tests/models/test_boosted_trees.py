"""Boosted trees on features: determinism, early stopping, the weight, and files that are not whole."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from boneage_ray.errors import UsageError
from boneage_ray.models.boosted_trees import (
    Cases,
    Trees,
    blend_error,
    check_installed,
    choose_weight,
    fit_trees,
    read_trees,
)
from boneage_ray.models.config import BlendConfig

FEATURES = 6
CONFIG = BlendConfig(rounds=30, depth=3, eta=0.3, early_stop=5)


def cases(count, seed):
    """Ages in years that the first feature tells, and a CNN that is off by one year here and there."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, FEATURES)).astype(np.float32)
    true = 10 + 3.0 * features[:, 0].astype(np.float64)
    return Cases(features, true + rng.choice([-1.0, 1.0], count), true)


TRAIN, VAL = cases(120, 0), cases(40, 1)


@pytest.fixture(scope="module")
def trees():
    return fit_trees(CONFIG, TRAIN, VAL, seed=3, threads=1)


@pytest.fixture(scope="module")
def saved(trees):
    return trees.to_bytes()


def read(data, features=FEATURES):
    return read_trees(data, features, 1, "trees.json of the bundle x")


def test_the_published_parameters_are_the_defaults():
    assert BlendConfig().model_dump() == {
        "rounds": 500,
        "depth": 6,
        "eta": 0.05,
        "subsample": 0.8,
        "colsample": 0.8,
        "gamma": 0.1,
        "alpha": 0.1,
        "reg_lambda": 1.0,
        "early_stop": 20,
        "cnn_weight": 0.7,
    }


def test_every_parameter_reaches_xgboost(trees):
    told = json.loads(trees.booster.save_config())["learner"]
    grown = told["gradient_booster"]["tree_train_param"]
    assert told["objective"]["name"] == "reg:squarederror"
    assert told["gradient_booster"]["gbtree_train_param"]["tree_method"] == "exact"
    assert {k: float(grown[k]) for k in ("max_depth", "eta", "subsample", "colsample_bytree")} == pytest.approx(
        {"max_depth": 3, "eta": 0.3, "subsample": 0.8, "colsample_bytree": 0.8}
    )
    assert {k: float(grown[k]) for k in ("gamma", "alpha", "lambda")} == pytest.approx(
        {"gamma": 0.1, "alpha": 0.1, "lambda": 1.0}
    )


def test_the_trees_learn_and_stop_early(trees):
    always_the_mean = np.abs(VAL.true_N - TRAIN.true_N.mean()).mean()
    assert np.abs(trees.predict(VAL.features_NF) - VAL.true_N).mean() < 0.4 * always_the_mean
    nothing_to_learn = Cases(TRAIN.features_NF, TRAIN.cnn_N, np.random.default_rng(5).normal(10, 3, 120))
    assert fit_trees(CONFIG, nothing_to_learn, VAL, seed=3, threads=1).rounds < CONFIG.rounds


def test_the_same_data_and_seed_give_the_same_bytes(saved):
    assert fit_trees(CONFIG, TRAIN, VAL, seed=3, threads=1).to_bytes() == saved
    assert fit_trees(CONFIG, TRAIN, VAL, seed=3, threads=2).to_bytes() == saved
    assert fit_trees(CONFIG, TRAIN, VAL, seed=4, threads=1).to_bytes() != saved


def test_rounding_of_a_feature_with_few_values_does_not_change_sides():
    """A sex embedding has two or three values; in bfloat16 they are a little others than in float32."""
    rng = np.random.default_rng(2)
    sex = rng.choice(np.float32([-0.731, 0.417]), (80, 1))
    true = np.where(sex[:, 0] < 0, 8.0, 12.0)
    embedded = Cases(np.hstack([sex, rng.normal(size=(80, 2)).astype(np.float32)]), true, true)
    trees = fit_trees(CONFIG, embedded, embedded, seed=0, threads=1)
    for factor in (0.996, 1.004):
        rounded = embedded.features_NF * np.float32([factor, 1, 1])
        np.testing.assert_array_equal(trees.predict(rounded), trees.predict(embedded.features_NF))


def test_pruned_trees_come_back_too():
    pruned = fit_trees(CONFIG.model_copy(update={"gamma": 30.0, "depth": 6}), TRAIN, VAL, seed=3, threads=1)
    back = read(pruned.to_bytes())
    np.testing.assert_array_equal(back.predict(VAL.features_NF), pruned.predict(VAL.features_NF))


def test_trees_come_back_as_they_were_saved(trees, saved):
    back = read(saved)
    assert (back.rounds, back.cnn_weight, back.to_bytes()) == (trees.rounds, 0.7, saved)
    np.testing.assert_array_equal(back.predict(VAL.features_NF), trees.predict(VAL.features_NF))


def test_the_weight_is_the_recipes_or_chosen_on_validation(trees):
    chosen = fit_trees(CONFIG.model_copy(update={"cnn_weight": "validation"}), TRAIN, VAL, seed=3, threads=1)
    own = trees.predict(VAL.features_NF)
    errors = [blend_error(k / 20, VAL.cnn_N, own, VAL.true_N) for k in range(21)]
    assert trees.cnn_weight == 0.7
    assert chosen.cnn_weight == np.argmin(errors) / 20
    assert blend_error(1.0, VAL.cnn_N, own, VAL.true_N) == pytest.approx(1.0)


def test_the_best_weight_of_opposite_errors_is_between():
    true = np.array([10.0, 12.0, 3.0])
    assert choose_weight(true + 1, true - 3, true) == 0.75
    assert choose_weight(true, true + 1, true) == 1.0
    assert choose_weight(true + 1, true, true) == 0.0
    assert choose_weight(true + 1, true + 1, true) == 1.0  # of equals the one that trusts the CNN more


def test_a_blend_is_the_weighted_sum_and_keeps_the_other_outputs(trees):
    features = torch.from_numpy(VAL.features_NF[:4])
    given = {"age_years": torch.tensor([1.0, 5.0, 9.0, 13.0]), "stage_four": torch.eye(4)}
    outputs, parts = trees.blend(features, given)
    own = torch.from_numpy(trees.predict(VAL.features_NF[:4])).float()
    assert torch.equal(parts["cnn"], given["age_years"])
    assert torch.equal(parts["trees"], own)
    torch.testing.assert_close(outputs["age_years"], 0.7 * given["age_years"] + 0.3 * own)
    assert torch.equal(outputs["stage_four"], given["stage_four"])
    assert torch.equal(given["age_years"], torch.tensor([1.0, 5.0, 9.0, 13.0]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_not_finite_gives_no_age(trees, value):
    features = VAL.features_NF[:3].copy()
    features[1, 2] = value
    assert np.isfinite(trees.predict(features)).tolist() == [True, False, True]


def damaged(saved, change):
    told = json.loads(saved)
    change(told["learner"])
    return json.dumps(told).encode()


def first_tree(learner):
    return learner["gradient_booster"]["model"]["trees"][0]


@pytest.mark.parametrize(
    "change",
    [
        lambda learner: learner["attributes"].clear(),
        lambda learner: learner["attributes"].update(cnn_weight="much"),
        lambda learner: learner.pop("gradient_booster"),
        lambda learner: learner["gradient_booster"]["model"]["trees"].clear(),
        lambda learner: first_tree(learner)["left_children"].__setitem__(0, 10_000),
        lambda learner: first_tree(learner)["right_children"].__setitem__(0, 0),
        lambda learner: first_tree(learner)["split_indices"].__setitem__(0, FEATURES),
        lambda learner: first_tree(learner)["split_indices"].pop(),
        lambda learner: first_tree(learner)["split_conditions"].pop(),
        lambda learner: first_tree(learner)["split_conditions"].__setitem__(0, float("inf")),
        lambda learner: first_tree(learner)["split_type"].__setitem__(0, 1),
        lambda learner: first_tree(learner)["categories"].append(7),
        lambda learner: first_tree(learner)["tree_param"].update(size_leaf_vector="5"),
        lambda learner: first_tree(learner)["tree_param"].update(num_feature="1000000"),
        lambda learner: learner["gradient_booster"].update(name="gblinear"),
        lambda learner: learner["gradient_booster"]["model"]["tree_info"].__setitem__(0, 3),
        lambda learner: learner["gradient_booster"]["model"]["iteration_indptr"].__setitem__(-1, 999),
        lambda learner: learner["gradient_booster"]["model"]["gbtree_model_param"].update(num_trees="999"),
        lambda learner: learner["objective"].update(name="binary:logistic"),
        lambda learner: learner["learner_model_param"].update(num_target="3"),
        lambda learner: learner["learner_model_param"].update(num_class="3"),
        lambda learner: learner["learner_model_param"].update(num_feature="inf"),
        lambda learner: learner["learner_model_param"].update(base_score="[1e38]"),
        lambda learner: learner["learner_model_param"].update(base_score="[nan]"),
        lambda learner: learner["learner_model_param"].update(base_score="[-1E0]"),
        lambda learner: learner["learner_model_param"].update(base_score="[1E1,1E1]"),
        lambda learner: learner["learner_model_param"].update(base_score=None),
    ],
)
def test_trees_that_cannot_be_walked_are_refused_before_xgboost_sees_them(saved, change):
    with pytest.raises(UsageError, match=r"trees.json of the bundle x does not hold boosted trees .* or is damaged"):
        read(damaged(saved, change))


def test_a_key_that_is_given_twice_counts_as_it_was_checked(trees, saved):
    twice = saved.replace(b'"num_target":"1"', b'"num_target":"3","num_target":"1"')
    assert twice != saved
    np.testing.assert_array_equal(read(twice).predict(VAL.features_NF), trees.predict(VAL.features_NF))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"not json", b"\x80\x04\x95", b'{"learner": {}}'])
def test_what_is_no_trees_file_is_refused(data):
    with pytest.raises(UsageError, match=r"does not hold boosted trees"):
        read(data)


def test_half_a_file_is_refused(saved):
    with pytest.raises(UsageError, match="or is damaged"):
        read(saved[: len(saved) // 2])


def test_trees_of_another_model_are_refused(saved):
    with pytest.raises(UsageError, match=r"has trees on 6 features and weight 0.7; the model has 1312 features"):
        read(saved, features=1312)


def test_a_weight_outside_of_0_to_1_is_refused(trees, saved):
    with pytest.raises(UsageError, match=r"weight 1.5"):
        read(Trees(trees.booster.copy(), 1.5).to_bytes())


def test_without_xgboost_the_extra_is_named(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    for action in (check_installed, lambda: fit_trees(CONFIG, TRAIN, VAL, 0, 1), lambda: read(saved)):
        with pytest.raises(UsageError, match=r"xgboost is not installed: pip install 'boneage-ray\[blend\]'"):
            action()
