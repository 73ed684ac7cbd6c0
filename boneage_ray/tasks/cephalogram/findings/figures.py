"""Figures of landmark errors, in the style of figures.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneage_ray.anatomy.cephalometry import SETS
from boneage_ray.evaluation.figures import BLUE, GREEN, GREY, HALF, INK, ORANGE, as_svg, one_axes, styled
from boneage_ray.tasks.cephalogram.findings.analysis import DETECTED_MM, LandmarkPredictions

_COLOURS = {"vertebral": BLUE, "facial": ORANGE}
_SHOWN_MM = 6.0


def _millimetres(predictions: LandmarkPredictions) -> dict[str, NDArray[np.float64]]:
    """The radial errors of each set in mm, where they are known."""
    mm_NK = predictions.radial * predictions.spacing_N[:, None]
    found = {name: mm_NK[:, which][np.isfinite(mm_NK[:, which])] for name, which in SETS.items()}
    return {name: values for name, values in found.items() if values.size}


@styled
def radial_histogram(predictions: LandmarkPredictions) -> bytes:
    """How often each radial error occurs, in bars of 0.2 mm; what is beyond 6 mm is put into the last."""
    fig, ax = one_axes(HALF, 3.6)
    edges = np.arange(0, _SHOWN_MM + 0.2, 0.2)
    for name, values in _millimetres(predictions).items():
        shares = np.histogram(np.minimum(values, _SHOWN_MM - 1e-6), bins=edges)[0] / len(values)
        ax.step(edges[:-1], 100 * shares, where="post", color=_COLOURS[name], lw=1.6, label=f"{name} ({len(values)})")
    ax.set(xlabel="radial error (mm)", ylabel="points (%)", xlim=(0, _SHOWN_MM))
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=9)
    return as_svg(fig, "radial")


@styled
def detection_curve(predictions: LandmarkPredictions) -> bytes:
    """The share of the points that lie within a distance of the truth, with the published distances marked."""
    fig, ax = one_axes(HALF, 3.6)
    for limit in DETECTED_MM:
        ax.axvline(limit, color=GREY, lw=0.8, ls=":")
    for name, values in _millimetres(predictions).items():
        ordered = np.sort(values)
        shares = 100 * np.arange(1, len(ordered) + 1) / len(ordered)
        ax.step(
            np.append(ordered, _SHOWN_MM), np.append(shares, shares[-1]), where="post", color=_COLOURS[name], label=name
        )
    ax.set(xlabel="distance (mm)", ylabel="points within it (%)", xlim=(0, _SHOWN_MM), ylim=(0, 101))
    ax.legend(fontsize=9, loc="lower right")
    return as_svg(fig, "detection")


@styled
def sigma_figure(found: Mapping[str, Any]) -> bytes:
    """Expected against true radial error in bins of equal size by sigma. On the line, sigma is as large as the errors are."""
    fig, ax = one_axes(HALF, 3.6)
    expected, true = (np.array([part[key] for part in found["bins"]]) for key in ("expected_px", "true_px"))
    end = 1.08 * float(max(expected.max(), true.max())) or 1.0
    ax.plot([0, end], [0, end], color=INK, lw=1, label="expected = true")
    ax.plot(
        expected, true, "o-", color=GREEN, lw=1.2, ms=5, label=f"{len(expected)} bins of {found['bins'][0]['n']} points"
    )
    ax.set(xlabel="expected radial error (px)", ylabel="true radial error (px)", xlim=(0, end), ylim=(0, end))
    ax.legend(fontsize=9, loc="upper left")
    return as_svg(fig, "sigma")
