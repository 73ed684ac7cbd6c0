"""Vertebral points to cervical stages: the published truth cases, the table, and points that are no vertebrae."""

from __future__ import annotations

import doctest
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from boneage_ray.anatomy import cvm
from boneage_ray.anatomy.cvm import (
    STAGES,
    CvmConfig,
    MeasurementError,
    SpacingError,
    assess,
    assess_all,
    measure,
    probabilities,
    stage,
)
from boneage_ray.archives.labelme import read_labelme
from boneage_ray.phantoms.spine_shape import build_spine

CVMT = CvmConfig(compat="cvmt")
WIDTH = 140.0  # 14 mm at 0.1 mm per pixel: an adult's
SIZES = {
    "T": (1.0, 0.8),
    "RH": (1.25, 1.0),
    "S": (1.0, 1.0),
    "RV": (0.85, 1.0),
}  # width/posterior height, anterior/posterior
REAL = Path(os.environ.get("BONEAGE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "cephalograms"


def spine(c3, c4, concave=(True, True, True), deep=16.0, flat=2.0):
    """Points (13, 2) of a right-facing spine with bodies of these shapes; depths in pixels."""
    depths = [deep if hollow else flat for hollow in concave]
    points = [(0, 0), (WIDTH / 2, -depths[0]), (WIDTH, 0)]
    top = 45.0
    for shape, depth in zip((c3, c4), depths[1:], strict=True):
        wide, ratio = SIZES[shape]
        posterior = WIDTH / wide
        low = top + posterior
        points += [(0, top), (0, low), (WIDTH / 2, low - depth), (WIDTH, low), (WIDTH, low - posterior * ratio)]
        top = low + 45
    return np.array(points) + np.array([700.0, 900.0])


def turned(points, degrees):
    a = np.deg2rad(degrees)
    return (points - 900) @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) + 900


def mirrored(points):
    return points * np.array([-1.0, 1.0]) + np.array([1935.0, 0.0])


def test_the_example_in_the_docstring_holds():
    assert doctest.testmod(cvm) == doctest.TestResults(0, 5)


# --- the published truth cases -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("c3", "c4", "ours", "theirs"), [("S", "RH", "CS5", "CS4"), ("RV", "RH", "CS6", "CS4"), ("RV", "S", "CS6", "CS5")]
)
@pytest.mark.parametrize("spacing", [0.1, None])
@pytest.mark.parametrize("facing", [lambda points: points, mirrored])
def test_truth_cases(c3, c4, ours, theirs, spacing, facing):
    points = facing(spine(c3, c4))
    assert stage(points, spacing).stage == ours
    assert stage(points, spacing, CVMT).stage == theirs


def test_the_callers_array_is_never_changed():
    points = mirrored(spine("S", "RH"))
    before = points.copy()
    stage(points, 0.1), assess(points, 4.0, 0.1), measure(points, 0.1)
    assess_all(points[None], np.full((1, 13), 4.0), [0.1])
    assert np.array_equal(points, before)
    points.setflags(write=False)
    assert stage(points, 0.1).stage == "CS5"


# --- the table ---------------------------------------------------------------------------------------------------------

TABLE = [
    ((False, False, False), [("T", "T")], "CS1"),
    ((True, False, False), [("T", "T")], "CS2"),
    ((True, True, False), [("T", "T"), ("T", "RH")], "CS3"),
    ((True, True, True), [("RH", "RH")], "CS4"),
    ((True, True, True), [("S", "S"), ("S", "RH"), ("RH", "S")], "CS5"),
    ((True, True, True), [("RV", "RV"), ("RV", "RH"), ("RH", "RV")], "CS6"),
]


@pytest.mark.parametrize(("concave", "pairs", "name"), TABLE)
def test_every_row_of_the_table(concave, pairs, name):
    for (c3, c4), spacing in itertools.product(pairs, (0.1, None)):
        found = stage(spine(c3, c4, concave), spacing)
        assert (found.stage, found.typical) == (name, True)


def test_every_case_gets_a_stage_and_only_those_of_the_table_are_typical():
    cases = {(concave, pair) for concave, pairs, _ in TABLE for pair in pairs}
    for concave in itertools.product((False, True), repeat=3):
        for pair in itertools.product(SIZES, repeat=2):
            found = stage(spine(*pair, concave), 0.1, CvmConfig(cascade=False))
            as_used = pair
            if all(concave):  # tapered bodies are classified by width and height: these are horizontal
                as_used = tuple("RH" if shape == "T" else shape for shape in pair)
            assert found.stage in STAGES
            assert found.typical == ((concave, as_used) in cases), (concave, pair)


