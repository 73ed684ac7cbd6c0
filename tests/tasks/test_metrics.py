"""Figures against published confusion matrices and against numbers worked out by hand."""

import math

import pytest

from boneage_ray.anatomy.growth import SCHEMES
from boneage_ray.tasks.age.metrics import age_metrics, confusion, stage_metrics

# Rows true, columns predicted, as published with the figures beside them. The accuracy of the second, 1666 / 1892, is
# 0.88055; it was published as 0.8806.
THREE = [[970, 105, 0], [116, 698, 0], [0, 3, 0]]
FOUR = [[92, 28, 0, 0], [11, 462, 51, 0], [0, 73, 992, 18], [0, 0, 45, 120]]


def cases(counts, scheme):
    """(predicted, true) class names that give these counts."""
    names = SCHEMES[scheme].classes
    pairs = [
        (names[column], names[row])
        for row, line in enumerate(counts)
        for column, count in enumerate(line)
        for _ in range(count)
    ]
    return [predicted for predicted, _ in pairs], [true for _, true in pairs]


@pytest.mark.parametrize(
    ("scheme", "counts", "expected"),
    [
        ("three", THREE, {"accuracy": 0.8816, "precision": 0.8801, "recall": 0.8816, "f1": 0.8808, "qwk": 0.7600}),
        ("four", FOUR, {"accuracy": 0.8806, "f1": 0.8799, "qwk": 0.8799}),
    ],
)
def test_published_stage_figures(scheme, counts, expected):
    found = stage_metrics(*cases(counts, scheme), scheme)
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize(("scheme", "counts"), [("three", THREE), ("four", FOUR)])
def test_confusion_has_rows_true_and_columns_predicted(scheme, counts):
    assert confusion(*cases(counts, scheme), scheme) == counts


def test_kappa_punishes_a_far_class_more_than_a_near_one():
    true = ["child", "child", "adolescent", "adult"]
    near = stage_metrics(["child", "adolescent", "adolescent", "adult"], true, "three")
    far = stage_metrics(["child", "adult", "adolescent", "adult"], true, "three")
    assert near["accuracy"] == far["accuracy"] == 0.75
    # By hand: 1 - observed / expected, the sums of squared class distances; expected: all 16 pairs, over 4.
    assert near["qwk"] == pytest.approx(1 - 1 / 5, abs=1e-6)
    assert far["qwk"] == pytest.approx(1 - 4 / 6.5, abs=1e-6)


def test_kappa_is_not_defined_for_a_single_class():
    found = stage_metrics(["child"] * 3, ["child"] * 3, "three")
    assert math.isnan(found.pop("qwk"))
    assert found == {"accuracy": 1.0, "precision": 1.0, "recall": 1.0, "f1": 1.0}


def test_kappa_is_zero_when_the_prediction_never_varies():
    assert stage_metrics(["child"] * 4, ["child", "child", "adult", "adult"], "three")["qwk"] == 0.0


def test_age_figures_by_hand():
    # Errors -1, +2, +5; squares 30; true ages vary by 2 * 12^2 around their mean.
    found = age_metrics([119.0, 134.0, 149.0], [120.0, 132.0, 144.0])
    assert found == pytest.approx(
        {"mae_months": 8 / 3, "rmse_months": math.sqrt(10), "bias_months": 2.0, "r2": 1 - 30 / 288}
    )


def test_bias_is_predicted_minus_true():
    assert age_metrics([130.0, 130.0], [120.0, 120.0])["bias_months"] == 10.0


def test_one_case_has_no_r2():
    found = age_metrics([100.0], [110.0])
    assert math.isnan(found.pop("r2"))
    assert found == {"mae_months": 10.0, "rmse_months": 10.0, "bias_months": -10.0}


def test_ages_keep_double_precision():
    assert age_metrics([180.0000001, 1.0], [180.0, 1.0])["mae_months"] == pytest.approx(5e-8, rel=1e-3)
