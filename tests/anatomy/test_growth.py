"""Sex, months and years, stage boundaries."""

from __future__ import annotations

import doctest

import pytest

from boneage_ray.anatomy import cephalometry, growth
from boneage_ray.anatomy.growth import SCHEMES, stage_of, years_and_months


def test_the_examples_in_the_docstring_hold():
    assert doctest.testmod(growth) == doctest.TestResults(0, 3)


@pytest.mark.parametrize(
    ("months", "three"),
    [
        (0, "child"),
        (143.999, "child"),
        (144, "adolescent"),
        (216, "adolescent"),
        (216.001, "adult"),
        (300, "adult"),
    ],
)
def test_three_stages_begin_at_12_years_and_end_after_18(months, three):
    assert stage_of(months, "three") == three


@pytest.mark.parametrize(
    ("months", "four"),
    [
        (0, "infant"),
        (59.999, "infant"),
        (60, "child"),
        (119.999, "child"),
        (120, "pre-adolescent"),
        (179.999, "pre-adolescent"),
        (180, "adolescent"),
        (228, "adolescent"),
    ],
)
def test_four_stages_change_at_5_10_and_15_years(months, four):
    assert stage_of(months, "four") == four


def test_class_index_and_name_agree():
    for scheme in SCHEMES.values():
        assert [scheme.classes[scheme.index(age)] for age in range(0, 240)] == [
            stage_of(age, scheme.name) for age in range(0, 240)
        ]


@pytest.mark.parametrize(
    ("months", "said"), [(99.4, "8 y 3 m"), (99.6, "8 y 4 m"), (0, "0 y 0 m"), (11.7, "1 y 0 m"), (228, "19 y 0 m")]
)
def test_months_are_printed_as_years_and_months(months, said):
    assert years_and_months(months) == said


def test_landmarks_have_distinct_names_in_the_order_of_their_sets():
    assert (len(set(cephalometry.VERTEBRAL)), len(set(cephalometry.FACIAL))) == (13, 19)
    assert (cephalometry.FACIAL[0], cephalometry.FACIAL[7], cephalometry.FACIAL[18]) == (
        "sella",
        "menton",
        "articulare",
    )
    bodies = [name.split("_")[0] for name in cephalometry.VERTEBRAL]
    assert bodies == ["C2"] * 3 + ["C3"] * 5 + ["C4"] * 5
