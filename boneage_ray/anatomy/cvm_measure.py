"""Lengths and ratios of the cervical vertebrae C2, C3 and C4, from the 13 points of `cephalometry.VERTEBRAL`.

All functions take any number of leading axes: 10,000 images, or 256 draws for each of them. A head that faces left is
recognised by the sense of rotation (front against down), whatever its tilt, and is mirrored first.

Axes: K landmarks, 2 = (x, y) with y down, V vertebrae; `...` are the caller's axes. Arrays of this module have those last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from boneage_ray.anatomy.cephalometry import VERTEBRAL

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]
Spacing = float | Sequence[float | None] | npt.NDArray[Any] | None

# C2, C3, C4: the lower border's posterior corner, middle and anterior corner.
_BORDER = np.array([(0, 1, 2), (4, 5, 6), (9, 10, 11)]).T
# Ends of the borders from C2's lower one down to C4's: posterior, anterior.
_BACKS, _FRONTS = [0, 3, 4, 8, 9], [2, 7, 6, 12, 11]
# C3, C4: corners around the body, down the back and up the front.
_CORNERS = np.array([(3, 4, 6, 7), (8, 9, 11, 12)]).T
_FARTHEST = 1e6  # pixels; no image is larger
_SHORTEST_SIDE = 0.1  # of the body's longest side
_BORDER_MM = (4, 50)  # people have 10 to 20; other values mean a spacing of another image or in another unit


class CvmConfig(BaseModel):
    """How vertebral bodies are measured, and the limits between shapes (McNamara & Franchi 2018).

    `width` over `height` separates horizontal, square and vertical. The default is the base over the anterior height, the
    ratio of Baccetti, Franchi & McNamara 2002 (C3BAR, C4BAR); "mean" is the mean of both sides, "midline" the distance
    between the middles of opposite sides. `tapered` applies when all three borders are concave, where the table has no
    trapezoid: a body with anterior/posterior height below `trapezoid` is classified by its width and height ("ratio"), or
    stays a trapezoid ("trapezoid"; CS4 if both are). `cascade`: a concave border makes those above it concave too, because
    concavity develops from above; flagged where it changes something. `compat="cvmt"`: see cvm_rules.

    Of the published alternatives, the defaults agree best with the published model on 60 real heads and are the most stable
    when points move: tests/benchmarks/cvm_alternatives.py.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    concavity: Literal["auto", "mm", "ratio"] = "auto"
    concave_mm: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    concave_ratio: float = Field(default=0.07, gt=0, lt=1)
    trapezoid: float = Field(default=0.95, gt=0, allow_inf_nan=False)
    square_low: float = Field(default=0.95, gt=0, allow_inf_nan=False)
    square_high: float = Field(default=1.05, gt=0, allow_inf_nan=False)
    width: Literal["inferior", "superior", "mean", "midline"] = "inferior"
    height: Literal["anterior", "posterior", "mean", "midline"] = "anterior"
    tapered: Literal["ratio", "trapezoid"] = "ratio"
    cascade: bool = True
    compat: Literal["none", "cvmt"] = "none"

    @model_validator(mode="after")
    def _the_square_has_two_ends(self) -> CvmConfig:
        if self.square_low > self.square_high:
            raise ValueError(f"square_low {self.square_low} must not be above square_high {self.square_high}")
        return self


class MeasurementError(ValueError):
    """Landmarks that cannot be three vertebrae."""


class SpacingError(MeasurementError):
    """An invalid pixel spacing, or a missing one where millimetres are required."""


@dataclass(frozen=True)
class Measurements:
    """Lengths in pixels. V = C2, C3, C4 for `depth` and `chord`; C3, C4 for the rest.

    `mm_per_px` (...) is NaN where unknown. `checks`: name -> passed (...); `usable` (...): all checks passed.
    """

    depth: Floats  # (3, ...), positive towards the body
    chord: Floats  # (3, ...)
    posterior: Floats  # (2, ...), as the six below
    anterior: Floats
    superior: Floats
    inferior: Floats
    midline_width: Floats
    midline_height: Floats
    mm_per_px: Floats
    faces_left: Bools
    checks: dict[str, Bools]
    usable: Bools

    def at(self, k: int) -> Measurements:
        """One head of many; the batch's axis is the last one."""
        checks = {name: sound[k] for name, sound in self.checks.items()}
        rest = {f.name: getattr(self, f.name)[..., k] for f in fields(self) if f.name != "checks"}
        return Measurements(**rest, checks=checks)

    @property
    def anterior_to_posterior(self) -> Floats:
        """AH / PH of C3, C4; (2, ...)."""
        return _ratio(self.anterior, self.posterior)

    @property
    def superior_to_inferior(self) -> Floats:
        """Ws / Wi of C3, C4; (2, ...)."""
        return _ratio(self.superior, self.inferior)

    def width_to_height(self, width: str, height: str) -> Floats:
        """W / H of C3, C4 for one way of taking each; (2, ...)."""
        widths = {"inferior": self.inferior, "superior": self.superior, "midline": self.midline_width}
        heights = {"anterior": self.anterior, "posterior": self.posterior, "midline": self.midline_height}
        w = (self.superior + self.inferior) / 2 if width == "mean" else widths[width]
        h = (self.anterior + self.posterior) / 2 if height == "mean" else heights[height]
        return _ratio(w, h)


