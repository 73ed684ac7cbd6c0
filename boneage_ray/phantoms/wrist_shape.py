"""Carpals, distal forearm and the flesh of the palm, in millimetres, origin in the capitate."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from boneage_ray.phantoms.film import Bone, Outline, smooth
from boneage_ray.phantoms.hand_build import Build
from boneage_ray.phantoms.long_bone import bridge, nucleus, sides
from boneage_ray.phantoms.maturity import carpal_fill

CARPAL_OUTLINES = MappingProxyType(
    {
        "capitate": ((-5.5, -18), (5.5, -18.5), (6.3, -8), (6.2, 2), (3, 8), (-2, 8), (-5.6, 3), (-6, -8)),
        "hamate": ((-7, -17), (-15, -15.5), (-22, -11), (-20, -5), (-13, 2), (-8.5, 5.5), (-6.8, -3)),
        "trapezoid": ((7.5, -18), (14.5, -18), (17, -14.5), (14.5, -7), (8, -7.5)),
        "trapezium": ((18.5, -16), (24, -13), (31, -6), (27, 0), (18, -3), (16, -7.5)),
        "scaphoid": (
            (8, -5.5),
            (14, -5.5),
            (20.5, -1),
            (23.5, 3),
            (20, 9),
            (13, 15.5),
            (8, 17),
            (6, 12),
            (7.3, 4),
        ),
        "lunate": ((5, 10.5), (6.6, 16), (5, 20.5), (-3, 21.5), (-8.5, 17.5), (-7, 10.5), (-3, 9.8), (2, 10)),
        "triquetrum": ((-9, 7), (-14, 4), (-20, -2), (-23.5, 3), (-21, 11), (-14.5, 16), (-9.6, 14)),
        "pisiform": ((-14, 3), (-18, 1), (-22, 5), (-21, 11), (-17, 12.5), (-14, 9)),
    }
)
# The epiphysis at the wrist, (along, across), with its styloid on the outer side.
_WRIST_CAP = (
    (0.25, 0.1, 0.22, 0.1, -0.1, 0.5, 1.0, 1.0),
    (-0.95, -0.4, 0.3, 0.8, 1.0, 1.05, 0.95, -0.95),
)


def carpals(build: Build) -> list[Bone]:
    grown, _ = build.scales
    density = build.density
    bones = []
    for name, fill in carpal_fill(build.age_months, build.sex).items():
        if name == "sesamoid":
            continue
        adult = np.array(CARPAL_OUTLINES[name], dtype=np.float64)
        middle = adult.mean(axis=0)
        spokes = adult - middle
        radius = np.linalg.norm(spokes, axis=1, keepdims=True)
        round_ = spokes / radius * radius.mean() * 0.9
        reach = 0.32 + 0.76 * fill**0.65  # above 1: smoothing takes the corners off
        outline = (round_ * (1 - fill) + spokes * fill) * reach + middle
        bones.append(Bone((smooth(outline * grown),), cortex=(0.7 + 0.5 * fill) * grown, density=density * 0.92))
    return bones


def forearm(build: Build) -> list[Bone]:
    """Radius and ulna, which extend beyond the picture."""
    radius_knots = ((0, 0.90), (3, 1.0), (9, 0.86), (22, 0.56), (45, 0.46), (200, 0.5))
    ulna_knots = ((0, 0.88), (3, 1.0), (10, 0.80), (24, 0.66), (45, 0.62), (200, 0.75))
    return [
        _forearm_bone(build, "radius", (8.5, 22.0, -15.0), 14.5, radius_knots),
        _forearm_bone(build, "ulna", (-15.5, 25.0, 4.0), 7.6, ulna_knots),
    ]


def _forearm_bone(
    build: Build,
    name: str,
    place: tuple[float, float, float],
    half: float,
    knots: tuple[tuple[float, float], ...],
) -> Bone:
    """`place`: middle of the joint surface and its tilt in degrees, on a grown man's scale."""
    grown, stout = build.scales
    x, y, tilt = place
    state = build.plate(name)
    height, gap, wide = 7.5 * grown, state.gap_mm * 1.15 * grown, half * stout
    down = np.array(knots)
    # The joint surface is tilted, the shaft is not: shear the end by the tilt.
    shaft = sides(down[:, 0] * grown + height + gap, down[:, 1] * wide)
    outlines = [smooth(shaft)]
    if state.present:
        cap = np.array(_WRIST_CAP).T * (height, wide)
        outlines.append(smooth(nucleus(cap, height, state.present)))
    if state.gap_mm == 0:
        outlines.append(bridge(height, wide * 0.93, height * 0.3))
    scar = np.array([(height, -wide * 0.9), (height, wide * 0.9)])
    slope = np.tan(np.deg2rad(tilt))
    placed = [_stand(o, slope, height) + np.array([x, y]) * grown for o in outlines]
    return Bone(
        outlines=tuple(placed),
        cortex=wide * (0.26 if name == "radius" else 0.42) * build.cortex * 2,
        density=build.density * 1.12,
        axis=(np.array([x, y + 12]) * grown, np.array([x, y + 110]) * grown),
        scars=((_stand(scar, slope, height) + np.array([x, y]) * grown, state.scar),) if state.scar > 0.05 else (),
    )


def _stand(outline: Outline, slope: float, height: float) -> Outline:
    """(along, across) -> (x, y), the end at the joint sheared by `slope`, less and less along the shaft."""
    fade = np.exp(-np.maximum(outline[:, 0] - height, 0) / (1.2 * height))
    return np.stack([outline[:, 1], outline[:, 0] + slope * outline[:, 1] * fade], axis=1)


def palm(build: Build) -> list[Outline]:
    grown, stout = build.scales
    wide = stout / grown
    palm = [
        (-27, -78),
        (-32, -42),
        (-31, -10),
        (-27, 14),
        (-25, 30),
        (25, 30),
        (30, 10),
        (38, -14),
        (35, -30),
    ]
    palm += [(30, -52), (27, -90), (2, -98), (-13, -92)]
    thenar = [(8, -10), (30, -4), (58, -30), (52, -44), (20, -58), (10, -40)]
    forearm = [(-25, 20), (-27, 60), (-32, 110), (-34, 260), (36, 260), (34, 110), (28, 60), (26, 20)]
    return [smooth(np.array(p, dtype=np.float64) * grown * np.array([wide, 1.0])) for p in (palm, thenar, forearm)]
