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
def learning_curve(history: Sequence[Mapping[str, Any]]) -> bytes:
    """Losses, and the mean absolute error of validation, epoch by epoch; the best epoch is marked.

    `history`: lines with epoch, train_loss, val_loss and val_mae_months; what is missing or None leaves a gap.
    """
    fig, (left, right) = row_of_axes(FULL, 3.4, 2)
    epochs = [line["epoch"] for line in history]
    mark = "." if len(epochs) <= 60 else ""
    for key, label, colour in (("train_loss", "training", BLUE), ("val_loss", "validation", ORANGE)):
        left.plot(epochs, _column(history, key), color=colour, marker=mark, lw=1.4, label=label)
    left.set(xlabel="epoch", ylabel="loss")
    left.legend(fontsize=9)
    mae = _column(history, "val_mae_months")
    right.plot(epochs, mae, color=ORANGE, marker=mark, lw=1.4)
    if np.isfinite(mae).any():
        best = int(np.nanargmin(mae))
        label = f"best: {mae[best]:.1f} months, epoch {epochs[best]}"
        right.plot(epochs[best], mae[best], "D", color=GREEN, ls="", label=label)
        right.legend(fontsize=9)
    right.set(xlabel="epoch", ylabel="validation MAE (months)")
    for ax in (left, right):
        ax.set_ylim(bottom=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return as_svg(fig, "learning")


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
