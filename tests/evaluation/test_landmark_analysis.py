"""Figures of landmarks and stages by hand-made cases, the choice of the sheets, and the page."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from boneage_ray.anatomy.cephalometry import LANDMARKS
from boneage_ray.tasks.cephalogram.findings.analysis import (
    LandmarkPredictions,
    _calibration_error,
    analyse_landmarks,
    quadratic_kappa,
    sigma_reliability,
    stage_figures,
)
from boneage_ray.tasks.cephalogram.findings.figures import detection_curve, radial_histogram, sigma_figure
from boneage_ray.tasks.cephalogram.findings.overlay import Marked, landmark_png
from boneage_ray.tasks.cephalogram.findings.page import landmark_page
from boneage_ray.tasks.cephalogram.findings.sheets import chosen

K, NAN = len(LANDMARKS), float("nan")


def predictions(errors, spacings, stages=None, true_stages=None, chances=None, sigma=1.0):
    """errors: for each image {point: error in pixels along x}; what is not named has no label."""
    n = len(errors)
    points = np.full((n, K, 4), 100.0)
    points[..., 2] = sigma
    true = np.full((n, K, 2), NAN)
    for k, found in enumerate(errors):
        for point, error in found.items():
            true[k, point] = (100.0 - error, 100.0)
    none = [None] * n
    names = [f"r{k}" for k in range(n)]
    return LandmarkPredictions(
        names, points, true, np.array(spacings, float), stages or none, true_stages or none, chances or none
    )


# r0: 5 px are 2.5 mm, 1 px is 0.5 mm; r1: no spacing; r2: facial only; r3: 1 mm.
HAND = predictions([{0: 5.0, 1: 1.0}, {0: 10.0}, {13: 3.0}, {0: 1.0}], [0.5, NAN, 1.0, 1.0])


def test_means_are_over_images_and_an_unknown_spacing_counts_in_pixels_only():
    found = analyse_landmarks(HAND)
    vertebral, facial = found["sets"]["vertebral"], found["sets"]["facial"]
    assert found["n"] == 4
    assert (vertebral["n"], vertebral["points"], vertebral["with_spacing"]) == (3, 4, 2)
    assert vertebral["mre_px"] == pytest.approx((3 + 10 + 1) / 3)
    assert vertebral["mre_mm"] == pytest.approx((1.5 + 1.0) / 2)
    assert vertebral["mre_mm_interval"] == [1.0, 1.5]
    assert vertebral["sd_mm"] == pytest.approx(np.std([2.5, 0.5, 1.0]))
    assert vertebral["percentiles_mm"] == pytest.approx({"50": 1.0, "75": 1.75, "90": 2.2, "95": 2.35, "100": 2.5})
    assert (facial["n"], facial["mre_mm"], facial["mre_mm_interval"]) == (1, 3.0, None)
    json.dumps(found, allow_nan=False)


def test_the_detection_rate_is_a_mean_over_images_and_its_limit_is_within():
    rates = analyse_landmarks(HAND)["sets"]["vertebral"]["sdr"]
    assert list(rates) == ["2", "2.5", "3", "4"]
    assert [rate["share"] for rate in rates.values()] == [0.75, 1.0, 1.0, 1.0]
    assert rates["2"]["interval"] == [0.5, 1.0]
    assert rates["2.5"]["interval"] == [1.0, 1.0]


def test_each_landmark_and_each_image_has_its_line():
    found = analyse_landmarks(HAND)["sets"]["vertebral"]
    first, second, third, *_ = found["landmarks"]
    assert first == {"name": LANDMARKS[0], "n": 2, "mre_mm": 1.75, "sd_mm": 0.75, "sdr_2": 0.5}
    assert (second["n"], second["mre_mm"], second["sd_mm"]) == (1, 0.5, 0.0)
    assert third == {"name": LANDMARKS[2], "n": 0, "mre_mm": None, "sd_mm": None, "sdr_2": None}
    assert len(found["landmarks"]) == 13
    assert found["images"] == [
        {"record_id": "r0", "mre_mm": 1.5, "worst_mm": 2.5},
        {"record_id": "r3", "mre_mm": 1.0, "worst_mm": 1.0},
    ]


def test_one_set_alone_is_the_only_one_that_is_told():
    assert list(analyse_landmarks(predictions([{14: 1.0}], [1.0]))["sets"]) == ["facial"]


def test_without_any_spacing_errors_are_pixels():
    found = analyse_landmarks(predictions([{0: 2.0}, {0: 4.0}], [NAN, NAN]))["sets"]["vertebral"]
    assert [image["mre_px"] for image in found.pop("images")] == [4.0, 2.0]
    assert found == {"n": 2, "points": 2, "mre_px": 3.0}


def test_points_that_are_found_nowhere_are_counted_and_not_detected():
    given = predictions([{0: 1.0, 1: 1.0}, {0: 1.0}], [1.0, 1.0])
    given.points_NK4[0, 1] = (NAN, NAN, NAN, 0.0)  # a map without a peak
    given.points_NK4[0, 2] = (NAN, NAN, NAN, 0.0)  # the same, but nobody has said where it is
    found = analyse_landmarks(given)
    assert found["missed_points"] == {"vertebral": 1, "facial": 0}
    vertebral = found["sets"]["vertebral"]
    assert (vertebral["mre_mm"], vertebral["points"]) == (1.0, 2)
    assert vertebral["sdr"]["2"]["share"] == 0.75


def test_nothing_labelled_has_no_figures():
    assert analyse_landmarks(predictions([{}, {}], [1.0, 1.0])) == {
        "n": 2,
        "missed_points": {"vertebral": 0, "facial": 0},
        "sets": {},
        "sigma": None,
        "stage": None,
    }


@pytest.mark.parametrize(("told", "coverage", "ratio"), [(1.0, 0.95, 1.0), (0.5, 0.527, 2.0), (2.0, 1.0, 0.5)])
def test_sigma_is_judged_against_rayleigh_errors(told, coverage, ratio):
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.5, 4.0, (900, K))
    points = np.stack([*np.zeros((2, 900, K)), told * sigma, np.ones((900, K))], -1)
    true = rng.normal(0, 1, (900, K, 2)) * sigma[..., None]
    none = [None] * 900
    found = sigma_reliability(LandmarkPredictions(none, points, true, np.ones(900), none, none, none))
    assert found["n"] == 900 * K
    assert found["coverage_95"] == pytest.approx(coverage, abs=0.01)
    assert [part["n"] for part in found["bins"]] == [3600] * 8
    expected = [part["expected_px"] for part in found["bins"]]
    assert expected == sorted(expected)
    assert [part["true_px"] / part["expected_px"] for part in found["bins"]] == pytest.approx([ratio] * 8, rel=0.06)


STAGED = predictions(
    [{}] * 7,
    [1.0] * 7,
    ["CS1", "CS3", "CS4", "CS6", None, "CS2", "undefined"],
    ["CS1", "CS3", "CS3", "CS3", "CS2", None, "CS2"],
    [{"CS1": 0.9, "CS2": 0.1}, {"CS3": 0.7, "CS4": 0.3}, None, None, None, None, None],
)


def test_stages_agree_where_both_are_known():
    found = stage_figures(STAGED, np.random.default_rng(0))
    assert (found["n"], found["missed"], found["accuracy"], found["adjacent"]) == (4, 2, 0.5, 0.75)
    # Weights (i - j)^2: 10 observed, 80 / 4 expected by chance.
    assert found["weighted_kappa"] == pytest.approx(0.5)
    counts = np.zeros((6, 6), int)
    counts[0, 0] = counts[2, 2] = counts[2, 3] = counts[2, 5] = 1
    assert found["confusion"] == counts.tolist()
    assert found["calibration_error"] == pytest.approx((0.1 + 0.3) / 2)
    assert found["accuracy_interval"] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("true", "given", "kappa"),
    [
        ([0, 1, 2, 5], [0, 1, 2, 5], 1.0),
        ([0, 5], [5, 0], -1.0),
        ([0, 0], [1, 1], 0.0),
        ([3, 3], [3, 3], None),
    ],
)
def test_quadratic_kappa(true, given, kappa):
    assert quadratic_kappa(true, given) == (None if kappa is None else pytest.approx(kappa))


def test_calibration_error_weighs_the_bins_by_their_number():
    right, wrong = {"CS1": 0.8, "CS2": 0.2}, {"CS1": 0.2, "CS2": 0.8}
    cases = [(right, 0)] * 3 + [(wrong, 0)] + [({"CS4": 0.55, "CS5": 0.45}, 3)]
    assert _calibration_error(cases) == pytest.approx((4 * 0.05 + 0.45) / 5)
    assert _calibration_error([({"CS6": 1.0}, 5)]) == 0.0
    assert _calibration_error([]) is None


@pytest.mark.parametrize(
    ("count", "worst", "middle", "best"),
    [
        (0, [], [], []),
        (1, [0], [], []),
        (2, [0], [], [1]),
        (3, [0], [1], [2]),
        (10, [0, 1], [3, 4, 5, 6], [8, 9]),
        (50, [0, 1, 2, 3], [23, 24, 25, 26], [46, 47, 48, 49]),
    ],
)
def test_sheets_show_the_worst_the_middle_and_the_best(count, worst, middle, best):
    found = chosen([{"k": k} for k in range(count)])
    assert {title: [image["k"] for image in group] for title, group in found.items()} == {
        "Worst quarter": worst,
        "Middle half": middle,
        "Best quarter": best,
    }


def page_of(given, sheets=None):
    return landmark_page(analyse_landmarks(given), given, sheets or {}, {"Model": "m"}, "boneage evaluate")


def status_of(page):
    return re.search(r'<div class="status (\w+)".*?<strong>(.*?)</strong>', page, re.DOTALL).groups()


def test_the_page_tells_errors_landmarks_sigma_and_cautions():
    page = page_of(HAND)
    assert status_of(page) == ("caution", "Evaluated, with cautions")
    assert "The facial points err by 3.00 mm in the mean" in page
    assert "The vertebral points err" not in page
    assert "There are few images (4)" in page
    assert "1.25 mm" in page
    assert "95 % interval 1.00 to 1.50" in page
    assert "one image" in page
    for title in ("Each vertebral landmark", "Each facial landmark", "How true sigma is", "What this does not show"):
        assert title in page
    assert "Cervical stage" not in page
    assert page.count("<svg") == 3
    assert '<td class="text">C2 inferior posterior</td>' in page


def test_the_page_of_good_points_is_good():
    given = predictions([dict.fromkeys(range(K), 0.5)] * 50, [1.0] * 50)
    assert status_of(page_of(given)) == ("good", "Evaluated, no caution raised")


def test_the_page_without_spacing_speaks_of_pixels():
    page = page_of(predictions([{0: 2.0}, {0: 4.0}], [NAN, NAN]))
    assert "errors are known in pixels only" in page
    assert "3.00 px" in page
    assert " mm</" not in page


def test_the_page_with_nothing_to_compare_says_so():
    page = page_of(predictions([{}], [1.0]))
    assert "No image has both a given and a predicted point" in page
    assert "pixel spacing" not in page


def test_the_page_shows_stages_and_those_that_were_missed():
    page = page_of(STAGED)
    assert "weighted kappa 0.500" in page
    assert "2 more have a stage by the given points only." in page
    alike = predictions([{}], [1.0], ["CS3"], ["CS3"])
    assert "weighted kappa -" in page_of(alike)


def test_the_page_holds_the_sheets_and_escapes_their_captions():
    picture = landmark_png(np.full((40, 30), 90, np.uint8), Marked(np.full((K, 3), NAN)), side=40)
    page = page_of(HAND, {"Worst quarter, facial points": [(picture, "<b>: 1 mm")], "Best quarter": []})
    assert page.count("data:image/png;base64") == 1
    assert "&lt;b&gt;: 1 mm" in page
    assert "Worst quarter, facial points" in page
    assert "Best quarter" not in page


def test_figures_are_svg_with_what_they_show():
    radial, curve = radial_histogram(HAND).decode(), detection_curve(HAND).decode()
    for text in ("vertebral (3)", "facial (1)", "radial error (mm)"):
        assert text in radial
    for text in ("points within it (%)", "vertebral", "facial"):
        assert text in curve
    sigma = sigma_figure({"bins": [{"n": 5, "expected_px": 0.0, "true_px": 0.0}]}).decode()
    assert "1 bins of 5 points" in sigma


def test_an_error_beyond_the_figure_is_in_its_last_bar():
    far = predictions([{0: 500.0, 1: 1.0}], [1.0])
    assert "vertebral (2)" in radial_histogram(far).decode()
    assert "vertebral" in detection_curve(far).decode()
