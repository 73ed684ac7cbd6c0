"""How often intervals hold the true age: shares, their intervals, and what is said of few cases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up_predictions import predictions

from boneage_ray.tasks.age.findings.coverage import coverage_figures, coverage_section, too_narrow, wilson_interval


def with_bounds(count, inside, **more):
    """Girls and boys by turns, all 100 months old, of whom the first `inside` lie in an interval of 20 months."""
    found = predictions([100.0] * count, [100.0] * count)
    bounds = [(90.0, 110.0) if k < inside else (110.0, 130.0) for k in range(count)]
    return replace(found, **({"bounds": bounds, "level": 0.9} | more))


def test_the_interval_of_a_share_is_wilsons():
    # Newcombe, Two-sided confidence intervals for the single proportion, Statist. Med. 1998, table I: method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(29, 29) == pytest.approx((0.8830, 1.0), abs=5e-5)


def test_shares_by_sex_age_and_source():
    found = coverage_figures(with_bounds(40, 36, source=["north"] * 30 + ["south"] * 10))
    assert (found["level"], found["n"], found["covered"], found["mean_width_months"]) == (0.9, 40, 0.9, 20.0)
    assert [(row["name"], row["n"], row["covered"]) for row in found["by_sex"]] == [
        ("girls", 20, 0.9),
        ("boys", 20, 0.9),
    ]
    assert [(row["name"], row["covered"]) for row in found["by_source"]] == [("north", 1.0), ("south", 0.6)]
    assert [(row["name"], row["n"]) for row in found["by_age"]] == [("8-10 y", 40)]
    assert coverage_figures(with_bounds(40, 36, source=["north"] * 40))["by_source"] == []


def test_intervals_that_are_too_narrow_raise_a_caution():
    assert too_narrow(coverage_figures(with_bounds(100, 80))) == [
        "Only 80.0% of the true ages lie inside their intervals of coverage 90.0%: "
        "boneage calibrate fits intervals to cases like these."
    ]
    assert too_narrow(coverage_figures(with_bounds(100, 86))) == []
    assert too_narrow(coverage_figures(with_bounds(5, 0))) == too_narrow(None) == []


def test_few_cases_and_cases_without_interval_are_said():
    given = with_bounds(12, 12)
    found = coverage_figures(replace(given, bounds=[None, None, *given.bounds[2:]]))
    assert (found["n"], found["without_interval"], found["covered"]) == (10, 2, 1.0)
    assert found["by_sex"][0] == {"name": "girls", "n": 5, "covered": None, "interval": None, "mean_width_months": None}
    section = coverage_section(found, "boneage evaluate")
    assert "2 cases have no interval" in section.text[1]
    assert section.tables[1].rows[0] == ["girls", "5", "not enough cases (5 of 10)", "-", "-"]
    assert coverage_figures(predictions([100.0], [100.0])) is None
    nobody = coverage_figures(replace(given, bounds=[None] * 12))
    assert (nobody["n"], nobody["covered"], nobody["by_sex"]) == (0, None, [])
