"""The parts beside the whole, and how the spread goes with the error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_up_predictions import many, predictions

from boneage_ray.errors import BoneageError
from boneage_ray.tasks.age.findings.analysis import analyse_ages, part_figures, spearman, spread_figures
from boneage_ray.tasks.age.findings.page import age_page


def ensemble(n=60, seed=0):
    """Two members with independent errors, their mean, and their spread."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(20, 220, n).round()
    ages = true + rng.normal(0, 8, (2, n))
    cases = predictions(true.tolist(), ages.mean(axis=0).tolist())
    return replace(
        cases,
        parts={"one": ages[0].tolist(), "two": ages[1].tolist()},
        spread_months=ages.std(axis=0, ddof=1).tolist(),
    )


def test_each_part_is_judged_on_the_same_cases():
    cases = replace(predictions([100.0, 110.0], [101.0, 110.0]), parts={"cnn": [104.0, 110.0], "trees": [98.0, 110.0]})
    cnn, trees = part_figures(cases)
    assert (cnn["name"], cnn["mae_months"], cnn["bias_months"], cnn["minus_whole_months"]) == ("cnn", 2.0, 2.0, 1.5)
    assert (trees["name"], trees["mae_months"], trees["bias_months"], trees["minus_whole_months"]) == (
        *("trees", 1.0, -1.0),
        0.5,
    )
    low, high = cnn["mae_interval_months"]
    assert (low, high) == (0.0, 4.0)


def test_the_mean_of_independent_members_errs_less_and_its_interval_shows_it():
    found = analyse_ages(ensemble(400), None)
    assert [part["name"] for part in found["parts"]] == ["one", "two"]
    for part in found["parts"]:
        low, high = part["mae_interval_months"]
        assert low < part["mae_months"] < high
        assert part["mae_months"] - found["mae_months"] == pytest.approx(part["minus_whole_months"], abs=2e-6)
        assert part["minus_whole_interval_months"][0] > 0


def test_a_single_model_has_neither_parts_nor_spread():
    found = analyse_ages(many(30), 120.0)
    assert (found["parts"], found["spread"]) == ([], None)
    assert "The parts and the whole" not in age_page(found, many(30), {}, {}, "boneage evaluate")


def test_a_part_of_a_blend_needs_no_spread():
    cases = replace(many(30), parts={"cnn": many(30).predicted_months})
    found = analyse_ages(cases, None)
    assert found["spread"] is None
    assert found["parts"][0]["mae_months"] == found["mae_months"]
    assert "Rank correlation" not in age_page(found, cases, {}, {}, "boneage evaluate")


def test_other_figures_do_not_depend_on_parts():
    cases = ensemble()
    found, bare = analyse_ages(cases, 120.0), analyse_ages(replace(cases, parts={}, spread_months=None), 120.0)
    assert {k: v for k, v in found.items() if k not in ("parts", "spread")} == {
        k: v for k, v in bare.items() if k not in ("parts", "spread")
    }


def test_spread_that_goes_with_the_error_has_correlation_one():
    true = [100.0] * 9
    cases = replace(predictions(true, [100 + k for k in range(9)]), spread_months=[k**2 / 10 for k in range(9)])
    found = spread_figures(cases)
    assert found["spearman_with_abs_error"] == pytest.approx(1)
    assert [third["n"] for third in found["thirds"]] == [3, 3, 3]
    assert [third["mae_months"] for third in found["thirds"]] == [1.0, 4.0, 7.0]
    assert [third["largest_spread_months"] for third in found["thirds"]] == pytest.approx([0.4, 2.5, 6.4])


def test_spearman_is_that_of_scipy_also_with_ties():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.integers(0, 8, 40).astype(float), rng.normal(size=40)
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


def test_spearman_of_equal_values_is_not_defined():
    assert spearman(np.ones(4), np.arange(4.0)) is None


def test_a_part_that_is_not_finite_is_an_error_that_names_it():
    cases = replace(many(3), parts={"trees": [1.0, float("nan"), 2.0]})
    with pytest.raises(BoneageError, match="1 of 3 predictions of trees are not finite"):
        analyse_ages(cases, None)
    with pytest.raises(ValueError, match="unequal length"):
        replace(many(3), parts={"trees": [1.0]})


def test_the_page_shows_the_parts_beside_the_whole_and_the_spread():
    cases = ensemble(400)
    found = analyse_ages(cases, 120.0)
    page = age_page(found, cases, {}, {}, "boneage evaluate")
    assert "<h2>The parts and the whole</h2>" in page
    for name, figures in (("all together", found), *((part["name"], part) for part in found["parts"])):
        assert name in page
        low, high = figures["mae_interval_months"]
        assert f"{figures['mae_months']:.2f}" in page
        assert f"{low:.2f} to {high:.2f}" in page
    assert f"(Spearman): {found['spread']['spearman_with_abs_error']:+.2f}" in page
    assert "largest third" in page


@pytest.mark.parametrize("n", [1, 2])
def test_very_few_cases_make_a_page(n):
    cases = ensemble(n)
    assert "all together" in age_page(analyse_ages(cases, None), cases, {}, {}, "boneage evaluate")
