"""Signs of age and sex: monotone signs, girls ahead of boys, textbook order of the carpals."""

from __future__ import annotations

from itertools import pairwise

import pytest

from boneage_ray.errors import UsageError
from boneage_ray.phantoms.maturity import (
    PLATES,
    bone_density,
    carpal_fill,
    cortex_fraction,
    growth_fraction,
    plate,
    skeletal_years,
)

MONTHS = range(0, 241, 6)


@pytest.mark.parametrize("sex", ["F", "M"])
@pytest.mark.parametrize("sign", [growth_fraction, bone_density, cortex_fraction])
def test_signs_never_go_back_with_age(sign, sex):
    values = [sign(age, sex) for age in MONTHS]
    assert values == sorted(values)
    assert values[-1] > 1.5 * values[0]


@pytest.mark.parametrize("sex", ["F", "M"])
def test_carpals_appear_one_by_one_and_never_vanish(sex):
    counts = [len(carpal_fill(age, sex)) for age in range(241)]
    assert counts == sorted(counts)
    assert counts[0] == 0 and counts[-1] == 9
    assert set(counts) == set(range(10)), "two centres appear in the same month"


@pytest.mark.parametrize(
    ("age", "sex", "count"),
    [(6, "M", 2), (36, "M", 3), (54, "M", 4), (84, "M", 7), (138, "M", 8), (168, "M", 9)],
)
def test_number_of_carpals_at_an_age(age, sex, count):
    assert len(carpal_fill(age, sex)) == count


def test_order_of_the_carpals():
    assert list(carpal_fill(240, "M")) == [
        "capitate",
        "hamate",
        "triquetrum",
        "lunate",
        "scaphoid",
        "trapezium",
        "trapezoid",
        "pisiform",
        "sesamoid",
    ]


@pytest.mark.parametrize("name", PLATES)
def test_plates_narrow_and_close(name):
    first, fused = PLATES[name]
    gaps = [plate(name, 12 * first + month, "M").gap_mm for month in range(0, int(12 * (fused - first)))]
    assert all(later < earlier for earlier, later in pairwise(gaps))
    assert plate(name, 12 * fused + 0.1, "M").gap_mm == 0
    assert plate(name, 12 * fused + 0.1, "M").scar > 0.9
    assert plate(name, 12 * first - 0.1, "M").present == 0


@pytest.mark.parametrize("name", PLATES)
def test_girls_fuse_about_two_years_before_boys(name):
    def fused_at(sex):
        return next(age for age in range(241) if plate(name, age, sex).gap_mm == 0)

    assert 24 <= fused_at("M") - fused_at("F") <= 36


def test_girls_show_more_carpals_at_the_same_age():
    assert [len(carpal_fill(age, "F")) for age in (56, 60, 120, 140)] == [5, 7, 8, 9]
    assert [len(carpal_fill(age, "M")) for age in (56, 60, 120, 140)] == [4, 4, 7, 8]


@pytest.mark.parametrize("age", [-1, 241])
def test_ages_outside_the_range_are_refused(age):
    with pytest.raises(UsageError, match="0 to 240 months"):
        skeletal_years(age, "M")