def measure(points_K2: npt.ArrayLike, pixel_spacing_mm: Spacing = None) -> Measurements:
    """Measure points (..., 13, 2), (x, y) in pixels of the original image; they are not changed.

    `pixel_spacing_mm`: one for all, or one for each (broadcast against `...`), None where unknown. Implausible points and
    spacings are only marked, see `Measurements.usable`, `measurement_problem` and `refuse`. Raises MeasurementError for
    another shape.
    """
    given = np.asarray(points_K2, np.float64)
    if given.ndim < 2 or given.shape[-2:] != (len(VERTEBRAL), 2):
        raise MeasurementError(f"points of shape {given.shape} were given, (..., {len(VERTEBRAL)}, 2) are needed")
    return measure_planes(np.ascontiguousarray(np.moveaxis(given, (-1, -2), (0, 1))), pixel_spacing_mm)


def measure_planes(given_2K: Floats, pixel_spacing_mm: Spacing) -> Measurements:
    """`measure` for points (2, 13, ...); fast when they have this memory layout."""
    found = np.asarray((np.abs(given_2K) <= _FARTHEST).all((0, 1)))  # False for NaN too
    points = np.where(found, given_2K, 0.0)
    middles = (points[:, _BACKS] + points[:, _FRONTS]) / 2
    forward = points[:, _FRONTS] - points[:, _BACKS]
    turn = _cross(forward.sum(1), middles[:, -1] - middles[:, 0])
    side = np.where(turn < 0, -1, 1).astype(turn.dtype)

    back, middle, front = (points[:, row] for row in _BORDER)
    border, inward = front - back, middle - back
    chord = _length(border)
    along = _ratio(_dot(inward, border), chord**2)
    depth = -side * _ratio(_cross(border, inward), chord)
    corners = points[:, _CORNERS]
    walls = np.roll(corners, -1, axis=1) - corners
    lengths = _length(walls)
    centres = (np.roll(corners, -1, axis=1) + corners) / 2
    spacing, spaced = _spacings(pixel_spacing_mm, found.shape)
    long_mm = chord.mean(0) * spacing
    checks = {
        "points are numbers on an image": found,
        "each vertebra is below the one before": (side * _cross(forward[:, :-1], np.diff(middles, axis=1)) > 0).all(0),
        "no side is shorter than a tenth of another": (lengths.min(0) > _SHORTEST_SIDE * lengths.max(0)).all(0),
        "corners go round the body without crossing": (side * _cross(walls, np.roll(walls, -1, 1)) < 0).all((0, 1)),
        "a lower border's middle is between its corners": ((along > 0) & (along < 1) & (np.abs(depth) < chord / 2)).all(
            0
        ),
        "a lower border keeps clear of the upper one": (depth[1:] < np.minimum(lengths[0], lengths[2])).all(0),
        "the pixel spacing is a positive number": spaced,
        f"by the pixel spacing the lower borders are {_BORDER_MM[0]} to {_BORDER_MM[1]} mm long": np.isnan(long_mm)
        | ((long_mm >= _BORDER_MM[0]) & (long_mm <= _BORDER_MM[1])),
    }
    usable = np.logical_and.reduce(list(checks.values()))
    across = _length(centres[:, 2] - centres[:, 0]), _length(centres[:, 3] - centres[:, 1])
    sides = (lengths[0], lengths[2], lengths[3], lengths[1])
    return Measurements(depth, chord, *sides, *across, spacing, np.asarray(side < 0), checks, usable)


def measurement_problem(measured: Measurements, config: CvmConfig) -> str | None:
    """What is wrong with the measurements of one head, or None."""
    for what, sound in measured.checks.items():
        if not sound:
            return f"these landmarks cannot be measured; failed check: {what}"
    if config.concavity == "mm" and np.isnan(measured.mm_per_px):
        return 'concavity "mm" needs millimetres: give a pixel spacing, or set concavity to "auto" or "ratio"'
    return None


def refuse(measured: Measurements, config: CvmConfig) -> None:
    """Raise MeasurementError, or SpacingError, if there is a `measurement_problem`."""
    problem = measurement_problem(measured, config)
    if problem:
        raise SpacingError(problem) if "spacing" in problem else MeasurementError(problem)


def _spacings(given: Spacing, shape: tuple[int, ...]) -> tuple[Floats, Bools]:
    """mm per pixel, NaN where unknown or wrong, and whether each is valid; both (...)."""
    values: Any = np.asarray(given, dtype=object)
    unknown = np.asarray(values == None, bool)  # noqa: E711  element by element
    numbers = np.where(unknown, np.nan, values).astype(np.float64)
    positive = np.isfinite(numbers) & (numbers > 0)
    spacing: Floats = np.where(positive, numbers, np.nan)
    return np.broadcast_to(spacing, shape), np.broadcast_to(unknown | positive, shape)


def _length(vector: Floats) -> Floats:
    return np.asarray(np.sqrt(vector[0] ** 2 + vector[1] ** 2))


def _cross(a: Floats, b: Floats) -> Floats:
    return np.asarray(a[0] * b[1] - a[1] * b[0])


def _dot(a: Floats, b: Floats) -> Floats:
    return np.asarray(a[0] * b[0] + a[1] * b[1])


def _ratio(a: Floats, b: Floats) -> Floats:
    """a / b; not finite where b is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(a / b)
