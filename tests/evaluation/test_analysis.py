"""Figures of a split, by hand where a hand can do it."""

import json
import math

import numpy as np
import pytest
from made_up_predictions import many, predictions

from boneage_ray.anatomy.growth import AGE_BINS, age_bin
from boneage_ray.errors import BoneageError, ExitCode, NoUsableInputError
from boneage_ray.evaluation.bootstrap import bootstrap_interval, bootstrap_means
from boneage_ray.tasks.age.findings import headline_of_ages
from boneage_ray.tasks.age.findings.analysis import analyse_ages, sex_gap


def test_overall_figures_by_hand():
    found = analyse_ages(predictions([120.0, 132.0, 144.0, 156.0], [119.0, 134.0, 144.0, 186.0]), 138.0)
    # Errors -1, 2, 0, 30.
    assert found["n"] == 4
    assert found["mae_months"] == pytest.approx(8.25)
    assert found["mae_years"] == pytest.approx(0.6875)
    assert found["rmse_months"] == pytest.approx(math.sqrt(905 / 4), abs=1e-6)
    assert found["rmse_years"] == pytest.approx(math.sqrt(905 / 4) / 12, abs=1e-6)
    assert found["bias_months"] == pytest.approx(7.75)
    assert found["r2"] == pytest.approx(1 - 905 / 720, abs=1e-6)
    assert found["within_12_months"] == 0.75
    assert found["within_24_months"] == 0.75
    assert found["abs_error_percentiles_months"] == pytest.approx(
        {"50": 1.5, "75": 9.0, "90": 21.6, "95": 25.8, "max": 30.0}
    )
    spread = 1.96 * np.std([-1, 2, 0, 30], ddof=1)
    assert found["limits_of_agreement_months"] == pytest.approx([7.75 - spread, 7.75 + spread], abs=1e-6)


def test_exactly_12_months_is_within_12_months():
    found = analyse_ages(predictions([100.0, 100.0], [112.0, 124.0]), None)
    assert (found["within_12_months"], found["within_24_months"]) == (0.5, 1.0)


def test_baseline_always_says_the_training_median():
    found = analyse_ages(predictions([100.0, 140.0], [105.0, 135.0]), 130.0)["baseline"]
    assert found == {"train_median_months": 130.0, "mae_months": 20.0, "model_over_baseline": 0.25}


def test_without_a_training_median_there_is_no_baseline():
    assert analyse_ages(predictions([100.0, 140.0], [105.0, 135.0]), None)["baseline"] is None


def test_a_perfect_baseline_has_no_ratio():
    assert analyse_ages(predictions([100.0], [90.0]), 100.0)["baseline"]["model_over_baseline"] is None


def test_figures_by_sex_name_the_unknown():
    found = analyse_ages(predictions([100.0] * 4, [104.0, 98.0, 110.0, 100.0], ["F", "F", "M", None]), None)["by_sex"]
    assert list(found) == ["F", "M", "unknown"]
    assert found["F"].pop("mae_interval_months") == [2.0, 4.0]
    assert found["F"] == pytest.approx(
        {"n": 2, "mae_months": 3.0, "rmse_months": math.sqrt(10), "bias_months": 1.0}, abs=1e-6
    )
    assert found["M"].pop("mae_interval_months") is None
    assert found["M"] == {"n": 1, "mae_months": 10.0, "rmse_months": 10.0, "bias_months": 10.0}
    assert found["unknown"]["n"] == 1


def test_figures_by_age_are_bins_of_two_years_by_true_age():
    found = analyse_ages(predictions([23.9, 24.0, 47.0, 200.0], [60.0, 30.0, 47.0, 190.0]), None)["by_age"]
    assert [(row["bin"], row["n"], row["mae_months"], row["bias_months"]) for row in found] == [
        ("0-2 y", 1, 36.1, 36.1),
        ("2-4 y", 2, 3.0, 3.0),
        ("16-18 y", 1, 10.0, -10.0),
    ]


@pytest.mark.parametrize(
    ("months", "name"),
    [
        (-0.1, "below 0 y"),
        (0, "0-2 y"),
        (23.99, "0-2 y"),
        (24, "2-4 y"),
        (239.9, "18-20 y"),
        (240, "20 y and over"),
        (1e9, "20 y and over"),
    ],
)
def test_age_bins(months, name):
    assert age_bin(months) == name
    assert name in AGE_BINS


