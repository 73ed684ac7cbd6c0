"""The figures of an evaluation of ages: months in the arguments, years on the axes; errors stay in months."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from boneage_ray.anatomy.growth import AGE_BINS, MONTHS_PER_YEAR, age_bin
from boneage_ray.evaluation.figures import BLUE, FULL, GREEN, GREY, HALF, INK, SEX_STYLES, as_svg, one_axes, styled
from boneage_ray.tasks.age.findings.analysis import Predictions

# Beyond so many points they are one embedded PNG, else the SVG would grow by 70 bytes a point.
MAX_VECTOR_POINTS = 2000
BAND_MONTHS = 12


@styled
def scatter(predictions: Predictions) -> bytes:
    """Predicted against true age with the line of equality and a band of 12 months."""
    fig, ax = one_axes(HALF, 4.3)
    limit = max(*predictions.true_months, *predictions.predicted_months, 12.0) / MONTHS_PER_YEAR * 1.04
    low = min(*predictions.true_months, *predictions.predicted_months, 0.0) / MONTHS_PER_YEAR * 1.04
    ends, band = np.array([low, limit]), BAND_MONTHS / MONTHS_PER_YEAR
    ax.fill_between(ends, ends - band, ends + band, color=GREEN, alpha=0.16, lw=0, label=f"±{BAND_MONTHS} months")
    ax.plot(ends, ends, color=INK, lw=1, label="predicted = true")
    true = np.asarray(predictions.true_months, np.float64) / MONTHS_PER_YEAR
    _points(ax, predictions, true, true + predictions.errors / MONTHS_PER_YEAR)
    ax.set(xlim=ends, ylim=ends, aspect="equal", xlabel="true age (years)", ylabel="predicted age (years)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    _opaque(ax.legend(loc="upper left", fontsize=9))
    return as_svg(fig, "scatter")


@styled
def residuals(predictions: Predictions, analysis: Mapping[str, Any]) -> bytes:
    """Error against true age, with the mean error and the limits of agreement (Bland and Altman)."""
    fig, ax = one_axes(FULL, 3.8)
    true = np.asarray(predictions.true_months, np.float64) / MONTHS_PER_YEAR
    _points(ax, predictions, true, predictions.errors)
    ax.axhline(0, color=INK, lw=0.8)
    ax.axhline(analysis["bias_months"], color=GREEN, lw=1.6, label=f"mean {analysis['bias_months']:+.1f} months")
    low, high = analysis["limits_of_agreement_months"]
    if low is not None:
        ax.axhline(low, color=GREEN, lw=1.2, ls="--", label=f"95 % limits {low:+.1f} to {high:+.1f}")
        ax.axhline(high, color=GREEN, lw=1.2, ls="--")
    ax.set(xlabel="true age (years)", ylabel="predicted - true (months)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _opaque(fig.legend(loc="outside upper center", ncols=5, fontsize=9))
    return as_svg(fig, "residuals")


@styled
def error_histogram(predictions: Predictions) -> bytes:
    """How often each error occurs; bars of two months (of more if the errors spread widely)."""
    fig, ax = one_axes(HALF, 4.3)
    errors = predictions.errors
    reach = max(float(np.abs(errors).max()), BAND_MONTHS)
    width = 2 * max(1, int(np.ceil(reach / 60)))
    count = int(np.ceil(reach / width))
    counts, edges = np.histogram(errors, bins=width * np.arange(-count, count + 1))
    ax.axvspan(-BAND_MONTHS, BAND_MONTHS, color=GREEN, alpha=0.16, lw=0)
    ax.bar(edges[:-1], counts, width=0.9 * width, align="edge", color=BLUE)
    ax.axvline(0, color=INK, lw=0.8)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="predicted - true (months)", ylabel="cases")
    return as_svg(fig, "errors")


@styled
def errors_by_age(predictions: Predictions) -> bytes:
    """A box of the errors for each two-year bin of the true age, with the number of cases under it."""
    fig, ax = one_axes(FULL, 3.8)
    bins = np.array([age_bin(age) for age in predictions.true_months])
    present = [name for name in AGE_BINS if (bins == name).any()]
    groups = [predictions.errors[bins == name] for name in present]
    line = {"color": INK, "linewidth": 0.9}
    ax.axhspan(-BAND_MONTHS, BAND_MONTHS, color=GREEN, alpha=0.16, lw=0)
    ax.axhline(0, color=INK, lw=0.8)
    ax.boxplot(
        groups,
        widths=0.6,
        patch_artist=True,
        boxprops={"facecolor": "#56B4E9", "edgecolor": INK, "linewidth": 0.9},
        medianprops=line | {"linewidth": 1.6},
        whiskerprops=line,
        capprops=line,
        flierprops={"marker": ".", "markersize": 3, "markeredgecolor": GREY, "rasterized": _many(predictions)},
    )
    labels = [f"{name.removesuffix(' y')}\nn={len(group)}" for name, group in zip(present, groups, strict=True)]
    ax.set_xticks(range(1, len(present) + 1), labels, fontsize=9)
    ax.set(xlabel="true age (years)", ylabel="predicted - true (months)")
    return as_svg(fig, "by-age")


def _many(predictions: Predictions) -> bool:
    return len(predictions.record_id) > MAX_VECTOR_POINTS


def _points(ax: Axes, predictions: Predictions, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    many = _many(predictions)
    for sex, label, marker, colour in SEX_STYLES:
        chosen = np.array([given == sex for given in predictions.sex], bool)
        if chosen.any():
            size, alpha = (2.5, 0.5) if many else (4, 0.6)
            (line,) = ax.plot(x[chosen], y[chosen], marker, color=colour, ms=size, mew=0, alpha=alpha, label=label)
            line.set_rasterized(many)


def _opaque(legend: Legend) -> None:
    """Points are drawn small and faint where there are many; their keys need not be."""
    for handle in legend.legend_handles:
        if isinstance(handle, Line2D) and handle.get_marker() != "None":
            handle.set(alpha=1, markersize=5)
