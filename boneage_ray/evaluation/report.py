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
from boneage_ray.anatomy.growth import years_and_months
from boneage_ray.evaluation import figures
from boneage_ray.evaluation.analysis import Predictions

_PNG = b"\x89PNG"
# Below this, an interval over cases says little about a group.
FEW_CASES, FEW_IN_BIN = 100, 20
SEX_WORDS = {"F": "girls", "M": "boys", "unknown": "sex unknown"}


@dataclass(frozen=True)
class Status:
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
class Table:
    """Cells as text; the first `text_columns` are set left, the others right as numbers are."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    text_columns: int = 1


@dataclass(frozen=True)
class Picture:
    """An SVG of evaluation/figures.py or a PNG; `alt` says what it shows to those who cannot see it.

    It takes half the width of the page, or all of it if `wide`.
    """

    data: bytes
    alt: str
    caption: str
    wide: bool = False

    def markup(self) -> Markup:
        """The picture as HTML: SVG inline, in the page's text colour; PNG as a data URI."""
        alt = html.escape(self.alt, quote=True)
        if self.data.startswith(_PNG):
            return Markup(f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(self.data).decode()}">')
        svg = self.data.decode("utf-8").replace(figures.INK, "currentColor")
        return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{alt}" ', 1))


@dataclass(frozen=True)
class Section:
    """A part of the page; `command` is the line that makes it again."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    command: str = ""


@dataclass(frozen=True)
class Page:
    """All that a page says. `facts`: what, when, model and hash, recipe, data; `data`: any JSON value to embed."""

    title: str
    facts: Mapping[str, str]
    status: Status
    numbers: Sequence[Number]
    sections: Sequence[Section]
    data: Any = field(default_factory=dict)


def render(page: Page) -> str:
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


def evaluation_page(
    analysis: Mapping[str, Any],
    predictions: Predictions,
    facts: Mapping[str, str],
    history: Sequence[Mapping[str, Any]],
    command: str,
) -> str:
    """The page of `boneage evaluate`: `analysis` of these predictions, and the bundle's training history (or [])."""
    sections = [
        _agreement(analysis, predictions, command),
        _groups(analysis, predictions, command),
        *(_stages(name, found, command) for name, found in analysis["stages"].items()),
        *([_training(history, command)] if history else []),
        _largest(analysis, command),
        _limits(analysis),
    ]
    page = Page(
        title="Evaluation of bone age",
        facts={**facts, "Cases": str(analysis["n"])},
        status=_status(analysis),
        numbers=_numbers(analysis),
        sections=sections,
        data={"facts": dict(facts), "command": command, "analysis": analysis},
    )
    return render(page)


def _status(analysis: Mapping[str, Any]) -> Status:
    baseline, gap, interval = analysis["baseline"], analysis["sex_gap"], analysis["mae_interval_months"]
    guess = f"Always saying the training median errs by {shown(baseline['mae_months'])} months." if baseline else ""
    few = f"There are few cases ({analysis['n']}): every number here is uncertain."
    cautions = [few] if analysis["n"] < FEW_CASES else []
    if baseline and analysis["mae_months"] >= baseline["mae_months"]:
        return Status("bad", "No better than guessing", [guess, *cautions])
    if baseline and interval and interval[1] >= baseline["mae_months"]:
        cautions.append(f"It is not certain that the model is better than guessing. {guess}")
    if gap and gap["excludes_zero"]:
        worse = "girls" if gap["female_minus_male_months"] > 0 else "boys"
        cautions.append(f"The error is larger for {worse}: {_gap_words(gap)}")
    if cautions:
        return Status("caution", "Evaluated, with cautions", cautions)
    return Status(
        "good", "Evaluated, no caution raised", [f"{guess} What was not tested is listed at the end.".strip()]
    )


def _numbers(analysis: Mapping[str, Any]) -> list[Number]:
    interval, baseline = analysis["mae_interval_months"], analysis["baseline"] or {}
    limits, years = analysis["limits_of_agreement_months"], f"{shown(analysis['mae_years'], 2)} years"
    ratio, guess = baseline.get("model_over_baseline"), shown(baseline.get("mae_months"))
    return [
        Number(
            "Mean absolute error (MAE)",
            f"{shown(analysis['mae_months'])} months",
            f"95 % interval {_range(interval)}; {years}" if interval else years,
        ),
        Number(
            "Root mean square error",
            f"{shown(analysis['rmse_months'])} months",
            f"{shown(analysis['rmse_years'], 2)} years; R\u00b2 {shown(analysis['r2'], 3)}",
        ),
        Number(
            "Bias (predicted minus true)",
            f"{shown(analysis['bias_months'], sign=True)} months",
            "one case" if None in limits else f"95 % of errors expected in {_range(limits, sign=True)}",
        ),
        Number(
            "Within 12 months",
            percent(analysis["within_12_months"]),
            f"within 24 months {percent(analysis['within_24_months'])}",
        ),
        Number(
            "MAE against guessing",
            "-" if ratio is None else f"{ratio:.0%}",
            f"always saying the training median errs by {guess} months" if baseline else "no training median given",
        ),
    ]


def _range(ends: Sequence[float | None], digits: int = 1, sign: bool = False) -> str:
    return " to ".join(shown(end, digits, sign) for end in ends)


