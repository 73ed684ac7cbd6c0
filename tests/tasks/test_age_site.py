"""A site's correction: it mends what is wrong, leaves what is right, and its intervals cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from boneage_ray.errors import UsageError
from boneage_ray.tasks.age.config import AgeTaskConfig
from boneage_ray.tasks.age.intervals import interval
from boneage_ray.tasks.age.site import Correction, SiteCases, fit_site, nested, read_correction, usable_cases
from boneage_ray.tasks.age.task import AgeTask


def drawn(count, shift=0.0, slope=1.0, seed=0, spread=8.0, ages=(20, 220)):
    """Children of both sexes whose model errs by `spread`, and answers slope x age + shift."""
    chance = np.random.default_rng(seed)
    true = chance.uniform(*ages, count)
    predicted = slope * (true + chance.normal(0, spread, count)) + shift
    return SiteCases(chance.choice(["F", "M"], count), true, predicted)


def inside(cases, bounds):
    known = [(low <= true <= high) for true, (low, high) in zip(cases.true_N, bounds, strict=True)]
    return sum(known) / len(known)


def test_a_model_ten_months_too_old_is_mended_and_its_interval_covers():
    site, unseen = fit_site(drawn(300, shift=10)), drawn(4000, shift=10, seed=1)
    assert site.correction.kind == "shift"
    assert site.correction.intercept == pytest.approx(-10, abs=1.0)
    after = site.correction(unseen.predicted_N)
    assert np.mean(unseen.predicted_N - unseen.true_N) == pytest.approx(10, abs=0.3)
    assert np.mean(after - unseen.true_N) == pytest.approx(0, abs=1.0)
    bounds = [interval(site.groups, sex, age) for sex, age in zip(unseen.sexes, after, strict=True)]
    assert 0.87 <= inside(unseen, bounds) <= 0.94
    # Around the ages that are not corrected the same intervals would not hold.
    wrong = [interval(site.groups, sex, age) for sex, age in zip(unseen.sexes, unseen.predicted_N, strict=True)]
    assert inside(unseen, wrong) < 0.75


def test_the_nested_figures_are_those_of_unseen_cases():
    found = {"error": [], "covered": []}
    for seed in range(8):
        cases = drawn(60, shift=10, seed=seed)
        corrected, bounds = nested(cases)
        found["error"].append(np.abs(corrected - cases.true_N).mean())
        found["covered"].append(inside(cases, bounds))
    assert np.mean(found["error"]) == pytest.approx(8 * math.sqrt(2 / math.pi), abs=0.5)
    assert 0.88 <= np.mean(found["covered"]) <= 0.97


def test_what_is_right_is_left_alone_and_a_line_is_found_where_there_is_one():
    assert fit_site(drawn(200)).correction == Correction()
    line = fit_site(drawn(200, shift=-12, slope=1.2)).correction
    assert (line.kind, line.slope) == ("line", pytest.approx(1 / 1.2, abs=0.03))
    assert line(np.array([100.0]))[0] == pytest.approx((100 + 12) / 1.2, abs=3)
    # Beyond the fitted ages the shift is that of the last one.
    beyond = line(np.array([line.stop, line.stop + 50]))
    assert beyond[1] - beyond[0] == pytest.approx(50)


@pytest.mark.parametrize("ages", [(120, 150), (100, 100.001)])
def test_ages_that_span_little_give_no_line(ages):
    cases = drawn(80, shift=20, ages=ages, spread=0.0 if ages[0] == 100 else 8.0)
    assert fit_site(cases).correction.kind == "shift"


def test_equal_predictions_give_numbers():
    cases = drawn(60)
    corrected, bounds = nested(cases._replace(predicted_N=np.full(60, 90.0)))
    assert np.isfinite(corrected).all()
    assert np.isfinite([edge for pair in bounds for edge in pair]).all()


def test_cases_without_sex_or_age_do_not_count():
    sexes, true = ["F", None] * 40, [100.0, 90.0] * 40
    with pytest.raises(
        UsageError, match=r"not enough cases \(40 of 60\) with a known sex and a known age .* 80 were given"
    ):
        usable_cases(sexes, true, true)
    found = usable_cases(["F", "M"] * 40, [*true[:78], None, math.nan], true)
    assert len(found.true_N) == 78


def test_a_task_corrects_ages_and_the_stages_that_come_from_them():
    task = AgeTask(AgeTaskConfig())
    outputs = {"age_years": torch.tensor([11.5, 18.5])}
    assert task.predict(outputs)["stages"][0]["three"] == "child"
    correction = Correction("shift", 1.0, 12.0)
    calibration = {"calibrated": True, "coverage": 0.9, "age_intervals": [], "correction": correction.as_json()}
    task.calibrate({}, calibration)
    found = task.predict(outputs)
    assert found["age_months"] == [150.0, 234.0]
    assert [row["three"] for row in found["stages"]] == ["adolescent", "adult"]
    assert read_correction(calibration) == correction
    for wrong in ({"kind": "line"}, {**correction.as_json(), "slope": math.inf}, "line"):
        with pytest.raises(UsageError, match="correction of this bundle"):
            read_correction({"correction": wrong})
