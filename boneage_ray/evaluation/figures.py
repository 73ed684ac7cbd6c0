"""Figures as small SVG with real text, to stand inside a page.

Matplotlib is used through Figure objects only, never through pyplot's global state. Colours are Okabe and Ito's, safe
for colour-blind readers; the sexes also differ by marker. Text and axes are drawn in `INK`, for a page to replace with
its own text colour. Ages are months in the arguments and years on the axes; errors stay in months.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from boneage_ray.anatomy.growth import AGE_BINS

P = ParamSpec("P")

INK = "#123456"  # stands for "the page's text colour"; used by nothing else
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#888888"
# Sex, as a legend says it, marker, colour.
SEX_STYLES = (("F", "girls", "o", ORANGE), ("M", "boys", "^", BLUE), (None, "sex unknown", "s", GREY))
RASTER_DPI = 150
HALF, FULL = 4.6, 9.4  # inches: two beside each other, or one, in the width of the page

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "boneage",  # ids without chance: the same figures are the same bytes
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def styled(draw: Callable[P, bytes]) -> Callable[P, bytes]:
    """Draw in this module's style and leave the settings of the process as they were."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> bytes:
        with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]  # its type lists every setting by name
            return draw(*args, **kwargs)

    return drawn


@styled
def confusion_matrix(classes: Sequence[str], counts: Sequence[Sequence[int]], kappa: float | None, name: str) -> bytes:
    """Counts (rows true, columns predicted) with the share of each row; the weighted kappa is in the title."""
    fig, ax = one_axes(HALF, 1.4 + 0.7 * len(classes))
    table = np.asarray(counts, np.float64)
    totals = table.sum(axis=1, keepdims=True)
    shares = np.divide(table, totals, out=np.zeros_like(table), where=totals > 0)
    ax.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors=GREY, linewidth=0.6)
    for (row, column), share in np.ndenumerate(shares):
        text = f"{counts[row][column]}\n{share:.0%}" if totals[row, 0] else "-"
        colour = "#ffffff" if share > 0.55 else "#0b1f33"
        ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=colour, fontsize=9)
    middle = np.arange(len(classes)) + 0.5
    ax.set_xticks(middle, classes)
    ax.set_yticks(middle, classes, rotation=90, va="center")
    ax.tick_params(length=0, labelsize=9)
    ax.spines[:].set_visible(False)
    ax.grid(False)
    ax.invert_yaxis()
    shown = "not defined" if kappa is None else f"{kappa:.3f}"
    ax.set(xlabel="predicted", ylabel="true", title=f"Quadratic weighted kappa {shown}")
    return as_svg(fig, f"confusion-{name}")


@styled
def age_histogram(ages: Mapping[str, int]) -> bytes:
    """Cases in each two-year bin (keys of `AGE_BINS`); empty bins between the first and the last are shown."""
    fig, ax = one_axes(FULL, 3.2)
    filled = [k for k, name in enumerate(AGE_BINS) if ages.get(name)]
    names = AGE_BINS[filled[0] : filled[-1] + 1] if filled else ()
    bars = ax.bar(range(len(names)), [ages.get(name, 0) for name in names], width=0.85, color=BLUE)
    ax.bar_label(bars, fontsize=9, color=INK, padding=2)
    ax.set_xticks(range(len(names)), [name.removesuffix(" y") for name in names], fontsize=9)
    ax.margins(y=0.14)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="predicted age (years)", ylabel="cases")
    return as_svg(fig, "ages")


@styled
def learning_curve(
    history: Sequence[Mapping[str, Any]],
    key: str = "val_mae_months",
    label: str = "MAE",
    unit: str = "months",
    name: str = "learning",
) -> bytes:
    """Losses and the figure of the validation split, epoch by epoch, where there is one; its best epoch is marked.

    `history`: lines with epoch, train_loss, val_loss and `key`; what is missing or None leaves a gap. `label`, `unit`: of `key`.
    """
    figure = _column(history, key)
    fig, (left, *more) = row_of_axes(FULL, 3.4, 2 if np.isfinite(figure).any() else 1)
    epochs = [line["epoch"] for line in history]
    mark = "." if len(epochs) <= 60 else ""
    for loss, said, colour in (("train_loss", "training", BLUE), ("val_loss", "validation", ORANGE)):
        if np.isfinite(losses := _column(history, loss)).any():
            left.plot(epochs, losses, color=colour, marker=mark, lw=1.4, label=said)
    left.set(xlabel="epoch", ylabel="loss")
    if left.lines:
        left.legend(fontsize=9)
    for right in more:
        right.plot(epochs, figure, color=ORANGE, marker=mark, lw=1.4)
        best = int(np.nanargmin(figure))
        said = f"best: {figure[best]:.1f} {unit}, epoch {epochs[best]}"
        right.plot(epochs[best], figure[best], "D", color=GREEN, ls="", label=said)
        right.legend(fontsize=9)
        right.set(xlabel="epoch", ylabel=f"validation {label} ({unit})" if unit else f"validation {label}")
    for ax in (left, *more):
        ax.set_ylim(bottom=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return as_svg(fig, name)


@styled
def retention_curve(lines: Sequence[Mapping[str, float]], label: str) -> bytes:
    """The mean error of the kept share of the cases (`retention_figures`), and at best; the whole is on the left."""
    fig, ax = one_axes(HALF, 3.6)
    shares = [100 * line["share"] for line in lines]
    ax.plot(shares, [line["error"] for line in lines], color=BLUE, marker="o", ms=4, lw=1.6, label="kept cases")
    ax.plot(shares, [line["best"] for line in lines], color=GREEN, ls="--", lw=1.2, label="at best")
    ax.axhline(lines[0]["error"], color=GREY, lw=1, ls=":", label="by chance")
    ax.set(xlabel="cases kept (%)", ylabel=label, xlim=(101, 49))
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=9)
    return as_svg(fig, "retention")


