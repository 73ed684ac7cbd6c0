"""Cervical maturation stage from 13 vertebral points, with measurements, trace and probabilities.

>>> import numpy as np
>>> c2 = [(0, 0), (60, -20), (120, 0)]
>>> body = [(0, 0), (0, 120), (60, 100), (120, 120), (120, 0)]
>>> points = np.array(c2 + [(x, y + 40) for x, y in body] + [(x, y + 200) for x, y in body])
>>> stage(points, pixel_spacing_mm=0.1).stage
'CS5'

cvm_measure measures, cvm_rules decides, cvm_trace explains the decision.
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
    "assess",
    "assess_all",
    "measure",
    "probabilities",
    "stage",
]

SAMPLES = 256
_POINTS = len(VERTEBRAL)
_DRAWS_AT_ONCE = 8192  # keeps the arrays in the processor's cache
_FEWEST = 0.5  # fraction of the draws that must be usable
_DEFAULT = CvmConfig()


@dataclass(frozen=True)
class Staging:
    """The stage of one head: one of STAGES, or "undefined" in compat mode. `trace` is printed line by line."""

    stage: str
    typical: bool
    measurements: dict[str, float]
    flags: tuple[str, ...]
    trace: tuple[TraceStep, ...]


@dataclass(frozen=True)
class CvmResult:
    """The four columns of a result row, and its flags. `problem` says why there is no stage; the columns are then None."""

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
    """Stage of one head with its trace. Points (13, 2) are (x, y) in pixels of the original image and are not changed.

    Raises MeasurementError if the points cannot be three vertebrae, SpacingError if the spacing is not a positive number.
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
    """Stage -> probability under a normal error of each coordinate with the point's sigma, (13,) or (), in pixels.

    Every head uses the same draws, so a result depends only on its own input. Draws that cannot be three vertebrae are left
    out; the result is None if these are more than half. Probabilities sum to 1; in compat mode "undefined" is a stage too.
    Raises what `stage` raises, and MeasurementError for a sigma that is negative or not finite.
    """
    _sound(points_K2, pixel_spacing_mm, config)
    sigma_K = _sound_sigma(sigma_K)
    points_K2 = np.asarray(points_K2, np.float64)
    (shares,) = _shares(points_K2[None], sigma_K[None], [pixel_spacing_mm], config, _noise(samples, seed))
    return _as_map(shares, config)


def assess(
    points_K2: npt.ArrayLike,
    sigma_K: npt.ArrayLike,
    pixel_spacing_mm: float | None = None,
    config: CvmConfig = _DEFAULT,
) -> CvmResult:
    """All cervical columns of one head; points (13, 2), sigma (13,) or (), in pixels. Raises what `probabilities` raises."""
    _sound(points_K2, pixel_spacing_mm, config)
    sigma_K = _sound_sigma(sigma_K)
    return assess_all(np.asarray(points_K2, np.float64)[None], sigma_K[None], [pixel_spacing_mm], config)[0]


def assess_all(
    points_BK2: npt.ArrayLike,
    sigma_BK: npt.ArrayLike,
    spacings_mm: Sequence[float | None],
    config: CvmConfig = _DEFAULT,
    samples: int = SAMPLES,
    seed: int = 0,
) -> list[CvmResult]:
    """`assess` for many heads (B, 13, 2), (B, 13), B spacings. A head that cannot be measured gets a `problem`."""
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
    problem = measurement_problem(measured, config)
    if problem:
        return CvmResult(None, None, None, None, problem=problem)
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
    """Standard normal draws (2, 13, 1, samples)."""
    draws = np.random.default_rng(seed).standard_normal((2, _POINTS, 1, samples), dtype=np.float32)
    draws.setflags(write=False)
    return draws


def _shares(
    points_BK2: Floats, sigma_BK: Floats, spacings_mm: Sequence[float | None], config: CvmConfig, noise_2K1S: Floats
) -> Floats:
    """Shares (B, 7) of the stage codes 0 to 6 among the usable draws; NaN where too few are usable."""
    # Single precision is exact to a ten-thousandth of a pixel, and twice as fast. Draws that overflow are not usable.
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