@pytest.mark.parametrize(
    ("concave", "plain", "cascaded"),
    [((0, 1, 0), "CS2", "CS3"), ((0, 0, 1), "CS2", "CS4"), ((0, 1, 1), "CS3", "CS4"), ((1, 0, 1), "CS3", "CS4")],
)
def test_a_skipped_border_is_atypical_unless_the_cascade_corrects_it(concave, plain, cascaded):
    points = spine("RH", "RH", concave)
    found = stage(points, 0.1, CvmConfig(cascade=False))
    assert (found.stage, found.typical, "cvm_cascaded" in found.flags) == (plain, False, False)
    found = stage(points, 0.1)
    assert (found.stage, "cvm_cascaded" in found.flags) == (cascaded, True)
    assert any("cascade" in step.name for step in found.trace)


def test_the_cascade_is_not_flagged_where_it_changes_nothing():
    assert stage(spine("RH", "RH"), 0.1).flags == ()


def test_tapered_bodies_with_all_borders_concave_can_be_left_trapezoids():
    low = spine("S", "S")
    low[[7, 12], 1] += 40  # anterior height 100 of 140: width over it is 1.4, over the posterior height 1.0
    kept = CvmConfig(height="posterior", tapered="trapezoid")
    found = stage(low, 0.1, kept)
    assert (found.stage, found.typical) == ("CS4", False)
    assert stage(low, 0.1, CvmConfig(height="posterior")).stage == "CS5"
    assert stage(low, 0.1).stage == "CS4"


def test_cvmt_checks_shapes_up_to_cs3_and_is_undefined_for_others():
    flat = (False, False, False)
    assert stage(spine("T", "T", flat), 0.1, CVMT).stage == "CS1"
    assert stage(spine("T", "RH", (True, True, False)), 0.1, CVMT).stage == "CS3"
    other = stage(spine("RH", "RH", flat), 0.1, CVMT)
    assert (other.stage, other.typical) == ("undefined", False)
    assert str(other.trace[-1]).endswith("undefined")
    narrow = spine("RH", "RH", flat)
    narrow[[7, 12], 0] -= 12  # superior/inferior width 0.91: a trapezoid to cvmt, not here
    assert stage(narrow, 0.1, CVMT).stage == "CS1"
    assert not stage(narrow, 0.1).typical


# --- measurements ------------------------------------------------------------------------------------------------------


def test_measurements_have_units_and_known_values():
    found = stage(spine("T", "RH", (True, False, False)), 0.1).measurements
    assert found["C2_depth_mm"] == pytest.approx(1.6)
    assert found["C3_depth_ratio"] == pytest.approx(2 / 140)
    assert found["C3_posterior_height_mm"] == pytest.approx(14.0)
    assert found["C3_anterior_to_posterior"] == pytest.approx(0.8)
    assert found["C4_width_to_height"] == pytest.approx(1.25)
    assert found["C4_superior_to_inferior"] == pytest.approx(1.0)
    free = stage(spine("T", "RH", (True, False, False))).measurements
    assert free["C2_depth_px"] == pytest.approx(16.0)
    assert not any(name.endswith("_mm") for name in free)


def test_depth_is_positive_towards_the_body():
    bulging = spine("T", "T", (False,) * 3, flat=-5.0)
    assert stage(bulging, 0.1).measurements["C3_depth_mm"] == pytest.approx(-0.5)


def test_pixels_per_millimetre_are_not_rounded():
    points = spine("RH", "RH", deep=16.0)
    assert stage(points, 1.01 / 16).stage == "CS4"
    assert stage(points, 0.99 / 16).stage == "CS1"


def test_thresholds_belong_to_the_concave_and_to_the_square():
    at_limit = spine("S", "S", deep=10.0)
    assert stage(at_limit, 0.1).stage == "CS5"  # 1.0 mm is concave
    assert stage(at_limit * 2, 0.0499).stage == "CS1"
    ends = CvmConfig(square_low=1.0, square_high=1.0)
    assert stage(spine("S", "S"), 0.1, ends).stage == "CS5"


def test_concavity_by_ratio_can_be_asked_for_although_the_spacing_is_known():
    shallow = spine("RH", "RH", deep=9.9)  # 7.07 % of the chord, 0.99 mm
    assert stage(shallow, 0.1).stage == "CS1"
    asked = stage(shallow, 0.1, CvmConfig(concavity="ratio"))
    assert (asked.stage, asked.flags) == ("CS4", ("cvm_scale_free",))
    assert "C2_depth_mm" in asked.measurements


