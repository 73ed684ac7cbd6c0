"""How far predicted landmarks lie from the true ones, how well their sigma says so, and how often the stage is right.

Axis letters: N images, K landmarks in the order of cephalometry.LANDMARKS. Points are (x, y) in pixels of the original image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneage_ray.anatomy.cephalometry import LANDMARKS, SETS
from boneage_ray.anatomy.cvm import STAGES
from boneage_ray.evaluation.bootstrap import bootstrap_interval
from boneage_ray.preparation.geometry import Floats

DETECTED_MM = (2.0, 2.5, 3.0, 4.0)
# The radial error of a round normal spread of 1: its mean, and what 95 % of the errors stay below.
MEAN_RADIAL, RADIAL_95 = math.sqrt(math.pi / 2), math.sqrt(-2 * math.log(0.05))
_BINS, _PROBABILITY_BINS = 8, 10


@dataclass(frozen=True)
class LandmarkPredictions:
    """All that was predicted of a split.

    `points_NK4`: x, y, sigma, confidence, NaN where nothing is predicted. `true_NK2`: x, y, NaN without a label. `spacing_N`: mm
    a pixel of the original, NaN if unknown. `stages` and `true_stages` (the same rules on the given points) are None where there
    is none.
    """

    record_ids: Sequence[str]
    points_NK4: Floats
    true_NK2: Floats
    spacing_N: Floats
    stages: Sequence[str | None]
    true_stages: Sequence[str | None]
    probabilities: Sequence[Mapping[str, float] | None]

    @property
    def radial(self) -> Floats:
        """(N, K) distances between prediction and truth in pixels of the original; NaN where either is missing."""
        return np.asarray(np.hypot(*np.moveaxis(self.points_NK4[..., :2] - self.true_NK2, -1, 0)))

    @property
    def missed(self) -> NDArray[np.bool_]:
        """(N, K): labelled, and the model has a map for it, but the map shows no point."""
        nowhere = np.isnan(self.points_NK4[..., 0]) & np.isfinite(self.points_NK4[..., 3])
        return np.asarray(nowhere & np.isfinite(self.true_NK2[..., 0]))


def analyse_landmarks(predictions: LandmarkPredictions, seed: int = 0) -> dict[str, Any]:
    """Everything that the page and metrics.json say; every figure over images is their mean with a 95 % bootstrap interval.

    `missed_points`: how many of each set's labelled points the model shows nowhere: they are in no error, and in no share of
    points detected.
    """
    return {
        "n": len(predictions.record_ids),
        "missed_points": {name: int(predictions.missed[:, which].sum()) for name, which in SETS.items()},
        "sets": {
            name: found
            for name, which in SETS.items()
            if (found := _set_figures(predictions, name, which, np.random.default_rng(seed)))
        },
        "sigma": sigma_reliability(predictions),
        "stage": stage_figures(predictions, np.random.default_rng(seed)),
    }


def _set_figures(
    predictions: LandmarkPredictions, name: str, which: slice, rng: np.random.Generator
) -> dict[str, Any] | None:
    radial_NK = predictions.radial[:, which]
    labelled_N = np.isfinite(radial_NK).any(1)
    if not labelled_N.any():
        return None
    found: dict[str, Any] = {
        "n": int(labelled_N.sum()),
        "points": int(np.isfinite(radial_NK).sum()),
        "mre_px": float(np.nanmean(radial_NK[labelled_N], axis=1).mean()),
    }
    mm_NK = radial_NK * predictions.spacing_N[:, None]
    known_N = np.isfinite(predictions.spacing_N) & (labelled_N | predictions.missed[:, which].any(1))
    if np.isfinite(mm_NK).any():
        found |= _in_mm(mm_NK[known_N], predictions.missed[:, which][known_N], rng)
        found["landmarks"] = [_one(label, mm_NK[:, k]) for k, label in enumerate(LANDMARKS[which])]
    found["images"] = _of_images(predictions, mm_NK, "mm") or _of_images(predictions, radial_NK, "px")
    return found


def _in_mm(mm_NK: Floats, missed_NK: NDArray[np.bool_], rng: np.random.Generator) -> dict[str, Any]:
    found_N = np.isfinite(mm_NK).any(1)  # of the others no point was found at all: they count as not detected
    of_image_N, every = np.nanmean(mm_NK[found_N], axis=1), mm_NK[np.isfinite(mm_NK)]
    found: dict[str, Any] = {
        "with_spacing": len(mm_NK),
        "mre_mm": float(of_image_N.mean()),
        "mre_mm_interval": bootstrap_interval(of_image_N, rng),
        "sd_mm": float(every.std()),
        "percentiles_mm": {str(q): float(np.percentile(every, q)) for q in (50, 75, 90, 95, 100)},
        "sdr": {},
    }
    for limit in DETECTED_MM:
        counted_NK = np.isfinite(mm_NK) | missed_NK
        shares_N = np.nanmean(np.where(counted_NK, mm_NK <= limit, np.nan), axis=1)
        found["sdr"][f"{limit:g}"] = {
            "share": float(shares_N.mean()),
            "interval": bootstrap_interval(shares_N, rng),
        }
    return found


def _one(label: str, mm_N: Floats) -> dict[str, Any]:
    known = mm_N[np.isfinite(mm_N)]
    if not known.size:
        return {"name": label, "n": 0, "mre_mm": None, "sd_mm": None, "sdr_2": None}
    share = float((known <= DETECTED_MM[0]).mean())
    return {
        "name": label,
        "n": int(known.size),
        "mre_mm": float(known.mean()),
        "sd_mm": float(known.std()),
        "sdr_2": share,
    }


def _of_images(predictions: LandmarkPredictions, radial_NK: Floats, unit: str) -> list[dict[str, Any]]:
    """Mean radial error of each image whose error is known in this unit, the largest first."""
    rows = [
        {"record_id": name, f"mre_{unit}": float(np.nanmean(radial_K)), f"worst_{unit}": float(np.nanmax(radial_K))}
        for name, radial_K in zip(predictions.record_ids, radial_NK, strict=True)
        if np.isfinite(radial_K).any()
    ]
    return sorted(rows, key=lambda row: (-float(str(row[f"mre_{unit}"])), str(row["record_id"])))


def sigma_reliability(predictions: LandmarkPredictions) -> dict[str, Any] | None:
    """Expected against true radial error, in bins of equal size by sigma, in pixels of the original; None without a label.

    A round normal error of standard deviation sigma along each axis has a mean length of sigma * sqrt(pi / 2) (Rayleigh).
    `coverage_95`: the share of the points within sigma * sqrt(-2 ln 0.05).
    """
    radial, sigma = predictions.radial.ravel(), predictions.points_NK4[..., 2].ravel()
    known = np.isfinite(radial) & np.isfinite(sigma)
    if not known.any():
        return None
    order = np.argsort(sigma[known], kind="stable")
    radial, sigma = radial[known][order], sigma[known][order]
    bins = [part for part in np.array_split(np.arange(len(sigma)), min(_BINS, len(sigma))) if len(part)]
    return {
        "n": len(sigma),
        "coverage_95": float((radial <= RADIAL_95 * sigma).mean()),
        "bins": [
            {
                "n": len(part),
                "expected_px": float(sigma[part].mean() * MEAN_RADIAL),
                "true_px": float(radial[part].mean()),
            }
            for part in bins
        ],
    }


def stage_figures(predictions: LandmarkPredictions, rng: np.random.Generator) -> dict[str, Any] | None:
    """Agreement of the predicted stages with those of the given points; None where no image has both.

    `missed`: images that have a stage by the given points, but whose predicted points give none.
    """
    pairs = [
        (STAGES.index(given), STAGES.index(true), chances)
        for given, true, chances in zip(
            predictions.stages, predictions.true_stages, predictions.probabilities, strict=True
        )
        if given in STAGES and true in STAGES
    ]
    if not pairs:
        return None
    missed = sum(true in STAGES for true in predictions.true_stages) - len(pairs)
    given_N, true_N = (np.array([pair[k] for pair in pairs]) for k in (0, 1))
    right_N = (given_N == true_N).astype(np.float64)
    return {
        "n": len(pairs),
        "missed": missed,
        "classes": list(STAGES),
        "accuracy": float(right_N.mean()),
        "accuracy_interval": bootstrap_interval(right_N, rng),
        "adjacent": float((np.abs(given_N - true_N) <= 1).mean()),
        "weighted_kappa": quadratic_kappa(true_N.tolist(), given_N.tolist()),
        "confusion": _confusion(true_N.tolist(), given_N.tolist()),
        "calibration_error": _calibration_error([(chances, true) for _, true, chances in pairs if chances]),
    }


def quadratic_kappa(true: Sequence[int], given: Sequence[int]) -> float | None:
    """Cohen's kappa with quadratic weights (Cohen 1968); None where only one stage occurs, for it is not defined then."""
    import torch
    from torchmetrics.functional.classification import multiclass_cohen_kappa

    pair = torch.tensor(given), torch.tensor(true)
    kappa = float(multiclass_cohen_kappa(*pair, num_classes=len(STAGES), weights="quadratic"))
    return kappa if math.isfinite(kappa) else None


def _confusion(true: Sequence[int], given: Sequence[int]) -> list[list[int]]:
    """Counts, rows true and columns predicted."""
    import torch
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    counts: list[list[int]] = multiclass_confusion_matrix(
        torch.tensor(given), torch.tensor(true), num_classes=len(STAGES)
    ).tolist()
    return counts


def _calibration_error(pairs: Sequence[tuple[Mapping[str, float], int]]) -> float | None:
    """Expected calibration error of the likeliest stage's probability, in ten bins (Guo et al. 2017)."""
    if not pairs:
        return None
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    chances = torch.tensor([[found.get(name, 0.0) for name in STAGES] for found, _ in pairs])
    true = torch.tensor([stage for _, stage in pairs])
    return float(multiclass_calibration_error(chances, true, num_classes=len(STAGES), n_bins=_PROBABILITY_BINS))
