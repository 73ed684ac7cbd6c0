"""Figures of a preparation, in the style of evaluation/figures.py, from the numbers of preparation/overview.py.

What differs by colour differs by hatching too. The contact sheet is an SVG of its own making: thumbnails with their captions.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from boneage_ray.anatomy.growth import AGE_BINS
from boneage_ray.evaluation.figures import (
    BLUE,
    FULL,
    GREEN,
    GREY,
    HALF,
    INK,
    ORANGE,
    as_svg,
    one_axes,
    row_of_axes,
    styled,
)
from boneage_ray.preparation.overview import MEGAPIXEL_EDGES, NONE, SPACING_EDGES, UNKNOWN_AGE
from boneage_ray.records.schema import Row

# Sex, as a legend says it, colour, hatching.
SEX_BARS = (("F", "girls", ORANGE, ""), ("M", "boys", BLUE, "///"), ("unknown", "sex unknown", GREY, "..."))
_SERIES = ((BLUE, ""), (ORANGE, "///"), (GREEN, "..."), ("#CC79A7", "\\\\\\"), ("#56B4E9", "xxx"), (GREY, "---"))
_PNG = b"\x89PNG"
SHEET_COLUMNS, CELL, GAP, CAPTION = 6, 150, 10, 44
_SHORT = 19  # letters of a caption that fit below a thumbnail

Ages = Mapping[str, Mapping[str, Mapping[str, int]]]


@styled
def ages_by_sex(ages: Ages, what: str = "records") -> bytes:
    """For each split that holds records, or whatever is counted, those of each two-year bin, girls on boys on unknown."""
    splits = {split: table for split, table in ages.items() if table}
    fig, axes = row_of_axes(FULL, 3.5, max(1, len(splits)))
    bins = _bins(splits)
    for ax, (split, table) in zip(axes, splits.items(), strict=False):
        total = sum(sum(row.values()) for row in table.values())
        _stack(ax, [[table.get(name, {}).get(sex, 0) for name in bins] for sex, *_ in SEX_BARS])
        ax.set_xticks(range(len(bins)), [name.removesuffix(" y") for name in bins], rotation=90, fontsize=9)
        ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        ax.grid(False, axis="x")
        ax.set(title=f"{split}: {total:,}", xlabel="age (years)")
    axes[0].set_ylabel(what)
    _sex_legend(fig, splits)
    return as_svg(fig, "ages-by-sex")


def _bins(ages: Ages) -> list[str]:
    """From the first to the last bin that any split fills, without a gap; at the end the unknown age, if there is any."""
    filled = {name for table in ages.values() for name in table}
    places = [k for k, name in enumerate(AGE_BINS) if name in filled]
    names = list(AGE_BINS[places[0] : places[-1] + 1]) if places else []
    return names + ([UNKNOWN_AGE] if UNKNOWN_AGE in filled else [])


def _stack(ax: Axes, rows: Sequence[Sequence[int]]) -> None:
    base = np.zeros(len(rows[0]))
    for (_, label, colour, hatch), row in zip(SEX_BARS, rows, strict=True):
        if any(row):
            ax.bar(range(len(row)), row, 0.85, bottom=base, label=label, **_fill(colour, hatch))
        base = base + np.asarray(row)


def _fill(colour: str, hatch: str) -> dict[str, Any]:
    return {"facecolor": colour, "edgecolor": "#ffffff", "hatch": hatch, "linewidth": 0}


def _sex_legend(fig: Figure, ages: Ages) -> None:
    """A legend over the figure, of the sexes that any split has."""
    present = {sex for table in ages.values() for row in table.values() for sex in row}
    keys = [Patch(label=label, **_fill(colour, hatch)) for sex, label, colour, hatch in SEX_BARS if sex in present]
    if keys:
        fig.legend(handles=keys, loc="outside upper center", ncols=3, fontsize=9)


@styled
def sex_shares(ages: Ages) -> bytes:
    """For each split one bar of full length, cut by sex; counts stand inside where they fit."""
    sexes = {split: _by_sex(table) for split, table in ages.items() if table}
    fig, ax = one_axes(FULL, 0.9 + 0.42 * max(1, len(sexes)))
    for row, counts in enumerate(sexes.values()):
        left, total = 0.0, sum(counts.values())
        for sex, _, colour, hatch in SEX_BARS:
            width = 100 * counts[sex] / total
            ax.barh(row, width, 0.7, left=left, **_fill(colour, hatch))
            if width >= 8:
                _label(ax, left + width / 2, row, f"{counts[sex]:,} ({width:.0f} %)")
            left += width
    ax.set_yticks(range(len(sexes)), list(sexes))
    ax.grid(False, axis="y")
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="share of the split (%)")
    _sex_legend(fig, ages)
    return as_svg(fig, "sex-shares")


def _by_sex(table: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {sex: sum(row.get(sex, 0) for row in table.values()) for sex, *_ in SEX_BARS}


def _label(ax: Axes, x: float, y: float, text: str) -> None:
    box = {"boxstyle": "round,pad=0.2", "facecolor": "#ffffff", "edgecolor": "none", "alpha": 0.9}
    ax.text(x, y, text, ha="center", va="center", fontsize=9, color="#0b1f33", bbox=box)


@styled
def megapixel_histogram(bins: Sequence[int]) -> bytes:
    """Records by megapixels; `bins`: counts between `MEGAPIXEL_EDGES`, the axis doubles from tick to tick."""
    fig, ax = one_axes(HALF, 3.4)
    first, last = _filled(np.asarray(bins))
    ax.bar(np.arange(first, last), bins[first:last], 0.92, align="edge", color=BLUE)
    ticks = range(first, last + 1) if last - first <= 8 else range(first + first % 2, last + 1, 2)
    ax.set_xticks(list(ticks), [f"{MEGAPIXEL_EDGES[k]:.2g}" for k in ticks], fontsize=9)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(False, axis="x")
    ax.set(xlabel="megapixels", ylabel="records")
    return as_svg(fig, "megapixels")


def _filled(counts: NDArray[np.int64]) -> tuple[int, int]:
    """First filled bin and the one after the last, with an empty bin at each side where there is one."""
    filled = np.flatnonzero(counts)
    return (max(0, int(filled[0]) - 1), min(len(counts), int(filled[-1]) + 2)) if filled.size else (0, len(counts))


@styled
def spacing_histogram(spacing: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Records by pixel spacing, stacked by its source; the last bar holds all larger ones. Those without are in the legend."""
    fig, ax = one_axes(HALF, 3.4)
    known = {name: np.asarray(found["bins"]) for name, found in spacing.items() if "bins" in found}
    base = np.zeros(len(SPACING_EDGES) - 1, np.int64)
    keys = []
    for (name, counts), (colour, hatch) in zip(known.items(), cycle(_SERIES), strict=False):
        label = f"{name}: {spacing[name]['count']:,}"
        keys.append(Patch(label=label, **_fill(colour, hatch)))
        ax.bar(SPACING_EDGES[:-1], counts, 0.0185, bottom=base, align="edge", **_fill(colour, hatch))
        base = base + counts
    if NONE in spacing:
        keys.append(Patch(label=f"without spacing, not drawn: {spacing[NONE]['count']:,}", fill=False, linewidth=0))
    first, last = _filled(base)
    ax.set_xlim(SPACING_EDGES[first], SPACING_EDGES[last])
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(False, axis="x")
    more = f" ({SPACING_EDGES[-2]:g}: or more)" if base[-1] else ""
    ax.set(xlabel=f"pixel spacing (mm per pixel){more}", ylabel="records")
    if keys:
        fig.legend(handles=keys, loc="outside upper left", fontsize=9)
    return as_svg(fig, "spacing")


