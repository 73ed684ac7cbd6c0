"""Whether sigma tells which cephalograms have the larger errors."""

from __future__ import annotations

from typing import Any

import numpy as np

from boneage_ray.evaluation.retention import retention_figures
from boneage_ray.tasks.cephalogram.findings.analysis import LandmarkPredictions

SIGMA, ERROR = "mean sigma of the points", "mean radial error (mm; px where no spacing is known)"


def certainty_of_landmarks(predictions: LandmarkPredictions) -> dict[str, Any]:
    """Risk and coverage over the images by the mean sigma of their labelled points, in the unit of the error.

    In mm where every image has a spacing, else in pixels of the original.
    """
    radial_NK = predictions.radial
    sigma_NK = np.where(np.isfinite(radial_NK), predictions.points_NK4[..., 2], np.nan)
    seen_N = np.isfinite(radial_NK).any(1) & np.isfinite(sigma_NK).any(1)
    if not seen_N.any():
        return retention_figures(np.zeros(0), np.zeros(0))
    spacing_N = predictions.spacing_N[seen_N]
    scale_N = spacing_N if np.isfinite(spacing_N).all() else np.ones_like(spacing_N)
    error_N = np.nanmean(radial_NK[seen_N], axis=1) * scale_N
    return retention_figures(np.nanmean(sigma_NK[seen_N], axis=1) * scale_N, error_N)
