"""Tubular bones of the hand with their growth plates, in millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from boneage_ray.phantoms.film import Bone, Outline, smooth
from boneage_ray.phantoms.hand_build import Build


class Profile(NamedTuple):
    """A shaft: places along it, and half widths there as shares of base (0), shaft (1) or head (2)."""

    along: tuple[float, ...]
    share: tuple[float, ...]
    of: tuple[int, ...]


_PHALANX = Profile(
    (0, 0.04, 0.16, 0.36, 0.58, 0.80, 0.90, 0.97, 1.0),
    (0.80, 1.0, 0.88, 1.04, 1.0, 0.88, 1.0, 0.92, 0.55),
    (0, 0, 0, 1, 1, 2, 2, 2, 2),
)
_TUFT = Profile(
    (0, 0.06, 0.22, 0.50, 0.70, 0.82, 0.91, 0.98),
    (0.80, 1.0, 0.75, 1.0, 1.0, 0.9, 1.0, 0.7),
    (0, 0, 0, 1, 1, 2, 2, 2),
)
_METACARPAL = Profile(
    (0, 0.05, 0.16, 0.38, 0.58, 0.80, 0.92, 0.985, 1.0),
    (0.80, 1.0, 0.86, 1.0, 1.02, 0.82, 1.0, 0.97, 0.85),
    (0, 0, 0, 1, 1, 2, 2, 2, 2),
)
# Epiphyses (along, across) as shares of height and half width: base of a phalanx, head of a metacarpal.
_BASE_CAP = (
    (0.18, 0.05, 0.16, 0.05, 0.18, 0.55, 1.0, 1.0, 0.55),
    (-0.9, -0.5, 0.0, 0.5, 0.9, 1.06, 0.9, -0.9, -1.06),
)
_HEAD_CAP = (
    (0.0, 0.35, 0.75, 1.0, 1.0, 0.75, 0.35, 0.0),
    (-0.92, -1.04, -0.82, -0.35, 0.35, 0.82, 1.04, 0.92),
)


@dataclass(frozen=True)
class Axis:
    """The position of a bone: its base, the unit vector towards its head, its length with the epiphysis."""

    start: Outline
    along: Outline
    length: float


def long_bone(build: Build, name: str, ray: int, axis: Axis, half: NDArray[np.float64]) -> Bone:
    """A tubular bone with its growth plate: at the head of metacarpals two to five, else at the base.

    `half` (3,) are the half widths of base, shaft and head.
    """
    at_head = name == "metacarpal" and ray > 0
    state = build.plate("thumb_metacarpal" if name == "metacarpal" and ray == 0 else name)
    height = axis.length * (0.15 if at_head else 0.115)
    gap = state.gap_mm * build.scales[0]
    shaft = axis.length - height - gap
    joint = float(half[2]) * 0.98 if at_head else float(half[0])
    shaft_at, cap_at, plate_at = (0.0, shaft + gap, shaft + gap) if at_head else (height + gap, 0.0, height)
    profile = {"metacarpal": _METACARPAL, "distal": _TUFT}.get(name, _PHALANX)
    outlines = [sides(np.array(profile.along) * shaft + shaft_at, np.array(profile.share) * half[list(profile.of)])]
    if state.present:
        cap = np.array(_HEAD_CAP if at_head else _BASE_CAP).T * (height, joint)
        outlines.append(nucleus(cap, height, state.present) + np.array([cap_at, 0.0]))
    if state.gap_mm == 0:
        outlines.append(bridge(plate_at, joint * 0.93, height * 0.3))
    frame = np.stack([axis.along, np.array([-axis.along[1], axis.along[0]])])
    scar = np.array([(plate_at, -joint * 0.85), (plate_at, joint * 0.85)]) @ frame + axis.start
    return Bone(
        outlines=tuple(smooth(o) @ frame + axis.start for o in outlines),
        cortex=float(half[1]) * build.cortex,
        density=build.density,
        axis=(axis.start + axis.along * shaft_at, axis.start + axis.along * (shaft_at + shaft)),
        scars=((scar, state.scar),) if state.scar > 0.05 else (),
    )


def sides(along: NDArray[np.float64], half: NDArray[np.float64]) -> Outline:
    """Outline (2 N, 2) of (along, across) of a shape symmetric about its axis: one side out, one back."""
    right = np.stack([along, half], axis=1)
    return np.concatenate([right, right[::-1] * np.array([1.0, -1.0])])


def nucleus(cap: Outline, height: float, present: float) -> Outline:
    """A young epiphysis, a small nucleus in the middle of the cap; with `present` 1 it is the full cap."""
    middle = np.array([height * 0.55, 0.0])
    return np.asarray((cap - middle) * np.array([0.55 + 0.45 * present, present]) + middle)


def bridge(at: float, half: float, reach: float) -> Outline:
    """The bone that joins shaft and epiphysis once the plate between them has closed."""
    return np.array([(at - reach, -half), (at + reach, -half), (at + reach, half), (at - reach, half)])