@styled
def reason_bars(reasons: Mapping[str, int]) -> bytes:
    """Inputs that were not used by reason, the most frequent on top."""
    fig, ax = one_axes(FULL, 0.8 + 0.3 * len(reasons))
    bars = ax.barh(range(len(reasons)), list(reasons.values()), 0.75, color=ORANGE)
    ax.bar_label(bars, [f"{count:,}" for count in reasons.values()], fontsize=9, color=INK, padding=3)
    ax.set_yticks(range(len(reasons)), list(reasons))
    ax.invert_yaxis()
    ax.margins(x=0.08, y=0.02)
    ax.grid(False, axis="y")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="inputs")
    return as_svg(fig, "reasons")


def contact_sheet(rows: Sequence[Row]) -> bytes:
    """Thumbnails (PNG bytes of column thumbnail) in rows of six, each with its reason and the name of its file."""
    lines = -(-len(rows) // SHEET_COLUMNS)
    width = SHEET_COLUMNS * (CELL + GAP) - GAP
    cells = [_cell(row, k % SHEET_COLUMNS, k // SHEET_COLUMNS) for k, row in enumerate(rows)]
    box = f'viewBox="0 0 {width} {lines * (CELL + CAPTION)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-size="12.5">{"".join(cells)}</svg>'.encode()


def _cell(row: Row, column: int, line: int) -> str:
    name = row["input_uri"] or row["record_id"] or ""
    place = f'x="{column * (CELL + GAP)}" y="{line * (CELL + CAPTION)}" width="{CELL}" height="{CELL + CAPTION}"'
    box = f'width="{CELL}" height="{CELL}"'
    # An inner svg cuts off what is wider than its cell.
    return (
        f'<svg {place}><rect {box} fill="{GREY}" fill-opacity="0.25"/>'
        f'<image {box} href="data:image/png;base64,{base64.b64encode(row["thumbnail"]).decode()}"/>'
        f'<text y="{CELL + 16}" fill="{INK}" font-weight="600">{_escaped(row["reason"] or "")}</text>'
        f'<text y="{CELL + 32}" fill="{INK}">{_escaped(short_name(name))}</text></svg>'
    )


def short_name(uri: str) -> str:
    """The file name as it fits below a thumbnail: its middle is left out where it is long, and what cannot be printed."""
    name = "".join(letter if letter.isprintable() else "\u00b7" for letter in uri.rstrip("/").rsplit("/", 1)[-1])
    keep = _SHORT // 2
    return name if len(name) <= _SHORT else f"{name[:keep]}\u2026{name[-keep:]}"


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)


def is_thumbnail(data: object) -> bool:
    """Whether it is bytes that start as PNG does."""
    return isinstance(data, bytes) and data.startswith(_PNG)
