"""Figures are small SVG with real text; what they draw is counted in the SVG itself."""

import re
from xml.etree import ElementTree

import matplotlib
import pytest
from made_up_predictions import many, predictions

from boneage_ray.evaluation import figures
from boneage_ray.tasks.age.findings import figures as age_figures
from boneage_ray.tasks.age.findings.analysis import analyse_ages

CASES = many(60)
ANALYSIS = analyse_ages(CASES, 120.0)
HISTORY = [
    {"epoch": 1, "train_loss": 3.0, "val_loss": 3.5, "val_mae_months": 20.0},
    {"epoch": 2, "train_loss": 2.0, "val_loss": None, "val_mae_months": 11.5},
    {"epoch": 3, "train_loss": 1.0, "val_loss": 2.5, "val_mae_months": None},
]
ALL = {
    "scatter": lambda: age_figures.scatter(CASES),
    "residuals": lambda: age_figures.residuals(CASES, ANALYSIS),
    "errors": lambda: age_figures.error_histogram(CASES),
    "by-age": lambda: age_figures.errors_by_age(CASES),
    "confusion-three": lambda: figures.confusion_matrix(["a", "b"], [[3, 1], [0, 0]], 0.75, "three"),
    "ages": lambda: figures.age_histogram({"4-6 y": 3, "8-10 y": 12}),
    "learning": lambda: figures.learning_curve(HISTORY),
}


def texts(svg):
    """What a reader can read, in the order of drawing."""
    return [
        "".join(node.itertext()).strip() for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("}text")
    ]


@pytest.mark.parametrize("name", ALL)
def test_every_figure_is_small_svg_with_real_text_and_ids_of_its_own(name):
    svg = ALL[name]()
    assert svg.startswith(b"<svg")
    assert len(svg) < 100_000
    assert len(texts(svg)) >= 4
    ids = re.findall(rb'\bid="([^"]*)"', svg)
    assert ids
    assert all(i.startswith(name.encode() + b"-") for i in ids)
    used = set(re.findall(rb'url\(#([^)]*)\)|href="#([^"]*)"', svg))
    assert {a or b for a, b in used} <= set(ids)


@pytest.mark.parametrize("name", ALL)
def test_the_same_figure_is_the_same_bytes(name):
    assert ALL[name]() == ALL[name]()


def test_settings_of_the_process_are_left_alone():
    before = dict(matplotlib.rcParams)
    age_figures.scatter(CASES)
    assert dict(matplotlib.rcParams) == before


def test_scatter_names_the_sexes_that_occur():
    found = texts(age_figures.scatter(CASES))
    assert {"girls", "boys", "sex unknown", "predicted = true", "±12 months"} <= set(found)
    assert "sex unknown" not in texts(age_figures.scatter(predictions([100.0, 120.0], [101.0, 119.0])))


def test_every_case_is_a_mark_and_very_many_become_one_png():
    few, very_many = age_figures.scatter(CASES), age_figures.scatter(many(2001))
    for colour in (figures.ORANGE, figures.BLUE, figures.GREY):
        assert colour.lower().encode() in few
    points = re.findall(rb"<use [^>]*fill-opacity: 0.6", few)
    assert len(points) == 60
    assert b"data:image/png;base64" not in few
    assert b"data:image/png;base64" in very_many
    assert len(very_many) < 300_000


def test_residuals_say_the_mean_and_the_limits_of_agreement():
    low, high = ANALYSIS["limits_of_agreement_months"]
    found = texts(age_figures.residuals(CASES, ANALYSIS))
    assert f"mean {ANALYSIS['bias_months']:+.1f} months" in found
    assert f"95 % limits {low:+.1f} to {high:+.1f}" in found


def test_confusion_matrix_has_counts_shares_of_the_row_and_the_kappa():
    found = texts(ALL["confusion-three"]())
    assert "Quadratic weighted kappa 0.750" in found
    joined = " ".join(found)
    assert all(text in joined for text in ("3", "75%", "1", "25%"))
    assert found.count("-") == 2  # the second class never occurs
    undefined = figures.confusion_matrix(["a", "b"], [[3, 0], [0, 0]], None, "x")
    assert "Quadratic weighted kappa not defined" in texts(undefined)


def test_age_boxes_say_how_many_cases_they_hold():
    found = " ".join(texts(age_figures.errors_by_age(predictions([30.0, 40.0, 100.0], [30.0, 41.0, 99.0]))))
    assert "2-4" in found
    assert "n=2" in found
    assert "8-10" in found
    assert "n=1" in found


def test_age_histogram_shows_the_empty_bin_between():
    found = texts(ALL["ages"]())
    assert [text for text in found if text in ("2-4", "4-6", "6-8", "8-10", "10-12")] == ["4-6", "6-8", "8-10"]
    assert {"3", "0", "12"} <= set(found)


def test_age_histogram_of_nothing_is_an_empty_figure():
    assert figures.age_histogram({}).startswith(b"<svg")


def test_learning_curve_marks_the_best_epoch_and_bears_gaps():
    assert "best: 11.5 months, epoch 2" in texts(ALL["learning"]())
    assert figures.learning_curve([{"epoch": 1}]).startswith(b"<svg")


@pytest.mark.parametrize("predicted", [[100.0], [-30.0], [1e7]])
def test_figures_bear_a_single_case_and_a_wild_prediction(predicted):
    case = predictions([100.0], predicted)
    found = analyse_ages(case, None)
    for svg in (
        age_figures.scatter(case),
        age_figures.residuals(case, found),
        age_figures.error_histogram(case),
        age_figures.errors_by_age(case),
    ):
        assert len(svg) < 100_000
