"""labelme JSON: the lower border of C2 and the outlines of C3 and C4, in the order of anatomy/cephalometry.py."""

from __future__ import annotations

import json
import math
from itertools import combinations
from typing import Any

from boneage_ray.archives.archive import Points
from boneage_ray.errors import InputProblem

Point = tuple[float, float]
# Group (vertebra) -> number of points; only the first character of a shape's group_id counts.
COUNTS = {"2": 3, "3": 5, "4": 5}
_MOST_POINTS = 100


def read_labelme(data: bytes) -> Points:
    """The 13 vertebral points (x, y) in pixels of the original: C2 by x, then C3 and C4 from their superior posterior corners on.

    Outlines may begin at any corner and run in either direction. Of too many points, the later one of the closest pair is
    dropped. Raises `InputProblem` (bad_label), naming what is missing.
    """
    shapes = _shapes(data)
    groups = {str(shape.get("group_id"))[:1]: shape for shape in shapes}
    if len(shapes) != len(COUNTS) or groups.keys() != COUNTS.keys():
        found = ", ".join(str(shape.get("group_id"))[:9] for shape in shapes[:9]) or "none"
        raise bad_annotation(f"three shapes of group_id 2, 3 and 4 are needed; found: {found}")
    c2, c3, c4 = (_points(groups[group], group) for group in COUNTS)
    from boneage_ray.anatomy.cvm_measure import (  # opening an archive loads no numpy
        CvmConfig,
        measure,
        measurement_problem,
    )

    points = (*sorted(c2), *outline_order(c3), *outline_order(c4))
    if problem := measurement_problem(measure(points), CvmConfig()):
        raise bad_annotation(f"the points are not vertebrae: {problem}")
    return points


def outline_order(points: list[Point]) -> list[Point]:
    """Five points (x, y) of an outline as superior posterior, inferior posterior, middle, anterior, superior anterior.

    Posterior is small x, and y points down. The middle of the lower border is where the outline is straightest: the largest
    angle of all points that are below the opposite edge.
    """
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    # Counter-clockwise on the screen: down the posterior side, along the lower border, up the anterior side.
    ring = sorted(points, key=lambda p: math.atan2(p[0] - x, p[1] - y))
    below = [k for k in range(5) if ring[k][1] > (ring[k - 2][1] + ring[k - 3][1]) / 2]
    middle = max(below or range(5), key=lambda k: _angle(ring[k - 1], ring[k], ring[(k + 1) % 5]))
    return [ring[(middle + step) % 5] for step in (-2, -1, 0, 1, 2)]


def bad_annotation(message: str) -> InputProblem:
    """The problem of an annotation that cannot be used."""
    return InputProblem("list", "bad_label", message)


def _shapes(data: bytes) -> list[dict[str, Any]]:
    try:
        shapes = json.loads(data)["shapes"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise bad_annotation("not a labelme JSON file with shapes") from error
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise bad_annotation("the shapes of this labelme JSON file are not a list of shapes")
    return shapes


def _points(shape: dict[str, Any], group: str) -> list[Point]:
    try:
        points = [(float(x), float(y)) for x, y in shape["points"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise bad_annotation(f"C{group}: the points are not pairs of numbers") from error
    if not all(math.isfinite(value) for point in points for value in point):
        raise bad_annotation(f"C{group}: a point is not a finite number")
    needed = COUNTS[group]
    if not needed <= len(points) <= _MOST_POINTS:
        raise bad_annotation(f"C{group}: {needed} points are needed, {len(points)} were found")
    while len(points) > needed:
        _, later = min(
            combinations(range(len(points)), 2), key=lambda pair: math.dist(points[pair[0]], points[pair[1]])
        )
        del points[later]
    if len(set(points)) < needed:
        raise bad_annotation(f"C{group}: two of its points are the same")
    return points


def _angle(before: Point, corner: Point, after: Point) -> float:
    """The inner angle of a ring that runs counter-clockwise on the screen, 0 to 2 pi; above pi at a concave corner."""
    a = math.atan2(before[1] - corner[1], before[0] - corner[0])
    b = math.atan2(after[1] - corner[1], after[0] - corner[0])
    return (b - a) % math.tau