def _agreement(analysis: Mapping[str, Any], predictions: Predictions, command: str) -> Section:
    spread = analysis["abs_error_percentiles_months"]
    pictures = [
        Picture(
            figures.scatter(predictions),
            f"Scatter of predicted against true age of {analysis['n']} cases around the line of equality",
            "Each case once. The band is 12 months either side of a perfect prediction.",
        ),
        Picture(
            figures.error_histogram(predictions),
            f"Histogram of the errors, their mean {shown(analysis['bias_months'], sign=True)} months",
            "How often each error occurs. The band is 12 months either side of none.",
        ),
        Picture(
            figures.residuals(predictions, analysis),
            "Error of each case against its true age, with the mean and the limits of agreement",
            "Error against age, after Bland and Altman: 95 % of errors are expected between the dashed lines.",
            wide=True,
        ),
    ]
    header = ["", *(key if key == "max" else f"{key} %" for key in spread)]
    row = ["absolute error, months", *(shown(value) for value in spread.values())]
    caption = "Percentiles: this share of the cases errs by no more than this"
    return Section("Predicted against true age", (), [Table(header, [row], caption)], pictures, command)


def _groups(analysis: Mapping[str, Any], predictions: Predictions, command: str) -> Section:
    gap = analysis["sex_gap"]
    text = "There are too few girls or boys to compare their errors." if gap is None else f"Sex: {_gap_words(gap)}"
    by_sex = [_group(SEX_WORDS[sex], row) for sex, row in analysis["by_sex"].items()]
    by_age = [_group(row["bin"], row) for row in analysis["by_age"]]
    columns = ["cases", "MAE", "RMSE", "bias"]
    tables = [
        Table(["true age", *columns], by_age, "By true age in bins of two years; months"),
        Table(["sex", *columns], by_sex, "By sex; months"),
    ]
    picture = Picture(
        figures.errors_by_age(predictions),
        "Boxes of the errors in each two-year bin of the true age",
        "Box: middle half of the cases, with their median. Whiskers: up to 1.5 box heights. Dots: beyond.",
        wide=True,
    )
    return Section("Errors by age and sex", [text], tables, [picture], command)


def _group(name: str, row: Mapping[str, Any]) -> list[str]:
    errors = (shown(row["mae_months"]), shown(row["rmse_months"]), shown(row["bias_months"], sign=True))
    return [name, str(row["n"]), *errors]


def _gap_words(gap: Mapping[str, Any]) -> str:
    verdict = "which leaves out 0" if gap["excludes_zero"] else "which includes 0: no difference is shown"
    difference = shown(gap["female_minus_male_months"], 2, sign=True)
    ends = _range(gap["interval_months"], 2, sign=True)
    return f"MAE of girls minus MAE of boys is {difference} months, 95 % interval {ends}, {verdict}."


def _stages(name: str, found: Mapping[str, Any], command: str) -> Section:
    classes = found["classes"]
    # Without a head of its own the class comes from the predicted age, and both rows would be the same.
    ways = {"predicted": "from the model's own head"} if found["source"] == "head" else {}
    ways["thresholded"] = "from the predicted age"
    keys = ("accuracy", "precision", "recall", "f1", "qwk")
    rows = [[words, *(shown(found[way][key], 3) for key in keys)] for way, words in ways.items()]
    pictures = [
        Picture(
            figures.confusion_matrix(classes, found[way]["confusion"], found[way]["qwk"], f"{name}-{way}"),
            f"Confusion matrix of {len(classes)} classes {words}, weighted kappa {shown(found[way]['qwk'], 3)}",
            f"Class {words}: cases, and percentages of the row.",
        )
        for way, words in ways.items()
    ]
    return Section(
        f"Stages: {name} classes",
        [f"Classes: {', '.join(classes)}. Precision, recall and F1 are weighted by the cases of each class."],
        [Table(["class", "accuracy", "precision", "recall", "F1", "weighted kappa"], rows)],
        pictures,
        command,
    )


def _training(history: Sequence[Mapping[str, Any]], command: str) -> Section:
    picture = Picture(
        figures.learning_curve(history),
        f"Loss and validation error over {len(history)} epochs",
        "As recorded while the model was trained, on the training and validation splits.",
        wide=True,
    )
    return Section("Training", pictures=[picture], command=command)


def _largest(analysis: Mapping[str, Any], command: str) -> Section:
    rows = []
    for row in analysis["largest_residuals"]:
        ages = (_age(row["true_months"]), _age(row["predicted_months"]))
        rows.append(
            [row["record_id"], row["input_uri"], row["sex"] or "unknown", *ages, shown(row["error_months"], 1, True)]
        )
    text = "Look at these radiographs first: a wrong label, a wrong sex or a poor film may be behind them."
    table = Table(["record", "input", "sex", "true", "predicted", "error, months"], rows, text_columns=3)
    return Section("Largest errors", [text], [table], command=command)


def _age(months: float) -> str:
    return years_and_months(months) if months >= 0 else f"{months:.1f} months"


def _limits(analysis: Mapping[str, Any]) -> Section:
    thin = ", ".join(f"{row['bin']} ({row['n']})" for row in analysis["by_age"] if row["n"] < FEW_IN_BIN)
    text = [
        "Ages outside the bins above were not tested.",
        "The intervals are bootstrap intervals over the cases of this split. They do not cover other hospitals, devices, "
        "populations or readers: how the model does there has to be measured there.",
        "The true ages are the labels of the data, and share whatever error those have.",
    ]
    if thin:
        text.insert(1, f"These age bins hold fewer than {FEW_IN_BIN} cases, too few to judge them: {thin}.")
    return Section("What this does not show", text)
