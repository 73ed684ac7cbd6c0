"""From 13 vertebral points to a cervical maturation stage, its measurements, its trace and its probabilities.

>>> import numpy as np
>>> c2 = [(0, 0), (60, -20), (120, 0)]
>>> body = [(0, 0), (0, 120), (60, 100), (120, 120), (120, 0)]
>>> points = np.array(c2 + [(x, y + 40) for x, y in body] + [(x, y + 200) for x, y in body])
>>> stage(points, pixel_spacing_mm=0.1).stage
'CS5'

Measuring is in cvm_measure, the rules in cvm_rules, what is told of them in cvm_trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from boneage_ray.anatomy.cephalometry import VERTEBRAL
from boneage_ray.anatomy.cvm_measure import (
    CvmConfig,
    Floats,
    MeasurementError,
    Measurements,
    SpacingError,
    measure,
    measure_planes,
    measurement_problem,
    refuse,
)
from boneage_ray.anatomy.cvm_rules import STAGES, UNDEFINED, Decisions, decide, stage_name
from boneage_ray.anatomy.cvm_trace import NAMES, TraceStep, trace

__all__ = [
    "STAGES",
    "UNDEFINED",
    "CvmConfig",
    "CvmResult",
    "MeasurementError",
    "SpacingError",
    "Staging",
    "TraceStep",
    "judge",
    "judge_all",
    "measure",
    "probabilities",
    "stage",
]

SAMPLES = 256
_POINTS = len(VERTEBRAL)
_DRAWS_AT_ONCE = 8192  # keeps the arrays in the processor's cache
_FEWEST = 0.5  # of the draws that have to be usable
_DEFAULT = CvmConfig()


@dataclass(frozen=True)
class Staging:
    """One head. `stage` is one of STAGES, or "undefined" in compat mode; `trace` prints well line by line."""

    stage: str
    typical: bool
    measurements: dict[str, float]
    flags: tuple[str, ...]
    trace: tuple[TraceStep, ...]


@dataclass(frozen=True)
class CvmResult:
    """The four columns of a result row and flags for it; where `problem` says why there is no stage, all are None."""

    cvm_stage: str | None
    cvm_typical: bool | None
    cvm_probabilities: dict[str, float] | None
    cvm_measurements: dict[str, float] | None
    flags: tuple[str, ...] = ()
    problem: str | None = None

    def columns(self) -> dict[str, object]:
        """The columns by their names in a result row."""
        names = ("cvm_stage", "cvm_typical", "cvm_probabilities", "cvm_measurements")
        return {name: getattr(self, name) for name in names}


def stage(points_K2: npt.ArrayLike, pixel_spacing_mm: float | None = None, config: CvmConfig = _DEFAULT) -> Staging:
    """Stage of one head with its trace; points (13, 2) are (x, y) in pixels of the original image and are not changed.

    MeasurementError where the points cannot be three vertebrae, SpacingError for a spacing that is no positive number.
    """
    measured = _sound(points_K2, pixel_spacing_mm, config)
    decided = decide(measured, config)
    name, typical = stage_name(int(decided.stages)), bool(decided.typical)
    return Staging(
        name, typical, _named(measured, decided), _flags(measured, decided), trace(measured, decided, config)
    )


def probabilities(
    points_K2: npt.ArrayLike,
    sigma_K: npt.ArrayLike,
    pixel_spacing_mm: float | None = None,
    config: CvmConfig = _DEFAULT,
    samples: int = SAMPLES,
    seed: int = 0,
) -> dict[str, float] | None:
    """Stage -> probability if each coordinate of a point is off by a normal error of the point's sigma, (13,) or (), pixels.

    The same draws serve every head, so that a result depends on nothing but its own input. Draws that make no vertebrae are
    left out; None if they are more than half. Sums to 1; in compat mode "undefined" is a stage too. Errors as for `stage`,
    and MeasurementError for a sigma that is negative or not finite.
    """
    _sound(points_K2, pixel_spacing_mm, config)
    sigma_K = _sound_sigma(sigma_K)
    points_K2 = np.asarray(points_K2, np.float64)
    (shares,) = _shares(points_K2[None], sigma_K[None], [pixel_spacing_mm], config, _noise(samples, seed))
    return _as_map(shares, config)


def judge(
    points_K2: npt.ArrayLike,
    sigma_K: npt.ArrayLike,
    pixel_spacing_mm: float | None = None,
    config: CvmConfig = _DEFAULT,
) -> CvmResult:
    """Everything that a result row says of one head; points (13, 2), sigma (13,) or (), pixels. Errors as `probabilities`."""
    _sound(points_K2, pixel_spacing_mm, config)
    sigma_K = _sound_sigma(sigma_K)
    return judge_all(np.asarray(points_K2, np.float64)[None], sigma_K[None], [pixel_spacing_mm], config)[0]


def judge_all(
    points_BK2: npt.ArrayLike,
    sigma_BK: npt.ArrayLike,
    spacings_mm: Sequence[float | None],
    config: CvmConfig = _DEFAULT,
    samples: int = SAMPLES,
    seed: int = 0,
) -> list[CvmResult]:
    """`judge` for many heads (B, 13, 2), (B, 13), B spacings; one that cannot be measured gets a `problem` and stops no other."""
    points, sigma = np.asarray(points_BK2, np.float64), np.asarray(sigma_BK, np.float64)
    measured = measure(points, spacings_mm)
    decided = decide(measured, config)
    noise, step = _noise(samples, seed), max(1, _DRAWS_AT_ONCE // samples)
    results = []
    for start in range(0, len(points), step):
        part = slice(start, start + step)
        shares = _shares(points[part], sigma[part], spacings_mm[part], config, noise)
        results += [
            _result(measured.at(start + k), decided.at(start + k), config, share) for k, share in enumerate(shares)
        ]
    return results


def _result(measured: Measurements, decided: Decisions, config: CvmConfig, shares_7: Floats) -> CvmResult:
    told = measurement_problem(measured, config)
    if told:
        return CvmResult(None, None, None, None, problem=told)
    chances = _as_map(shares_7, config)
    flags = _flags(measured, decided) + (() if chances else ("cvm_no_probabilities",))
    return CvmResult(stage_name(int(decided.stages)), bool(decided.typical), chances, _named(measured, decided), flags)


def _sound(points_K2: npt.ArrayLike, spacing: float | None, config: CvmConfig) -> Measurements:
    if np.ndim(points_K2) != 2:
        raise MeasurementError(f"points of shape {np.shape(points_K2)} were given, {(_POINTS, 2)} is needed")
    measured = measure(points_K2, spacing)
    refuse(measured, config)
    return measured


def _sound_sigma(sigma_K: npt.ArrayLike) -> Floats:
    sigma = np.asarray(sigma_K, np.float64)
    if not (np.isfinite(sigma) & (sigma >= 0)).all():
        raise MeasurementError("a landmark's sigma is not a finite number of pixels of 0 or more")
    return np.broadcast_to(sigma, (_POINTS,))


@lru_cache(maxsize=4)
def _noise(samples: int, seed: int) -> Floats:
    """Unit draws (2, 13, 1, samples)."""
    draws = np.random.default_rng(seed).standard_normal((2, _POINTS, 1, samples), dtype=np.float32)
    draws.setflags(write=False)
    return draws


def _shares(
    points_BK2: Floats, sigma_BK: Floats, spacings_mm: Sequence[float | None], config: CvmConfig, noise_2K1S: Floats
) -> Floats:
    """Shares (B, 7) of the stage codes 0 to 6 among the usable draws; NaN where too few are."""
    # Single precision is a ten-thousandth of a pixel, and twice as fast. What overflows is not usable.
    with np.errstate(over="ignore", invalid="ignore"):
        points, sigma = points_BK2.T.astype(np.float32), np.where(sigma_BK >= 0, sigma_BK, np.nan).T.astype(np.float32)
        draws = points[..., None] + sigma[..., None] * noise_2K1S
    measured = measure_planes(draws, np.asarray(spacings_mm, dtype=object)[:, None])
    codes = np.where(measured.usable, decide(measured, config).stages, -1)
    counts = np.stack([(codes == code).sum(1) for code in range(7)], axis=1)
    usable = counts.sum(1, keepdims=True)
    return np.where(usable >= _FEWEST * noise_2K1S.shape[-1], counts / np.maximum(usable, 1), np.nan)


def _as_map(shares_7: Floats, config: CvmConfig) -> dict[str, float] | None:
    if np.isnan(shares_7).any():
        return None
    found = {name: float(share) for name, share in zip(STAGES, shares_7[1:], strict=True)}
    return found | ({UNDEFINED: float(shares_7[0])} if config.compat == "cvmt" else {})


def _flags(measured: Measurements, decided: Decisions) -> tuple[str, ...]:
    said = {
        "cvm_left_facing": measured.faces_left,
        "cvm_scale_free": ~decided.in_mm,
        "cvm_cascaded": decided.cascaded,
    }
    return tuple(flag for flag, holds in said.items() if holds)


def _named(measured: Measurements, decided: Decisions) -> dict[str, float]:
    """Measurements of one head by names with units: mm where the spacing is known, else px; ratios have none."""
    known = not np.isnan(measured.mm_per_px)
    unit, scale = ("mm", float(measured.mm_per_px)) if known else ("px", 1.0)
    named = {}
    for v, name in enumerate(NAMES):
        named[f"{name}_depth_{unit}"] = scale * float(measured.depth[v])
        named[f"{name}_depth_ratio"] = float(measured.depth[v] / measured.chord[v])
        named[f"{name}_lower_border_{unit}"] = scale * float(measured.chord[v])
    ratios = {
        "anterior_to_posterior": measured.anterior_to_posterior,
        "superior_to_inferior": measured.superior_to_inferior,
        "width_to_height": decided.width_to_height,
    }
    for v, name in enumerate(NAMES[1:]):
        named[f"{name}_posterior_height_{unit}"] = scale * float(measured.posterior[v])
        named[f"{name}_anterior_height_{unit}"] = scale * float(measured.anterior[v])
        named[f"{name}_superior_width_{unit}"] = scale * float(measured.superior[v])
        named |= {f"{name}_{what}": float(ratio[v]) for what, ratio in ratios.items()}
    return named
