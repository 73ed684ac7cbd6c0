"""ISBI 2014/2015 text annotations: 19 lines `x,y`, then class labels that are not read."""

from __future__ import annotations

import math
import re

from boneage_ray.anatomy.cephalometry import FACIAL
from boneage_ray.archives.archive import Points
from boneage_ray.archives.labelme import bad_annotation

_DISTINCT = 15  # some annotators put gnathion and menton on one pixel


def read_isbi(data: bytes) -> Points:
    """The 19 facial points (x, y) in pixels of the original, in the order of `anatomy.cephalometry.FACIAL`.

    Raises `InputProblem` (bad_label), naming the line that cannot be read.
    """
    lines = [line for line in data.decode("utf-8-sig", errors="replace").splitlines() if line.strip()]
    if len(lines) < len(FACIAL):
        raise bad_annotation(f"{len(FACIAL)} lines x,y are needed, {len(lines)} were found")
    points = tuple(_point(line, number) for number, line in enumerate(lines[: len(FACIAL)], start=1))
    if len(set(points)) < _DISTINCT:
        raise bad_annotation(f"only {len(set(points))} of the {len(FACIAL)} points are at different places")
    return points


def _point(line: str, number: int) -> tuple[float, float]:
    try:
        x, y = map(float, re.split(r"[,;\s]+", line.strip()))
    except ValueError as error:
        raise bad_annotation(f"line {number} is not x,y") from error
    if not math.isfinite(x) or not math.isfinite(y):
        raise bad_annotation(f"line {number} is not a finite point")
    return x, y