@pytest.mark.parametrize("width", ["inferior", "superior", "mean", "midline"])
@pytest.mark.parametrize("height", ["anterior", "posterior", "mean", "midline"])
def test_ways_of_taking_width_and_height(width, height):
    points = spine("T", "T")
    points[7, 0] -= 20  # C3's upper anterior corner: the upper border is 120 across and 28 down
    widths, heights = {"inferior": 140.0, "superior": np.hypot(120, 28)}, {"posterior": 140.0}
    heights["anterior"] = np.hypot(20, 112)
    widths |= {"mean": (widths["inferior"] + widths["superior"]) / 2, "midline": np.hypot(130, 14)}
    heights |= {"mean": (heights["anterior"] + heights["posterior"]) / 2, "midline": np.hypot(10, 126)}
    found = stage(points, 0.1, CvmConfig(width=width, height=height)).measurements["C3_width_to_height"]
    assert found == pytest.approx(widths[width] / heights[height])


def test_tilted_and_mirrored_heads_measure_the_same():
    rng = np.random.default_rng(5)
    for name in range(1, 7):
        points = build_spine(rng, name, np.zeros(2)).points * 10 + 900
        given = stage(points, 0.1)
        for degrees in rng.uniform(-60, 60, 8):
            for facing in (lambda p: p, mirrored):
                found = stage(turned(facing(points), degrees), 0.1)
                assert found.stage == given.stage == f"CS{name}"
                assert found.measurements == pytest.approx(given.measurements)
                assert ("cvm_left_facing" in found.flags) == (facing is mirrored)


def test_phantoms_of_every_stage_are_recognised_with_and_without_millimetres():
    points, truth = [], []
    for seed, name in itertools.product(range(60), range(1, 7)):
        points.append(build_spine(np.random.default_rng(seed), name, np.zeros(2)).points / 0.1 + 900)
        truth.append(f"CS{name}")
    sigma = np.full((len(points), 13), 0.5)
    for spacing in (0.1, None):
        found = assess_all(np.array(points), sigma, [spacing] * len(points), samples=8)
        assert [result.cvm_stage for result in found] == truth
        assert all(result.cvm_typical for result in found)


# --- implausible points ------------------------------------------------------------------------------------------------


def broken(change):
    points = spine("RH", "RH")
    change(points)
    return points


def swap(a, b):
    def change(points):
        points[[a, b]] = points[[b, a]]

    return change


def put(index, value):
    def change(points):
        points[index] = value

    return change


