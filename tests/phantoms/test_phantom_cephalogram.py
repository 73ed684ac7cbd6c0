"""Cephalogram phantoms: the points show the stage, the drawing goes through the points."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from boneage_ray.anatomy.cephalometry import FACIAL, VERTEBRAL
from boneage_ray.errors import UsageError
from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.phantoms.head_shape import draw_face, head_parts, head_strokes, soft_outline, teeth
from boneage_ray.phantoms.spine_shape import build_spine

SEEDS = range(25)


def depth_mm(back, middle, front):
    """Distance of the middle point from the chord, positive upwards into the body."""
    chord = front - back
    return (chord[1] * (middle[0] - back[0]) - chord[0] * (middle[1] - back[1])) / np.hypot(*chord)


def shape_of(body):
    top_back, back, _, front, top_front = body
    posterior, anterior = np.hypot(*(top_back - back)), np.hypot(*(top_front - front))
    width = (np.hypot(*(top_front - top_back)) + np.hypot(*(front - back))) / 2
    if anterior / posterior < 0.95:
        return "T"
    ratio = width / ((posterior + anterior) / 2)
    return "RV" if ratio < 0.95 else "S" if ratio <= 1.05 else "RH"


def test_depth_of_a_known_border():
    assert depth_mm(*np.array([(0.0, 10.0), (5.0, 8.0), (10.0, 10.0)])) == 2.0


ALLOWED = {
    1: ((0, 0, 0), {("T", "T")}),
    2: ((1, 0, 0), {("T", "T")}),
    3: ((1, 1, 0), {("T", "T"), ("T", "RH")}),
    4: ((1, 1, 1), {("RH", "RH")}),
    5: ((1, 1, 1), {("S", "S"), ("S", "RH"), ("RH", "S")}),
    6: ((1, 1, 1), {("RV", "RV"), ("RV", "RH"), ("RH", "RV")}),
}


@pytest.mark.parametrize("stage", range(1, 7))
def test_points_show_the_stage_with_a_margin(stage):
    concave, pairs = ALLOWED[stage]
    seen = set()
    for seed in SEEDS:
        phantom = cephalogram_phantom(seed, stage, 64)
        points = phantom.vertebral * phantom.pixel_spacing_mm
        borders = (points[:3], points[4:7], points[9:12])
        for border, hollow in zip(borders, concave, strict=True):
            depth, chord = depth_mm(*border), np.hypot(*(border[2] - border[0]))
            if hollow:
                assert depth > 1.4 and depth / chord > 0.09
            else:
                assert 0 <= depth < 0.55 and depth / chord < 0.05
        seen.add((shape_of(points[3:8]), shape_of(points[8:13])))
        assert phantom.stage == f"CS{stage}"
    assert seen == pairs


@pytest.mark.parametrize("stage", range(1, 7))
def test_bodies_have_human_size(stage):
    for seed in SEEDS:
        points = build_spine(np.random.default_rng(seed), stage, np.zeros(2)).points
        assert 11 < np.hypot(*(points[6] - points[4])) < 15.5
        assert 7 < np.hypot(*(points[3] - points[4])) < 19


def test_order_of_the_points_for_a_face_to_the_right():
    phantom = cephalogram_phantom(2, 4, 400)
    vertebral = dict(zip(VERTEBRAL, phantom.vertebral, strict=True))
    facial = dict(zip(FACIAL, phantom.facial, strict=True))
    for body in ("C3", "C4"):
        posterior, anterior = vertebral[f"{body}_inferior_posterior"], vertebral[f"{body}_inferior_anterior"]
        assert posterior[0] < anterior[0]
        assert vertebral[f"{body}_superior_posterior"][1] < posterior[1]
    assert vertebral["C2_inferior_middle"][1] < vertebral["C3_inferior_middle"][1] < vertebral["C4_inferior_middle"][1]
    assert facial["sella"][0] < facial["nasion"][0] < facial["upper_lip"][0]
    assert facial["nasion"][1] < facial["subnasale"][1] < facial["upper_lip"][1] < facial["menton"][1]
    assert vertebral["C3_inferior_middle"][0] < facial["gonion"][0]


@pytest.mark.parametrize("seed", range(12))
def test_points_are_inside_the_picture_and_apart(seed):
    phantom = cephalogram_phantom(seed, seed % 6 + 1, 128)
    points = np.concatenate([phantom.vertebral, phantom.facial])
    height, width = phantom.image.shape
    assert (points >= 0).all() and (points[:, 0] <= width - 1).all() and (points[:, 1] <= height - 1).all()
    assert points.dtype == np.float64 and points.shape == (32, 2)


def test_points_scale_with_the_picture():
    """Pixel centres are integers: (x + 0.5) scales, x does not."""
    small, large = cephalogram_phantom(5, 3, 300), cephalogram_phantom(5, 3, 900)
    width_ratio = large.image.shape[1] / small.image.shape[1]
    for a, b in ((small.vertebral, large.vertebral), (small.facial, large.facial)):
        # The width is rounded to whole pixels, so the head may shift by a part of a pixel sideways.
        assert np.allclose((a[:, 1] + 0.5) * 3, b[:, 1] + 0.5, atol=1e-6)
        assert np.allclose((a[:, 0] + 0.5) * 3, b[:, 0] + 0.5, atol=1.0)
    assert width_ratio == pytest.approx(3, abs=0.01)
    assert small.pixel_spacing_mm == pytest.approx(3 * large.pixel_spacing_mm)
    assert small.pixel_spacing_mm == pytest.approx(240 / 300, rel=0.04)


def distance(outline, point):
    return abs(cv2.pointPolygonTest(outline.astype(np.float32).reshape(-1, 1, 2), tuple(map(float, point)), True))


@pytest.mark.parametrize("seed", range(5))
def test_outlines_go_through_the_vertebral_points(seed):
    spine = build_spine(np.random.default_rng(seed), seed + 1, np.array([-24.0, 70.0]))
    for body, points in zip(spine.bodies, np.split(spine.points, [3, 8]), strict=False):
        assert max(distance(body, point) for point in points) < 1e-3


def test_outlines_go_through_the_facial_points():
    face = draw_face(np.random.default_rng(1), 0.95)
    drawn = [part.outline for part in (*head_parts(face, 0.95), *teeth(face, 0.95))]
    drawn += [stroke.points for stroke in head_strokes(face, 0.95)] + [soft_outline(face, 0.95)]
    for name in FACIAL[1:]:
        assert min(distance(outline, face[name]) for outline in drawn) < 0.05, name
    assert np.array_equal(face["sella"], [0, 0])


@pytest.mark.parametrize("stage", range(1, 7))
def test_pixels_are_brighter_inside_the_body_than_below_its_border(stage):
    phantom = cephalogram_phantom(11, stage, 1200)
    smooth = cv2.GaussianBlur(phantom.image, (0, 0), 2.0)
    step = 1.1 / phantom.pixel_spacing_mm
    for back, middle, front in (phantom.vertebral[4:7], phantom.vertebral[9:12]):
        down = np.array([-(front - back)[1], (front - back)[0]]) / np.hypot(*(front - back))
        inside, outside = (tuple(np.round(middle + sign * step * down).astype(int)[::-1]) for sign in (-1, 1))
        assert int(smooth[inside]) > int(smooth[outside]) + 15


def test_equal_arguments_give_equal_pixels_and_other_seeds_do_not():
    first, again, other = (cephalogram_phantom(seed, 4, 128) for seed in (3, 3, 4))
    assert np.array_equal(first.image, again.image) and np.array_equal(first.facial, again.facial)
    assert not np.array_equal(first.image, other.image)
    assert first.image.shape == (128, 103)


def test_bad_arguments_are_refused():
    with pytest.raises(UsageError, match="1 to 6"):
        cephalogram_phantom(0, 7, 128)
    with pytest.raises(UsageError, match="at least 64"):
        cephalogram_phantom(0, 1, 32)
