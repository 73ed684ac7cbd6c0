"""Trees on features of clean images: cases, order and sex, and the note on the figures."""

from __future__ import annotations

import json
import random
import sys

import numpy as np
import pytest
import torch
from plain_world import tiny_recipe
from shards_on_disk import record, write_prepared

from boneage_ray import bundle
from boneage_ray.datasets.batch import SEX_INDEX
from boneage_ray.errors import BoneageError, NoUsableInputError, UsageError
from boneage_ray.models.regressor import Regressor
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.training import blend
from boneage_ray.training.blend import check_blend, clean_batches, features_of, fit_blend

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 32
RECIPE = tiny_recipe(
    f"image.size={SIDE}",
    "model.sex_features=4",
    "augment.flip=0.5",
    "augment.rotation_deg=40",
    "blend={}",
    "blend.rounds=20",
    "blend.eta=0.3",
    "blend.early_stop=3",
)


def records(count, seed, prefix):
    """Brightness encodes the age; every seventh has no label, every third no sex."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(count):
        age = float(rng.integers(12, 216))
        image = (rng.integers(0, 40, (SIDE, SIDE)) + age).astype(np.uint8)
        rows.append(record(f"{prefix}-{k}", image, (None, "F", "M")[k % 3], None if k % 7 == 6 else age))
    return rows


TRAIN, VAL = records(38, 0, "train"), records(17, 1, "val")


def labelled(rows):
    return [row for row in rows if row["age_months"] is not None]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    # Shards longer than a batch, and a last one that no batch size divides.
    return write_prepared(tmp_path_factory.mktemp("data"), {"train": TRAIN, "val": VAL}, rows_per_shard=21)


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return Regressor(RECIPE.model).state_dict()


@pytest.fixture
def model(weights):
    made = Regressor(RECIPE.model)
    made.load_state_dict(weights)
    return made.eval()


@pytest.fixture(scope="module")
def fitted(prepared, weights):
    """(trees as bytes, their metrics)."""
    return fit_blend(RECIPE, prepared, weights)


def by_hand(model, rows):
    """Features of each row alone, straight from its pixels."""
    found = []
    for row in rows:
        image = torch.frombuffer(bytearray(row["image"]), dtype=torch.uint8).view(1, 1, SIDE, SIDE).float() / 255
        with torch.inference_mode():
            found.append(model.features(image, torch.tensor([SEX_INDEX[row["sex"]]]))[0].numpy())
    return np.stack(found)


def test_every_record_comes_once_in_the_order_of_the_shards(prepared):
    batches = list(clean_batches(prepared, "train"))
    assert [name for batch in batches for name in batch.ids] == [row["record_id"] for row in TRAIN]
    assert [len(batch) for batch in batches] == [16, 5, 16, 1]


def test_features_are_those_of_the_clean_labelled_images_in_order(prepared, model):
    cases = features_of(model, RECIPE, prepared, "train")
    rows = labelled(TRAIN)
    np.testing.assert_allclose(cases.features_NF, by_hand(model, rows), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(cases.true_N * 12, [row["age_months"] for row in rows])
    assert len(rows) == 33


def test_features_do_not_depend_on_any_random_state(prepared, model):
    first = features_of(model, RECIPE, prepared, "val")
    torch.manual_seed(99)
    random.seed(99)
    again = features_of(model, RECIPE, prepared, "val")
    np.testing.assert_array_equal(first.features_NF, again.features_NF)
    np.testing.assert_array_equal(first.cnn_N, again.cnn_N)


def test_unknown_sex_is_not_taken_for_female(prepared, model, weights):
    cases = features_of(model, RECIPE, prepared, "train")
    embedding = weights["sex.weight"].numpy()
    for row, features in zip(labelled(TRAIN), cases.features_NF, strict=True):
        np.testing.assert_array_equal(features[-4:], embedding[SEX_INDEX[row["sex"]]])
    assert not np.allclose(embedding[0], embedding[2])


def test_the_age_of_the_network_comes_with_its_features(prepared, model):
    cases = features_of(model, RECIPE, prepared, "val")
    with torch.inference_mode():
        heads = model.heads(torch.from_numpy(cases.features_NF))["age_years"]
    np.testing.assert_allclose(cases.cnn_N, heads.numpy(), rtol=1e-5)


def test_the_same_data_and_seed_give_the_same_trees(prepared, weights, fitted):
    torch.manual_seed(5)
    trees, metrics = fit_blend(RECIPE, prepared, weights)
    assert (trees, metrics) == fitted
    assert fit_blend(RECIPE.derive(seed=1), prepared, weights)[0] != trees


def test_the_labels_of_unlabelled_cases_do_not_matter(tmp_path, prepared, weights, fitted):
    only = {"train": labelled(TRAIN), "val": labelled(VAL)}
    few = write_prepared(tmp_path, only, rows_per_shard=16)
    metrics = fit_blend(RECIPE, few, weights)[1]["blend"]
    assert (metrics["train_cases"], metrics["val_cases"]) == (33, 15)
    assert metrics["val_mae_months"]["cnn"] == pytest.approx(fitted[1]["blend"]["val_mae_months"]["cnn"], abs=1e-3)


def test_the_metrics_say_what_was_blended_and_that_validation_does_not_count(fitted):
    metrics = fitted[1]["blend"]
    assert (metrics["cnn_weight"], metrics["cnn_weight_from"], metrics["features"]) == (0.7, "recipe", 100)
    assert (metrics["train_cases"], metrics["val_cases"]) == (33, 15)
    assert 1 <= metrics["rounds"] <= 20
    assert set(metrics["val_mae_months"]) == set(metrics["train_mae_months"]) == {"cnn", "trees", "blend"}
    assert "Only figures on the test split count" in metrics["note"]
    assert "stopped the trees early" in metrics["note"]
    assert json.loads(json.dumps(metrics)) == metrics


def test_the_weight_may_be_chosen_on_validation_and_the_metrics_say_so(prepared, weights, fitted):
    metrics = fit_blend(RECIPE.derive(blend={"cnn_weight": "validation"}), prepared, weights)[1]["blend"]
    assert metrics["cnn_weight_from"] == "validation"
    assert metrics["cnn_weight"] == metrics["best_cnn_weight_on_val"] == fitted[1]["blend"]["best_cnn_weight_on_val"]
    assert metrics["val_mae_months"]["blend"] <= min(fitted[1]["blend"]["val_mae_months"].values())


def test_the_bundle_predicts_what_the_metrics_say(tmp_path, prepared, weights, fitted):
    trees, metrics = fitted
    bundle.save(str(tmp_path), RECIPE, weights, metrics, trees)
    predictor = Predictor(bundle.load(str(tmp_path)), "cpu")
    rows = labelled(VAL)
    images = [np.frombuffer(row["image"], np.uint8).reshape(SIDE, SIDE) for row in rows]
    columns = predictor({"image": images, "sex": [row["sex"] for row in rows]})
    true = np.array([row["age_months"] for row in rows])
    for name, expected in metrics["blend"]["val_mae_months"].items():
        given = columns["age_months"] if name == "blend" else [part[name] for part in columns["age_parts"]]
        assert np.abs(np.array(given) - true).mean() == pytest.approx(expected, abs=0.05)


def test_a_recipe_without_a_blend_fits_nothing(prepared, weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    plain = tiny_recipe()
    check_blend(plain)
    assert fit_blend(plain, prepared, weights) == (None, {})


def test_a_missing_xgboost_is_reported_before_the_training(monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(UsageError, match=r"pip install 'boneage-ray\[blend\]'"):
        check_blend(RECIPE)


@pytest.mark.parametrize("empty", ["train", "val"])
def test_a_split_without_labels_is_refused(tmp_path, weights, empty):
    rows = {"train": TRAIN[:8], "val": VAL[:8]}
    rows[empty] = [row | {"age_months": None} for row in rows[empty]]
    with pytest.raises(NoUsableInputError, match=f"the {empty} split has no labelled case"):
        fit_blend(RECIPE, write_prepared(tmp_path, rows), weights)


def test_a_network_that_did_not_learn_is_reported(prepared, weights):
    broken = {name: value.clone() for name, value in weights.items()}
    broken["sex.weight"][1] = float("nan")
    with pytest.raises(BoneageError, match=r"the network's features of 11 train images are not finite"):
        fit_blend(RECIPE, prepared, broken)


def test_the_batches_are_short(monkeypatch, prepared, model):
    """All images of a split are never in memory together."""
    seen = []
    original = model.with_features
    monkeypatch.setattr(model, "with_features", lambda image, sex: (seen.append(len(image)), original(image, sex))[1])
    features_of(model, RECIPE, prepared, "train")
    assert max(seen) <= blend.BATCH
    assert sum(seen) == len(TRAIN)
