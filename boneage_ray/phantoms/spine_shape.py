"""Cervical vertebrae C2 to C6 of a given maturation stage, in millimetres, patient facing right, y down.

Shapes keep a distance from the limits between stages (concavity 1.0 mm or 7 % of the chord; anterior to
posterior height 0.95; width to height 0.95 and 1.05), so any sensible measurement finds the same stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from boneage_ray.errors import UsageError
from boneage_ray.phantoms.film import Outline

BodyShape = Literal["trapezoid", "rectangular_horizontal", "square", "rectangular_vertical"]
STAGES = ("CS1", "CS2", "CS3", "CS4", "CS5", "CS6")

_T: BodyShape = "trapezoid"
_RH: BodyShape = "rectangular_horizontal"
_S: BodyShape = "square"
_RV: BodyShape = "rectangular_vertical"
# McNamara and Franchi 2018: the pairs (C3, C4) that a stage allows.
_SHAPES: tuple[tuple[tuple[BodyShape, BodyShape], ...], ...] = (
    ((_T, _T),),
    ((_T, _T),),
    ((_T, _T), (_T, _RH)),
    ((_RH, _RH),),
    ((_S, _S), (_S, _RH), (_RH, _S)),
    ((_RV, _RV), (_RV, _RH), (_RH, _RV)),
)
# How many of the lower borders of C2, C3, C4 are concave.
_CONCAVE = (0, 1, 2, 3, 3, 3)
_WIDTH_TO_HEIGHT: dict[BodyShape, tuple[float, float]] = {
    _T: (1.20, 1.40),
    _RH: (1.17, 1.38),
    _S: (0.988, 1.012),
    _RV: (0.80, 0.89),
}


@dataclass(frozen=True)
class Spine:
    """`points` (13, 2) in the order of cephalometry.VERTEBRAL; `bodies` are closed outlines, C2 to C6."""

    points: Outline
    bodies: tuple[Outline, ...]
    shapes: tuple[BodyShape, BodyShape]
    lean_deg: tuple[float, ...]


def build_spine(rng: np.random.Generator, stage: int, at: Outline) -> Spine:
    """A spine of stage 1 to 6; `at` (2,) is the middle of C2's lower border. Raises UsageError for other stages."""
    if stage not in range(1, 7):
        raise UsageError(f"stage {stage}: a cephalogram phantom needs a stage from 1 to 6")
    pairs = _SHAPES[stage - 1]
    shapes = pairs[int(rng.integers(len(pairs)))]
    width = float(np.interp(stage, [1, 6], [12.4, 14.0]) + rng.uniform(-0.6, 0.6))
    lean = rng.uniform(8, 20)
    bend = rng.uniform(-2.5, 2.5)
    leans = tuple(float(lean + bend * k) for k in range(5))
    depths = [rng.uniform(1.45, 2.2) if k < _CONCAVE[stage - 1] else rng.uniform(0.05, 0.5) for k in range(3)]
    second = _lower_border(width * 1.02, depths[0])
    points = [_place(second, leans[0], at)]
    bodies = [_place(_axis_outline(width * 1.02, depths[0]), leans[0], at)]
    below = at
    for k, shape in enumerate((*shapes, shapes[1], shapes[1])):
        depth = depths[k + 1] if k < 2 else depths[2]
        corners, height = _body(rng, shape, width * (1 + 0.015 * k), depth)
        disc = rng.uniform(3.2, 4.4) + max(0.0, depths[min(k, 2)] - 1.0)
        below = _place(np.array([[0.0, disc + height]]), leans[k + 1], below)[0]
        if k < 2:
            points.append(_place(corners, leans[k + 1], below))
        bodies.append(_place(_body_outline(corners), leans[k + 1], below))
    return Spine(np.concatenate(points), tuple(bodies), shapes, leans)


def _place(local: Outline, degrees: float, at: Outline) -> Outline:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray(local @ turn + at)


def _lower_border(width: float, depth: float) -> Outline:
    """Posterior corner, deepest point, anterior corner; the chord is centred on the origin."""
    return np.array([(-width / 2, 0.0), (0.0, -depth), (width / 2, 0.0)])


def _body(rng: np.random.Generator, shape: BodyShape, width: float, depth: float) -> tuple[Outline, float]:
    """Five points of C3 or C4 in landmark order, and the mean height; the origin is the middle of the lower chord."""
    low, high = _WIDTH_TO_HEIGHT[shape]
    mean_height = width / rng.uniform(low, high)
    ratio = rng.uniform(0.78, 0.88) if shape == _T else rng.uniform(0.992, 1.008)
    posterior = 2 * mean_height / (1 + ratio)
    anterior = posterior * ratio
    superior = width * rng.uniform(0.988, 1.0)
    back, middle, front = _lower_border(width, depth)
    inset = (width - superior) / 2
    corners = [(-width / 2 + inset, -posterior), back, middle, front, (width / 2 - inset, -anterior)]
    return np.array(corners), mean_height


def _curve(start: Outline, deepest: Outline, end: Outline) -> Outline:
    """A parabola through three points, its ends included."""
    u = np.linspace(0, 1, 13)[:, None]
    return np.asarray(start * (1 - u) + end * u + (deepest - (start + end) / 2) * 4 * u * (1 - u))


def _body_outline(corners: Outline) -> Outline:
    """A closed outline through all five points: hollow lower border, waisted walls, raised upper rims."""
    top_back, back, middle, front, top_front = corners
    dip = np.array([0.0, 0.45])
    waist = np.array([0.55, 0.0])
    sides = [
        _curve(back, middle, front),
        _curve(front, (front + top_front) / 2 - waist, top_front),
        _curve(top_front, (top_front + top_back) / 2 + dip, top_back),
        _curve(top_back, (top_back + back) / 2 + waist * 0.6, back),
    ]
    return np.concatenate(sides)


def _axis_outline(width: float, depth: float) -> Outline:
    """C2: lower border, body, and the dens above it."""
    back, middle, front = _lower_border(width, depth)
    half = width / 2
    above: Sequence[tuple[float, float]] = [
        (half * 0.86, -5.0),
        (half * 0.72, -11.0),
        (half * 0.50, -16.0),
        (half * 0.52, -24.0),
        (half * 0.30, -30.0),
        (-half * 0.25, -31.0),
        (-half * 0.48, -27.0),
        (-half * 0.50, -18.0),
        (-half * 0.86, -11.0),
        (-half * 0.88, -4.0),
    ]
    return np.concatenate([_curve(back, middle, front), np.array(above)])
