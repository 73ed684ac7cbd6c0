"""One page for every job: facts, status, key numbers, tables and figures in a single HTML file.

The page needs no script and no other file, prints on A4, follows the reader's light or dark setting, and carries its
figures as JSON in `<script type="application/json" id="data">`. Whatever comes from outside is escaped.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from boneage_ray import __version__
from boneage_ray.anatomy.growth import GIRLS_AND_BOYS, SEX_UNKNOWN
from boneage_ray.evaluation import figures

_RASTER = {b"\x89PNG": "png", b"\xff\xd8\xff\xe0": "jpeg"}
SEX_WORDS = {**GIRLS_AND_BOYS, "unknown": SEX_UNKNOWN}


@dataclass(frozen=True)
class PageStatus:
    """The box on top: how it went, in words and in colour."""

    level: Literal["good", "caution", "bad"]
    headline: str
    details: Sequence[str] = ()


@dataclass(frozen=True)
class Number:
    """A key number: what it is, its value with the unit, and a note such as its interval."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class PageTable:
    """Cells as text; the first `text_columns` are set left, the others right as numbers are."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    text_columns: int = 1


@dataclass(frozen=True)
class PagePicture:
    """An SVG of evaluation/figures.py, a PNG or a JPEG; `alt` says what it shows to those who cannot see it.

    It takes half the width of the page, or all of it if `wide`.
    """

    data: bytes
    alt: str
    caption: str
    wide: bool = False

    def markup(self) -> Markup:
        """The picture as HTML: SVG inline, in the page's text colour; PNG and JPEG as data URIs."""
        alt = html.escape(self.alt, quote=True)
        if kind := _RASTER.get(self.data[:4]):
            return Markup(f'<img alt="{alt}" src="data:image/{kind};base64,{base64.b64encode(self.data).decode()}">')
        svg = self.data.decode("utf-8").replace(figures.INK, "currentColor")
        return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{alt}" ', 1))


@dataclass(frozen=True)
class Section:
    """A part of the page; `command` is the line that makes it again."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[PageTable] = ()
    pictures: Sequence[PagePicture] = ()
    command: str = ""


@dataclass(frozen=True)
class Page:
    """All that a page says. `facts`: what, when, model and hash, recipe, data; `data`: any JSON value to embed."""

    title: str
    facts: Mapping[str, str]
    status: PageStatus
    numbers: Sequence[Number]
    sections: Sequence[Section]
    data: Any = field(default_factory=dict)


def render_page(page: Page) -> str:
    """The page as one HTML document. Raises ValueError if `data` holds NaN or infinity."""
    return _template().render(page=page, data=_embedded(page.data), version=__version__)


@cache
def _template() -> Template:
    loader = PackageLoader("boneage_ray.evaluation", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html")


def _embedded(data: object) -> Markup:
    """JSON for a script tag: no "<" is left that could end the tag or open a comment."""
    return Markup(json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"))


def shown(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """A number for people; what is not defined is a dash."""
    if value is None:
        return "-"
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def percent(part: float, whole: float = 1.0) -> str:
    """A share in percent with one decimal; a dash when there is no whole."""
    return f"{part / whole:.1%}" if whole else "-"
