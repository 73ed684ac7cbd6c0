"""Geometry of a phantom hand in millimetres: a left hand, thumb right, fingers up, origin in the capitate.

Coordinates are (x, y) with y down. All outlines are closed polygons.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from boneage_ray.phantoms.film import Bone, Outline
from boneage_ray.phantoms.hand_build import Build
from boneage_ray.phantoms.long_bone import Axis, long_bone
from boneage_ray.phantoms.maturity import carpal_fill
from boneage_ray.phantoms.wrist_shape import carpals, forearm, palm

# A grown man's rays, thumb first: base of the metacarpal, degrees from straight up (towards the thumb),
# bone lengths with their joints.
RAYS: tuple[tuple[tuple[float, float], float, tuple[float, ...]], ...] = (
    ((27.0, -8.0), 40.0, (45.0, 33.0, 24.0)),
    ((13.5, -20.0), 9.0, (67.0, 41.0, 25.0, 18.0)),
    ((0.5, -20.5), 0.0, (65.0, 46.0, 30.0, 19.0)),
    ((-10.5, -18.5), -9.0, (58.0, 43.0, 28.0, 19.0)),
    ((-19.5, -14.0), -20.0, (53.0, 34.0, 20.0, 17.0)),
)
WIDTH_OF_RAY = (1.08, 1.0, 1.03, 0.95, 0.84)
FINGER_SPREAD = (2.0, 7.0, 0.0, -6.0, -14.0)

JOINT_MM = 1.4
_BONES = ("metacarpal", "proximal", "middle", "distal")
_THUMB_BONES = ("metacarpal", "proximal", "distal")
# Half widths of base, shaft and head, and of the flesh around the bone.
_HALF_WIDTHS = MappingProxyType(
    {
        "metacarpal": (6.9, 3.8, 7.0),
        "proximal": (7.2, 4.1, 5.3),
        "middle": (6.3, 3.5, 4.7),
        "distal": (5.2, 2.2, 3.5),
    }
)
_FLESH = MappingProxyType({"metacarpal": 10.4, "proximal": 9.7, "middle": 8.7, "distal": 7.6})

# The first outlines of a hand's soft tissue are palm, thenar and forearm; the fingers follow.
PALM_PARTS = 3


@dataclass(frozen=True)
class Hand:
    """Bones and soft tissue of one hand in millimetres."""

    bones: tuple[Bone, ...]
    soft: tuple[Outline, ...]


def build_hand(build: Build) -> Hand:
    """All bones and the soft-tissue outlines of a hand."""
    bones: list[Bone] = [*carpals(build), *forearm(build)]
    soft = palm(build)
    for ray in range(5):
        ray_bones, ray_soft = _ray(build, ray)
        bones += ray_bones
        soft += ray_soft
    return Hand(tuple(bones), tuple(soft))


def _direction(degrees: float) -> NDArray[np.float64]:
    angle = np.deg2rad(degrees)
    return np.array([np.sin(angle), -np.cos(angle)])


def _ray(build: Build, ray: int) -> tuple[list[Bone], list[Outline]]:
    """The bones of one ray from the wrist outwards, and the flesh around each."""
    (x, y), lean, lengths = RAYS[ray]
    grown, stout = build.scales
    wide = WIDTH_OF_RAY[ray] * stout
    at = np.array([x, y]) * grown
    degrees = lean * build.spread + (build.thumb_deg if ray == 0 else 0.0)
    bones: list[Bone] = []
    soft: list[Outline] = []
    for k, (name, length) in enumerate(zip(_BONES if ray else _THUMB_BONES, lengths, strict=True)):
        along = _direction(degrees)
        far = at + along * length * grown
        axis = Axis(at, along, (length - JOINT_MM) * grown)
        bones.append(long_bone(build, name, ray, axis, np.array(_HALF_WIDTHS[name]) * wide))
        flesh = _FLESH[name] * wide + 1.2
        if name == "distal":
            soft.append(capsule(at, far - along * 0.12 * flesh, flesh, 0.86 * flesh))
        else:
            soft.append(capsule(at, far, flesh, 0.93 * flesh))
        if ray == 0 and name == "metacarpal":
            bones += _sesamoid(build, far, along)
        at = far
        turn = FINGER_SPREAD[ray] * build.spread if k == 0 else 0.0
        degrees += turn + build.bend_deg[ray] * (0.5 + 0.25 * k)
    return bones, soft


def _sesamoid(build: Build, head: NDArray[np.float64], along: NDArray[np.float64]) -> list[Bone]:
    """The small bone next to the head of the thumb's metacarpal."""
    fill = carpal_fill(build.age_months, build.sex).get("sesamoid")
    if fill is None:
        return []
    grown, _ = build.scales
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    radius = (1.2 + 1.6 * min(1.0, 3 * fill)) * grown
    middle = head - along * 5.5 * grown + np.array([along[1], -along[0]]) * 6.0 * grown
    outline = middle + radius * np.stack([np.cos(turn), 0.85 * np.sin(turn)], axis=1)
    return [Bone((outline,), cortex=0.8 * grown, density=0.8 * build.density)]


def capsule(start: NDArray[np.float64], end: NDArray[np.float64], first: float, last: float) -> Outline:
    """A tapered capsule around the line from `start` (radius `first`) to `end` (radius `last`)."""
    along = end - start
    heading = np.arctan2(along[1], along[0])
    turn = np.linspace(np.pi / 2, 3 * np.pi / 2, 12) + heading
    near = start + first * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    far = end - last * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return np.concatenate([near, far])
