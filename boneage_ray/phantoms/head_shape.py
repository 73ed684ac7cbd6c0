"""A head in profile in millimetres, sella at the origin, facing right, y down: landmarks and outlines.

The mean positions are those of an average adult, rounded; individuals vary by a few modes (jaw, maxilla).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from boneage_ray.anatomy.cephalometry import FACIAL
from boneage_ray.phantoms.film import Outline
from boneage_ray.phantoms.spine_shape import Spine

_MEAN: dict[str, tuple[float, float]] = {
    "sella": (0.0, 0.0),
    "nasion": (58.5, -7.0),
    "orbitale": (47.0, 18.0),
    "porion": (-21.0, 18.0),
    "subspinale": (58.5, 48.0),
    "supramentale": (55.0, 82.0),
    "pogonion": (54.5, 95.0),
    "menton": (47.5, 101.5),
    "gnathion": (52.0, 99.5),
    "gonion": (-7.5, 70.0),
    "lower_incisal_incision": (61.0, 65.5),
    "upper_incisal_incision": (63.5, 67.5),
    "upper_lip": (74.5, 58.0),
    "lower_lip": (72.0, 77.0),
    "subnasale": (69.5, 46.5),
    "soft_tissue_pogonion": (64.0, 97.0),
    "posterior_nasal_spine": (16.5, 39.5),
    "anterior_nasal_spine": (61.0, 41.0),
    "articulare": (-14.0, 28.5),
}
_MANDIBLE = (
    "supramentale",
    "pogonion",
    "menton",
    "gnathion",
    "lower_incisal_incision",
    "lower_lip",
    "soft_tissue_pogonion",
)
_MAXILLA = ("subspinale", "upper_incisal_incision", "upper_lip", "subnasale", "anterior_nasal_spine")


@dataclass(frozen=True)
class HeadPart:
    """A filled structure: `weight` inside (negative: air), rounded over `round_mm`, with a bright `rim`."""

    outline: Outline
    weight: float
    rim: float = 0.0
    rim_mm: float = 1.5
    round_mm: float = 3.0


@dataclass(frozen=True)
class Stroke:
    """A thin bony wall seen edge-on."""

    points: Outline
    weight: float
    width_mm: float = 1.2


# Half width along a tooth from edge to apex, as shares of length and of the crown's half width.
_INCISOR = ((0.04, 0.35), (0.12, 0.85), (0.28, 1.0), (0.42, 0.78), (0.75, 0.45), (0.97, 0.15))
_MOLAR = ((0.01, 0.75), (0.08, 1.0), (0.30, 0.98), (0.45, 0.82), (0.75, 0.66), (0.97, 0.38))

Landmarks = dict[str, Outline]


def draw_face(rng: np.random.Generator, scale: float) -> Landmarks:
    """19 landmarks of one person; `scale` 1 is an adult."""
    points = {name: np.array(_MEAN[name]) for name in FACIAL}
    jaw = rng.normal(0, [2.2, 2.2])
    upper = rng.normal(0, [1.6, 1.3])
    for name in _MANDIBLE:
        points[name] = points[name] + jaw + upper * 0.5
    for name in _MAXILLA:
        points[name] = points[name] + upper
    for name in FACIAL[1:]:
        points[name] = points[name] + rng.normal(0, 0.45, 2)
    points["gonion"] = points["gonion"] + rng.normal(0, [2.0, 2.5])
    return {name: point * scale for name, point in points.items()}


def through(points: list[Outline], closed: bool = True, steps: int = 8) -> Outline:
    """A smooth curve that passes through every given point (Catmull-Rom)."""
    knots = np.array(points)
    ends = (knots[-1:], knots[:2]) if closed else (2 * knots[:1] - knots[1:2], 2 * knots[-1:] - knots[-2:-1])
    padded = np.concatenate([ends[0], knots, ends[1]])
    a, b, c, d = padded[:-3, None], padded[1:-2, None], padded[2:-1, None], padded[3:, None]
    u = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    curve = 0.5 * (2 * b + (c - a) * u + (2 * a - 5 * b + 4 * c - d) * u**2 + (3 * b - a - 3 * c + d) * u**3)
    flat = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, knots[-1:]])


def _at(scale: float, *points: tuple[float, float]) -> list[Outline]:
    return [np.array(point) * scale for point in points]


def soft_outline(face: Landmarks, k: float) -> Outline:
    """Skin: forehead, nose, lips, chin, throat, nape, vault; it leaves the picture at the neck."""
    profile = [
        *_at(k, (50, -76), (65, -52), (70.5, -28)),
        face["nasion"] + np.array([6.5, 2.0]) * k,
        *_at(k, (73, 12), (83, 27)),
        face["subnasale"] + np.array([17.5, -11.0]) * k,
        face["subnasale"] + np.array([14.0, -3.5]) * k,
        face["subnasale"],
        face["upper_lip"],
        (face["upper_lip"] + face["lower_lip"]) / 2 + np.array([-4.0, 0.5]) * k,
        face["lower_lip"],
        face["supramentale"] + np.array([10.5, 3.5]) * k,
        face["soft_tissue_pogonion"],
        face["menton"] + np.array([5.0, 8.0]) * k,
        face["menton"] + np.array([-14.0, 6.0]) * k,
        *_at(k, (8, 100), (-3, 112), (-1, 135), (4, 175)),
        *_at(k, (-120, 175), (-92, 130), (-82, 90), (-86, 55), (-103, 25)),
        *_at(k, (-113, -20), (-98, -72), (-50, -105), (5, -104)),
    ]
    return through(profile)


def head_parts(face: Landmarks, k: float) -> list[HeadPart]:
    """Filled structures of skull and jaws."""
    vault = [
        face["nasion"],
        *_at(k, (63.5, -15), (66, -28), (60.5, -52), (45, -77), (6, -98), (-45, -97), (-88, -68)),
    ]
    vault += _at(k, (-106, -22), (-97, 18), (-72, 38), (-44, 40), (-22, 30), (-6, 10), (12, 0), (40, -4))
    mandible = [
        face["lower_incisal_incision"] + np.array([-4.5, 9.0]) * k,
        *(face[name] for name in ("supramentale", "pogonion", "gnathion", "menton")),
        face["menton"] * 0.62 + face["gonion"] * 0.38 + np.array([1.0, -2.0]) * k,
        face["gonion"] * 0.72 + face["menton"] * 0.28 + np.array([-1.0, 0.5]) * k,
        face["gonion"],
        face["gonion"] * 0.4 + face["articulare"] * 0.6 + np.array([1.0, 0.0]) * k,
        face["articulare"],
        *_at(
            k,
            (-14, 21),
            (-9, 16),
            (-3, 20),
            (0, 29),
            (6, 32),
            (12, 27),
            (17, 32),
            (17, 46),
            (21, 60),
            (30, 71),
        ),
        face["lower_incisal_incision"] + np.array([-12.0, 9.0]) * k,
    ]
    maxilla = [
        face["anterior_nasal_spine"],
        face["subspinale"],
        face["upper_incisal_incision"] + np.array([-3.5, -11.0]) * k,
        face["upper_incisal_incision"] + np.array([-16.0, -10.0]) * k,
        *_at(k, (26, 55), (19, 49)),
        face["posterior_nasal_spine"],
        (face["posterior_nasal_spine"] + face["anterior_nasal_spine"]) / 2 + np.array([0.0, -0.8]) * k,
    ]
    sinus = _at(k, (22, 14), (33, 12), (44, 21), (49, 29), (46, 37), (33, 37), (21, 36), (18, 24))
    frontal = _at(k, (57, -12), (62.5, -20), (62.5, -32), (58, -27))
    petrous = _at(k, (-40, 12), (-28, 2), (-12, 4), (-8, 14), (-16, 26), (-30, 30), (-42, 24))
    base = _at(k, (-52, 34), (-38, 8), (-14, -3), (6, 2), (16, 12), (4, 24), (-12, 34), (-30, 46), (-46, 46))
    ethmoid = _at(k, (14, 0), (34, -3), (54, -4), (52, 10), (40, 16), (22, 14))
    outer = through(vault)
    middle = np.array([-20.0, -32.0]) * k
    inner = (outer - middle) * np.array([0.935, 0.915]) + middle
    return [
        HeadPart(outer, 0.36, rim=0.34, rim_mm=1.6 * k, round_mm=14.0 * k),
        HeadPart(inner, 0.10, rim=0.22, rim_mm=2.6 * k, round_mm=30.0 * k),
        HeadPart(through(base), 0.30, round_mm=16 * k),
        HeadPart(through(petrous), 0.34, round_mm=12 * k),
        HeadPart(through(ethmoid), 0.10, round_mm=6 * k),
        HeadPart(through(frontal), -0.22, rim=0.16, round_mm=3 * k),
        HeadPart(through(sinus), -0.13, rim=0.10, rim_mm=1.2, round_mm=5 * k),
        HeadPart(through(maxilla), 0.26, rim=0.20, rim_mm=1.2, round_mm=4 * k),
        HeadPart(through(mandible), 0.30, rim=0.26, rim_mm=1.6, round_mm=7 * k),
    ]


def head_strokes(face: Landmarks, k: float) -> list[Stroke]:
    """Walls seen edge-on: sella, clivus, skull base, orbit, ear ring, nasal bone, palate."""
    turn = np.linspace(0, 2 * np.pi, 25)
    sella = _at(k, (13, -5), (7.5, -6.5), (5.5, -2), (4.2, 3), (0, 5), (-4.2, 3), (-5.2, -2), (-7, -7))
    sella = [face["sella"] + point for point in sella]
    clivus = [face["sella"] + point for point in _at(k, (-7, -7), (-11, 6), (-20, 26), (-24, 34))]
    orbit = [*_at(k, (25, 4), (31, 11), (38, 16)), face["orbitale"], *_at(k, (52, 13), (55.5, 4))]
    ring = face["porion"] + np.array([0.0, 4.2]) * k + 4.2 * k * np.stack([np.sin(turn), -np.cos(turn)], axis=1)
    nose = [face["nasion"], *_at(k, (62, -1), (66, 7), (70, 14))]
    aperture = [
        *_at(k, (60, 6), (56, 20), (54, 32)),
        face["anterior_nasal_spine"] + np.array([-3.0, -3.0]) * k,
    ]
    palate = [face["posterior_nasal_spine"], *_at(k, (38, 39.0)), face["anterior_nasal_spine"]]
    roof = [*_at(k, (13, -5), (28, -9), (45, -14), (57, -17))]
    planum = [*_at(k, (13, -5), (26, -3), (40, -3), (52, -4))]
    pterygoid = _at(k, (13, 8), (17, 16), (16, 28), (18, 38))
    suture = _at(k, (-60, -90), (-52, -70), (-56, -48), (-47, -28))
    return [
        Stroke(through(sella, closed=False), 0.42, 1.1),
        Stroke(through(clivus, closed=False), 0.34, 1.8),
        Stroke(through(orbit, closed=False), 0.28, 1.2),
        Stroke(ring, 0.55, 1.3),
        Stroke(through(nose, closed=False), 0.34, 1.5),
        Stroke(through(aperture, closed=False), 0.12, 1.2),
        Stroke(through(palate, closed=False), 0.36, 1.3),
        Stroke(through(roof, closed=False), 0.26, 1.6),
        Stroke(through(planum, closed=False), 0.18, 1.3),
        Stroke(through(pterygoid, closed=False), 0.16, 1.2),
        Stroke(through(suture, closed=False), 0.07, 1.0),
    ]


def teeth(face: Landmarks, k: float) -> list[HeadPart]:
    """Incisors with their edges on the landmarks, and two rows of molars along the bite."""
    upper, lower = face["upper_incisal_incision"], face["lower_incisal_incision"]
    parts = [
        _tooth(upper, face["subspinale"] + np.array([-5.5, 0.5]) * k, 3.4 * k, 0.50),
        _tooth(lower, face["supramentale"] + np.array([-6.5, 3.0]) * k, 2.9 * k, 0.50),
    ]
    back = np.array([-1.0, -0.16])
    for place, wide in ((9, 3.2), (16, 3.4), (24.5, 4.9), (35, 5.1)):
        crown = upper + back * place * k + np.array([0.0, -2.0]) * k
        parts.append(_tooth(crown, crown + np.array([-1.0, -17.0]) * k, wide * k, 0.34, molar=place > 20))
        crown = lower + back * (place - 2) * k + np.array([0.0, 2.2]) * k
        parts.append(_tooth(crown, crown + np.array([-3.0, 17.0]) * k, wide * k, 0.32, molar=place > 20))
    return parts


def _tooth(edge: Outline, apex: Outline, half: float, weight: float, molar: bool = False) -> HeadPart:
    """A tooth from the middle of its biting edge to the apex of its root."""
    along = (apex - edge) / np.linalg.norm(apex - edge)
    across = np.array([-along[1], along[0]])
    length = float(np.linalg.norm(apex - edge))
    profile = _MOLAR if molar else _INCISOR
    right = [edge + along * length * u + across * half * w for u, w in profile]
    left = [edge + along * length * u - across * half * w for u, w in reversed(profile)]
    return HeadPart(
        np.array([edge, *right, apex, *left]),
        weight,
        rim=weight * 0.35,
        rim_mm=half * 0.35,
        round_mm=half * 0.7,
    )


def neck_parts(spine: Spine, k: float) -> list[HeadPart]:
    """Vertebral bodies, their arches behind them, the atlas, and the airway in front."""
    parts = [HeadPart(body, 0.30, rim=0.30, rim_mm=1.0, round_mm=4.0) for body in spine.bodies]
    for body, lean in zip(spine.bodies, spine.lean_deg, strict=True):
        low, high = body.min(axis=0), body.max(axis=0)
        middle = np.array(
            [low[0] + 1.0, (low[1] if body is not spine.bodies[0] else high[1] - 16.0) * 0.4 + high[1] * 0.6]
        )
        parts += _arch(middle, lean, 1.15 if body is spine.bodies[0] else 1.0)
    dens = spine.bodies[0][np.argmin(spine.bodies[0][:, 1])]
    parts.append(HeadPart(_ellipse(dens + np.array([7.5, 9.0]), 2.6, 4.6, 10), 0.26, rim=0.2, rim_mm=1.0))
    parts.append(HeadPart(_ellipse(dens + np.array([-27.0, 9.0]), 9.0, 3.8, -8), 0.20, rim=0.16, rim_mm=1.0))
    front = np.array([body[:, 0].max() for body in spine.bodies])
    level = np.array([body[:, 1].mean() for body in spine.bodies])
    order = [np.array([x + 3.5, y]) for x, y in zip(front, level, strict=True)]
    order.append(order[-1] + np.array([0.0, 60.0]))
    airway = [
        np.array([order[0][0] + 4, 32 * k]),
        *order,
        *[p + np.array([8.0, 2.0]) for p in order[::-1]],
        np.array([14.0, 42 * k]),
    ]
    parts.append(HeadPart(through(airway), -0.16, round_mm=4.0))
    return parts


def _arch(middle: Outline, lean: float, size: float) -> list[HeadPart]:
    """Facet column and spinous process behind a body; `middle` is about the middle of its posterior wall."""
    angle = np.deg2rad(lean)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    facet = np.array([(-10, -7.5), (-3, -6), (1, -1), (-1, 5), (-8, 6.5), (-12, 0)]) * size
    spinous = np.array([(-11, -1), (-18, -2.5), (-29, 1.5), (-31, 6), (-26, 8), (-17, 5.5), (-11, 5)]) * size
    return [
        HeadPart(through(list(facet @ turn + middle)), 0.17, rim=0.15, rim_mm=0.9),
        HeadPart(through(list(spinous @ turn + middle)), 0.14, rim=0.13, rim_mm=0.9),
    ]


def _ellipse(middle: Outline, wide: float, tall: float, degrees: float) -> Outline:
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    angle = np.deg2rad(degrees)
    x, y = wide * np.cos(turn), tall * np.sin(turn)
    turned = [x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)]
    return np.stack(turned, axis=1) + middle
