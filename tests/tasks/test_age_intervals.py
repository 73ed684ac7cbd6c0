"""Intervals of ages: the order statistics that they are, and that they cover what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from boneage_ray.errors import UsageError
from boneage_ray.tasks.age.config import AgeTaskConfig
from boneage_ray.tasks.age.intervals import (
    fit_intervals,
    interval,
    lacking_cases,
    read_intervals,
    validated_intervals,
)
from boneage_ray.tasks.age.task import AgeTask

EACH = 99


def cases(spread):
    """99 girls and 99 boys predicted at 100 months, and the same at 60; the true ages lie -49 to 49 times `spread` around."""
    offsets = np.arange(-49, 50)
    sexes = ["F"] * EACH + ["M"] * EACH
    predicted = np.concatenate([np.full(2 * EACH, at, float) for at in (100, 60)])
    true = predicted + np.concatenate([spread[sex, at] * offsets for at in (100, 60) for sex in "FM"])
    return sexes * 2, true, predicted


def test_bounds_are_the_order_statistics_of_sex_and_range_and_else_of_the_sex():
    spread = {("F", 100): 0.1, ("M", 100): 0.2, ("F", 60): 0.3, ("M", 60): 0.4}
    groups = fit_intervals(*cases(spread))
    found = {sex: [interval(groups, sex, age) for age in (100.0, 60.0)] for sex in "FM"}
    # (99 + 1) * 0.05 = 5: the fifth smallest of 99 is the offset -45.
    assert found["F"] == [(95.5, 104.5), (46.5, 73.5)]
    assert found["M"] == [(91.0, 109.0), (42.0, 78.0)]
    # Nobody was predicted at 200 months: floor(199 * 0.05) = 9 of the 198 of each sex.
    of_girls = np.sort(np.concatenate([0.1 * np.arange(-49, 50), 0.3 * np.arange(-49, 50)]))
    assert interval(groups, "F", 200.0) == pytest.approx((200 + of_girls[8], 200 + of_girls[-9]))
    assert interval(groups, "F", 5.0) == (0.0, 18.5)  # never before birth


def test_there_is_no_interval_where_nothing_says_how_wide_it_is():
    groups = fit_intervals(*cases(dict.fromkeys([(s, a) for s in "FM" for a in (100, 60)], 0.1)))
    assert interval(groups, None, 100.0) is None
    assert interval(groups, "F", math.nan) is None
    with pytest.raises(ValueError, match=r"not enough cases \(3 of 50\) for an interval of coverage 0.9"):
        fit_intervals(["F"] * 3, np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match=r"not enough cases \(60 of 199\)"):
        fit_intervals(["F"] * 60, np.zeros(60), np.zeros(60), 0.99)
    with pytest.raises(ValueError, match="2 cases are neither F nor M, or have no ages"):
        fit_intervals(["F"] * 60 + ["M"] * 60, np.full(120, 80.0), np.array([math.nan, math.inf] + [80.0] * 118))
    task = AgeTask(AgeTaskConfig())
    with pytest.raises(UsageError, match="calibration of this bundle is none of ages"):
        task.calibrate({}, {"calibrated": True, "sigma": 2})


def test_new_cases_are_covered_as_often_as_is_said():
    chance = np.random.default_rng(0)

    def drawn(count):
        sexes = chance.choice(["F", "M"], count).tolist()
        predicted = chance.uniform(20, 220, count)
        return sexes, predicted + chance.laplace(-3, 4 + predicted / 20), predicted

    groups = fit_intervals(*drawn(4000))
    sexes, true, predicted = drawn(4000)
    bounds = np.array([interval(groups, sex, age) for sex, age in zip(sexes, predicted, strict=True)])
    inside = (bounds[:, 0] <= true) & (true <= bounds[:, 1])
    assert 0.88 <= inside.mean() <= 0.92


def test_a_task_without_calibration_says_nothing_of_intervals():
    task = AgeTask(AgeTaskConfig())
    predicted = {"age_months": [100.0, 60.0]}
    assert task.intervals(predicted, ["F", None]) == {}
    groups = fit_intervals(*cases(dict.fromkeys([(s, a) for s in "FM" for a in (100, 60)], 0.1)))
    task.calibrate({}, {"calibrated": True, "coverage": 0.9, "age_intervals": groups})
    assert task.intervals(predicted, ["F", None]) == {
        "age_low_months": [95.5, None],
        "age_high_months": [104.5, None],
        "interval_coverage": [0.9, None],
    }


def test_a_sex_with_few_cases_takes_the_bounds_of_both_and_one_with_almost_none_gets_none():
    few = ["F"] * 60 + ["M"] * 30
    groups = fit_intervals(few, np.full(90, 80.0) + np.arange(90), np.full(90, 80.0))
    assert [(group["sex"], group["of"], group["cases"]) for group in groups[::4]] == [
        ("F", "range", 60),
        ("M", "all", 90),
    ]
    assert lacking_cases(groups, few) == [
        "girls: fewer than 50 cases predicted from 8 to 11 years, from 11 to 14 years, from 14 years on: the intervals of all "
        "girls are used",
        "boys: not enough cases for intervals of their own (30 of 50): the intervals of both sexes are used",
    ]
    spread = fit_intervals(["F", "M"] * 50, np.full(100, 80.0), np.linspace(20, 200, 100))
    assert lacking_cases(spread, ["F", "M"] * 50)[0] == (
        "girls: fewer than 50 cases in every age range: the intervals of all girls are used"
    )
    girls = ["F"] * 60 + ["M"] * 9
    alone = fit_intervals(girls, np.full(69, 80.0), np.full(69, 80.0))
    assert {group["sex"] for group in alone} == {"F"}
    assert lacking_cases(alone, girls)[1] == "no interval for boys: not enough cases (9 of 10)"


def test_another_coverage_is_read_from_the_residuals():
    groups = fit_intervals(*cases(dict.fromkeys([(s, a) for s in "FM" for a in (100, 60)], 0.1)))
    calibration = {"calibrated": True, "coverage": 0.9, "age_intervals": groups}
    found, level = read_intervals(calibration, 0.8)
    # (99 + 1) * 0.1 = 10: the tenth smallest of 99 is the offset -40.
    assert (interval(found, "F", 100.0), level) == ((96.0, 104.0), 0.8)
    assert interval(read_intervals(calibration)[0], "F", 100.0) == (95.5, 104.5)
    with pytest.raises(UsageError, match=r"not enough cases \(99 of 199\) in a group .*; at most 0.98 is possible"):
        read_intervals(calibration, 0.99)
    old = {**calibration, "age_intervals": [{k: v for k, v in g.items() if k != "residuals"} for g in groups]}
    assert read_intervals(old, 0.9)[1] == 0.9
    with pytest.raises(UsageError, match=r"knows 0.9 only; `boneage calibrate` makes"):
        read_intervals(old, 0.95)
    with pytest.raises(UsageError, match="this bundle has no calibrated intervals"):
        read_intervals({"calibrated": False}, 0.9)
    with pytest.raises(UsageError, match="a share between 0 and 1"):
        read_intervals(calibration, 95)


def test_a_training_takes_intervals_from_validation_where_there_are_cases_enough():
    sexes, true, predicted = cases(dict.fromkeys([(s, a) for s in "FM" for a in (100, 60)], 0.1))
    found = validated_intervals([*sexes, None, "F"], [*true, 100.0, math.nan], [*predicted, 100.0, 100.0])
    assert (found["calibrated"], found["fitted_on"]) == (True, "396 cases of the validation split")
    assert found["age_intervals"] == fit_intervals(sexes, true, predicted)
    few = validated_intervals(["F", "M", None], [100.0, 90.0, 80.0], [100.0, 90.0, 80.0])
    assert few["calibrated"] is False
    assert few["notes"] == [
        "no intervals: not enough cases (2 of 50) for an interval of coverage 0.9, of known sex in the validation split"
    ]
    unlabelled = validated_intervals([], [], [])
    assert "(0 of 50)" in unlabelled["notes"][0]
