"""Cells of tables and values of DICOM headers: sexes, ages, spacings; what is doubtful is unknown."""

from __future__ import annotations

import pytest

from boneage_ray.archives.cells import (
    parse_age,
    parse_ratio,
    parse_sex,
    parse_sexes,
    parse_spacing,
    parse_years,
    value_key,
)


@pytest.mark.parametrize("text", ["-1", "-0.1", "240.1", "300", "NaN", "inf", "-inf", "abc", "", None, "1e9"])
def test_unusable_ages(text):
    assert parse_age(text) is None


@pytest.mark.parametrize(("text", "months"), [("0", 0.0), ("240", 240.0), ("100.5", 100.5), ("1e2", 100.0)])
def test_usable_ages_are_months(text, months):
    assert parse_age(text) == months


@pytest.mark.parametrize(("text", "mm"), [("0.143", 0.143), ("0", None), ("-1", None), ("nan", None), (None, None)])
def test_spacing_is_positive_or_unknown(text, mm):
    assert parse_spacing(text) == mm


@pytest.mark.parametrize(
    ("text", "mm"), [("100", 0.1), ("0", None), ("-5", None), ("0.01", None), ("inf", None), ("", None)]
)
def test_ratios_are_plausible_or_unknown(text, mm):
    assert parse_ratio(text) == mm


@pytest.mark.parametrize(
    ("text", "months"), [("12.5", 150.0), ("0", 0.0), ("25", 300.0), ("150", None), ("-1", None), ("x", None)]
)
def test_years_become_months(text, months):
    assert parse_years(text) == months


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8,5", 8.5),
        ("100,25", 100.25),
        ("0,143", 0.143),
        (",5", 0.5),
        (" 12. ", 12.0),
        ("+7", 7.0),
        ("1,200", None),
        ("12,000", None),
        ("10_0", None),
        ("1,2,3", None),
        ("1.234,5", None),
        ("\u0661\u0662", None),
        ("0x10", None),
    ],
)
def test_numbers_are_plain_decimals(text, value):
    assert parse_age(text) == value
    assert parse_spacing(text) == (value if value is not None and value <= 10 else None)


@pytest.mark.parametrize(
    ("text", "value"), [("0.001", 0.001), ("10", 10.0), ("1e-9", None), ("10.5", None), ("0", None)]
)
def test_a_spacing_that_no_pixel_has_is_none(text, value):
    assert parse_spacing(text) == value


@pytest.mark.parametrize(
    ("text", "months"),
    [
        ("5Y3M", 63.0),
        ("5 y 3 m", 63.0),
        ("5 Jahre, 3 Monate", 63.0),
        ("5 ans 3 mois", 63.0),
        ("5 años 3 meses", 63.0),
        ("63 m", 63.0),
        ("063M", 63.0),
        ("005Y", 60.0),
        ("8,5 years", 102.0),
        ("52W", pytest.approx(11.96, abs=0.01)),
        ("012D", pytest.approx(0.39, abs=0.01)),
        ("5y 63m", None),
        ("3m 5y", None),
        ("5y 3", None),
        ("5/3", None),
        ("5 q", None),
        ("30Y", None),
        ("Y", None),
    ],
)
def test_ages_with_units_are_the_same_in_every_column(text, months):
    assert parse_age(text) == months
    assert parse_years(text) == months


@pytest.mark.parametrize(
    ("sex", "words"),
    [
        (
            "F",
            "F female w W. weiblich Frau Mädchen femme FÉMININ fille femenino mujer niña femmina donna feminino mulher",
        ),
        ("M", "M male männlich maennlich Junge homme masculin garçon masculino hombre varón maschio uomo homem menino"),
        (None, "1 0 2 9 U O d divers x ? M? F\\M m/f mf H V k"),
    ],
)
def test_words_for_the_sex_in_six_languages(sex, words):
    assert {word: parse_sex(word) for word in words.split()} == dict.fromkeys(words.split(), sex)


@pytest.mark.parametrize(
    ("kind", "cells", "values", "found"),
    [
        ("sex", "m w", {}, "M F"),
        ("sex", "1 0", {}, "- -"),
        ("sex", "1 2", {"1": "M", "2": "F"}, "M F"),
        ("sex", "1.0 2", {"1": "M", "2": "F"}, "M F"),
        ("male", "1 0 True no ja M", {}, "M F M F M M"),
        ("female", "1 0.0 false oui F", {}, "F M M F F"),
        # Spanish H and M are man and woman, French H and F too, Dutch M and V the other way round.
        ("sex", "H M", {}, "- -"),
        ("sex", "V M", {}, "- -"),
        ("sex", "H F", {"H": "M"}, "M F"),
        ("sex", "M F", {"m": "F"}, "F F"),
        ("sex", "M X", {"x": None}, "M -"),
    ],
)
def test_a_column_is_read_as_a_whole(kind, cells, values, found):
    values = {value_key(cell): sex for cell, sex in values.items()}
    assert list(parse_sexes(cells.split(), kind, values).values()) == [
        None if sex == "-" else sex for sex in found.split()
    ]