@styled
def roc_curve(points: Sequence[tuple[float, float]], at: tuple[float, float], labels: tuple[str, str]) -> bytes:
    """Points of a receiver operating characteristic, with the place `at` of the limit in use; `labels` of x and y."""
    fig, ax = one_axes(HALF, 3.8)
    x, y = zip(*points, strict=True)
    ax.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
    ax.plot(x, y, color=BLUE, lw=1.6)
    ax.plot(*at, "D", color=ORANGE, ms=6, label=f"limit in use: {at[0]:.1%} and {at[1]:.1%}")
    ax.set(xlabel=labels[0], ylabel=labels[1], xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), aspect="equal")
    ax.legend(loc="lower right", fontsize=9)
    return as_svg(fig, "roc")


@styled
def moves(bars: Sequence[tuple[str, float, float]], label: str) -> bytes:
    """Horizontal bars (name, mean, 95th percentile): the bar is the mean, the thin line reaches to the percentile."""
    fig, ax = one_axes(FULL, 1.0 + 0.24 * max(len(bars), 1))
    places = range(len(bars))
    ax.barh(places, [mean for _, mean, _ in bars], height=0.65, color=BLUE)
    ax.hlines(places, 0, [high for _, _, high in bars], color=ORANGE, lw=1.4)
    ax.plot([high for _, _, high in bars], places, "|", color=ORANGE, ms=8, mew=1.4)
    ax.set_yticks(places, [name for name, _, _ in bars], fontsize=9)
    ax.set_ylim(len(bars) - 0.4, -0.6)
    ax.set_xlim(left=0)
    ax.set_xlabel(label)
    return as_svg(fig, "moves")


@styled
def tried(points: Sequence[tuple[float | str, float, bool]], setting: str, figure: str) -> bytes:
    """(value of a setting, figure, whether the trial ran to its end) as dots; a wide range on a logarithmic scale."""
    fig, ax = one_axes(HALF, 3.0)
    numbers = [value for value, *_ in points if isinstance(value, int | float) and not isinstance(value, bool)]
    numeric = len(numbers) == len(points)
    for value, best, finished in points:
        ax.plot(value if numeric else str(value), best, "o", color=BLUE, mfc=BLUE if finished else "none", ms=6)
    if numeric and numbers and min(numbers) > 0 and max(numbers) / min(numbers) >= 8:
        ax.set_xscale("log")
    elif numeric:
        ax.locator_params(axis="x", nbins=5)  # labels of small numbers are long
    ax.set(xlabel=setting, ylabel=figure)
    return as_svg(fig, f"tried-{re.sub(r'[^a-z0-9]', '-', setting.lower())}")


def _column(history: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    values = (line.get(key) for line in history)
    return np.array([np.nan if value is None else value for value in values], np.float64)


def one_axes(width: float, height: float) -> tuple[Figure, Axes]:
    fig, (ax,) = row_of_axes(width, height, 1)
    return fig, ax


def row_of_axes(width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure (inches) with axes side by side, each with a faint grid."""
    fig = Figure(figsize=(width, height), layout="constrained")
    axes = [fig.add_subplot(1, columns, column + 1) for column in range(columns)]
    for ax in axes:
        ax.grid(True)
    return fig, axes


def as_svg(fig: Figure, name: str) -> bytes:
    """SVG without prolog and metadata; ids start with the figure's name, so that several can share a page."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="svg", transparent=True, dpi=RASTER_DPI, metadata=_METADATA)
    text = buffer.getvalue().decode("utf-8")
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    return text.encode("utf-8")