BROKEN = {
    "nan": (put((5, 0), np.nan), "numbers on an image"),
    "infinite": (put((5, 0), np.inf), "numbers on an image"),
    "huge": (put((5, 0), 1e300), "numbers on an image"),
    "all one point": (put(slice(None), 3.0), "below the one before"),
    "no side": (lambda p: p.__setitem__(3, p[4]), "shorter than a tenth"),
    "C3's front and back swapped": (lambda p: p.__setitem__(slice(3, 8), p[[7, 6, 5, 4, 3]]), "below the one before"),
    "crossing sides": (swap(4, 6), "below the one before|crossing"),
    "a hollow corner": (put(7, (730.0, 1030.0)), "crossing|shorter|below the one before"),
    "C4 above C3": (
        lambda p: p.__setitem__(slice(3, 13), p[[8, 9, 10, 11, 12, 3, 4, 5, 6, 7]]),
        "below the one before",
    ),
    "middle beside the border": (lambda p: p.__setitem__((5, 0), 900.0), "middle is between"),
    "middle above the upper border": (lambda p: p.__setitem__((5, 1), 900.0), "middle is between|keeps clear"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_points_that_are_no_vertebrae_are_refused_with_the_failed_check(case):
    change, message = BROKEN[case]
    points = broken(change)
    with pytest.raises(MeasurementError, match=message):
        stage(points, 0.1)
    with pytest.raises(MeasurementError, match=message):
        assess(points, 4.0, 0.1)
    good, bad = assess_all(np.array([spine("S", "S"), points]), np.full((2, 13), 4.0), [0.1, 0.1])
    assert (good.cvm_stage, good.problem) == ("CS5", None)
    assert bad.problem is not None
    assert set(bad.columns().values()) == {None}


@pytest.mark.parametrize("spacing", [0, 0.0, -0.1, np.nan, np.inf])
def test_an_invalid_spacing_is_refused(spacing):
    with pytest.raises(SpacingError, match="pixel spacing is a positive number"):
        stage(spine("S", "S"), spacing)
    two = np.array([spine("S", "S")] * 2)
    assert measure(two, [0.1, spacing]).usable.tolist() == [True, False]


def test_millimetres_cannot_be_asked_for_without_a_spacing():
    config = CvmConfig(concavity="mm")
    assert stage(spine("S", "S"), 0.1, config).stage == "CS5"
    with pytest.raises(SpacingError, match="give a pixel spacing"):
        stage(spine("S", "S"), None, config)
    (result,) = assess_all(spine("S", "S")[None], np.full((1, 13), 1.0), [None], config)
    assert "give a pixel spacing" in (result.problem or "")


@pytest.mark.parametrize("shape", [(12, 2), (13, 3), (13,), (2, 13, 2)])
def test_other_numbers_of_points_are_refused(shape):
    with pytest.raises(MeasurementError, match="needed"):
        stage(np.zeros(shape), 0.1)


def test_a_square_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValidationError, match="must not be above"):
        CvmConfig(square_low=1.1)


# --- probabilities and rows --------------------------------------------------------------------------------------------


def test_probabilities_sum_to_one_and_repeat_themselves():
    points = spine("S", "RH")
    given = probabilities(points, 5.0, 0.1)
    assert list(given) == list(STAGES)
    assert sum(given.values()) == pytest.approx(1)
    assert probabilities(points, 5.0, 0.1) == given
    assert probabilities(points, 5.0, 0.1, seed=1) != given
    assert 0.3 < given["CS5"] < 1


def test_sharp_points_leave_no_doubt_and_one_at_the_limit_leaves_half():
    assert probabilities(spine("S", "RH"), 0.0, 0.1)["CS5"] == 1
    at_limit = spine("T", "T", (True, False, False), deep=10.0)
    only = np.where(np.arange(13) == 1, 1.0, 0.0)  # the middle of C2's border alone is unsure
    found = probabilities(at_limit, only, 0.1, samples=4096)
    assert found["CS1"] == pytest.approx(0.5, abs=0.03)
    assert found["CS1"] + found["CS2"] == pytest.approx(1)


def test_a_head_gets_the_same_result_alone_and_among_others():
    points = np.array([spine("S", "RH"), mirrored(spine("T", "T", (True, False, False))), spine("RV", "S")])
    sigma = np.full((3, 13), 4.0)
    many = assess_all(np.tile(points, (40, 1, 1)), np.tile(sigma, (40, 1)), [0.1, None, 0.08] * 40)
    for k, spacing in enumerate((0.1, None, 0.08)):
        assert assess(points[k], sigma[k], spacing) == many[k] == many[117 + k]
    assert assess_all(points[:0], sigma[:0], []) == []


def test_points_lost_in_noise_have_a_stage_but_no_probabilities():
    result = assess(spine("S", "S"), 400.0, 0.1)
    assert (result.cvm_stage, result.cvm_probabilities) == ("CS5", None)
    assert result.flags == ("cvm_no_probabilities",)
    assert probabilities(spine("S", "S"), 400.0, 0.1) is None


@pytest.mark.parametrize("sigma", [-1.0, np.nan, np.inf])
def test_an_invalid_sigma_is_refused(sigma):
    with pytest.raises(MeasurementError, match="sigma"):
        assess(spine("S", "S"), sigma, 0.1)
    (result,) = assess_all(spine("S", "S")[None], np.full((1, 13), sigma), [0.1])
    assert (result.cvm_stage, result.cvm_probabilities) == ("CS5", None)


def test_the_row_has_four_columns_that_agree_with_the_stage():
    points = spine("S", "RH")
    result, staging = assess(points, 3.0), stage(points)
    assert list(result.columns()) == ["cvm_stage", "cvm_typical", "cvm_probabilities", "cvm_measurements"]
    assert (result.cvm_stage, result.cvm_typical) == (staging.stage, staging.typical)
    assert result.cvm_measurements == staging.measurements
    assert result.flags == staging.flags == ("cvm_scale_free",)
    assert "undefined" in assess(points, 3.0, None, CVMT).cvm_probabilities


def test_the_trace_shows_each_measurement_threshold_and_decision_in_order():
    steps = stage(spine("S", "RH"), 0.1).trace
    assert [step.name for step in steps] == [
        "head faces",
        *(f"{name} lower border depth" for name in ("C2", "C3", "C4")),
        *(
            f"{name} {what}"
            for name in ("C3", "C4")
            for what in ("anterior/posterior height", "superior/inferior width", "width/height", "shape")
        ),
        "concave borders",
        "table",
        "stage",
    ]
    assert (steps[1].value, steps[1].threshold, steps[1].decision) == ("1.60 mm", ">= 1 mm", "concave")
    assert steps[6].value == "1.000"
    assert steps[7].decision == "square"
    assert str(steps[-1]).split()[-1] == "CS5"
    assert all("\n" not in str(step) for step in steps)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real cephalograms at {REAL}: set BONEAGE_TEST_DATA")
def test_real_annotations_are_all_measurable_and_one_in_seven_is_atypical():
    files = sorted((REAL / "vertebral").glob("*.json"))
    points = np.array([read_labelme(path.read_bytes()) for path in files])
    found = assess_all(points, np.full(points.shape[:2], 3.0), [0.1] * len(points), samples=16)
    assert [result.problem for result in found] == [None] * len(files)
    assert sum(not result.cvm_typical for result in found) / len(files) == pytest.approx(1 / 7, abs=0.05)