def test_interval_of_the_mean_agrees_with_theory():
    values = np.random.default_rng(1).normal(10, 4, 400)
    low, high = bootstrap_interval(values, np.random.default_rng(0))
    assert low == pytest.approx(values.mean() - 1.96 * values.std() / 20, abs=0.05)
    assert high == pytest.approx(values.mean() + 1.96 * values.std() / 20, abs=0.05)


def test_resampling_in_blocks_gives_2000_means():
    assert bootstrap_means(np.ones(3000), np.random.default_rng(0)).shape == (2000,)
    assert bootstrap_means(np.ones(1), np.random.default_rng(0)).tolist() == [1.0] * 2000


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    cases = many(50)
    first, again, other = (analyse_ages(cases, None, seed)["mae_interval_months"] for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_sex_gap_that_is_there_excludes_zero():
    true = [100.0] * 200
    errors = [12.0 if k % 2 == 0 else 4.0 for k in range(200)]
    found = sex_gap(predictions(true, [t + e for t, e in zip(true, errors, strict=True)]), np.random.default_rng(0))
    assert found == {"female_minus_male_months": 8.0, "interval_months": [8.0, 8.0], "excludes_zero": True}


def test_sex_gap_of_equal_errors_includes_zero():
    rng = np.random.default_rng(5)
    true = [100.0] * 400
    found = sex_gap(predictions(true, (100 + rng.normal(0, 8, 400)).tolist()), np.random.default_rng(0))
    low, high = found["interval_months"]
    assert low < 0 < high
    assert found["excludes_zero"] is False


def test_sex_gap_needs_two_of_each():
    assert analyse_ages(predictions([100.0] * 3, [101.0] * 3, ["F", "F", "M"]), None)["sex_gap"] is None


def test_stages_from_a_head_stand_beside_the_thresholded_age():
    stages = [{"three": "child", "four": "child"}, {"three": "child", "four": "pre-adolescent"}]
    found = analyse_ages(predictions([100.0, 150.0], [100.0, 150.0], stages=stages, direct=("three",)), None)["stages"]
    assert found["three"]["source"] == "head"
    assert found["three"]["classes"] == ["child", "adolescent", "adult"]
    assert found["three"]["predicted"]["confusion"] == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert found["three"]["predicted"]["accuracy"] == 0.5
    assert found["three"]["thresholded"]["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert found["three"]["thresholded"]["qwk"] == 1.0
    assert found["four"]["source"] == "age"
    assert found["four"]["predicted"] == found["four"]["thresholded"]


def test_undefined_figures_are_none_and_the_whole_is_json():
    found = analyse_ages(predictions([100.0], [90.0]), 100.0)
    assert found["r2"] is None
    assert found["mae_interval_months"] is None
    assert found["limits_of_agreement_months"] == [None, None]
    assert found["stages"]["three"]["predicted"]["qwk"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_largest_residuals_are_the_twelve_largest_either_way():
    errors = [0.5 * k * (-1) ** k for k in range(20)]
    found = analyse_ages(predictions([120.0] * 20, [120 + e for e in errors], ["F"] * 20), None)["largest_residuals"]
    assert [row["record_id"] for row in found] == [str(k) for k in range(19, 7, -1)]
    assert found[0] == {
        "record_id": "19",
        "input_uri": "s3://hands/19.png",
        "sex": "F",
        "true_months": 120.0,
        "predicted_months": 110.5,
        "error_months": -9.5,
    }


def test_no_case_is_an_error_for_a_person():
    with pytest.raises(NoUsableInputError, match="nothing to evaluate") as caught:
        analyse_ages(predictions([], []), 100.0)
    assert caught.value.exit_code == ExitCode.NO_USABLE_INPUT


def test_a_prediction_that_is_not_finite_is_an_error_that_names_the_record():
    cases = predictions([100.0, 110.0, 120.0], [100.0, 110.0, 120.0])
    broken = predictions([100.0, 110.0, 120.0], [100.0, math.nan, math.inf], stages=cases.stages)
    with pytest.raises(BoneageError, match=r"2 of 3 predictions are not finite numbers \(the first: record 1\)"):
        analyse_ages(broken, 100.0)


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="unequal length"):
        predictions([100.0, 110.0], [100.0])


def test_the_terminal_says_of_one_case_that_it_is_too_few():
    shown = headline_of_ages(analyse_ages(predictions([100.0], [90.0]), None) | {"without_age": 0})
    assert (shown["mae_95_interval"], shown["r2"]) == ("not enough cases (1 of 2)", "not enough cases (1 of 2)")
