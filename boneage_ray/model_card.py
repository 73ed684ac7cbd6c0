"""The model card of a bundle, in Markdown for clinicians: what the model is for, what was measured, and what was not.

Every number comes from a measurement that is named with it; what was not measured is said to be missing. The parts are the same
for a model that was just trained (`trained_card`), for an evaluation and for the models that come with the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boneage_ray import __version__
from boneage_ray.anatomy.growth import GIRLS_AND_BOYS

if TYPE_CHECKING:
    from boneage_ray.recipes.recipe import Recipe

RESEARCH = "For research, not a medical device. No decision on a patient may rest on it."
NOT_MEASURED = "Not measured"


@dataclass(frozen=True)
class CardTable:
    """Cells as text; the first `text_columns` are set left, the others right as numbers are."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1


@dataclass(frozen=True)
class Chapter:
    """A part of the card: its title, paragraphs, and tables below them."""

    title: str
    text: Sequence[str]
    tables: Sequence[CardTable] = ()


def markdown(title: str, lead: str, chapters: Sequence[Chapter]) -> str:
    """The card as one Markdown document."""
    return _spaced([f"# {title}", lead, RESEARCH, *map(chapter_markdown, chapters)])


def chapter_markdown(chapter: Chapter) -> str:
    """One chapter, to be added to a card."""
    return _spaced([f"## {chapter.title}", *chapter.text, *map(_table, chapter.tables)])


def _spaced(parts: Sequence[str]) -> str:
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _table(table: CardTable) -> str:
    rules = ["---" if column < table.text_columns else "---:" for column in range(len(table.header))]
    return "\n".join(_line(row) for row in (table.header, rules, *table.rows))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def trained_card(
    recipe: Recipe, metrics: Mapping[str, Any], calibration: Mapping[str, Any], gate: Mapping[str, Any] | None
) -> str:
    """The card of a model that was just trained: all that its training has measured, on the validation split."""
    return markdown(
        recipe.name,
        f"{recipe.summary}. Trained by boneage-ray {__version__}.",
        [
            *use_chapters(recipe),
            Chapter("Data and terms", [_data(metrics)]),
            _validated(recipe, metrics),
            intervals_chapter(calibration),
            Chapter(
                "Stability",
                [f"{NOT_MEASURED} yet: `boneage evaluate --stability` changes radiographs and scores them again."],
            ),
            rejected_chapter(recipe, gate),
            limits_chapter(recipe, "These figures are of the validation split, which may have chosen the best epoch."),
            recipe_chapter(recipe),
        ],
    )


def use_chapters(recipe: Recipe) -> list[Chapter]:
    """What models of this task are for, and what they are not for."""
    kind = recipe.task_kind
    return [
        Chapter("Intended use", [kind.intended_use or f"Research on the task {kind.name}."]),
        Chapter("Not for", [" ".join(["Diagnosis or treatment of any person.", kind.not_for]).strip()]),
    ]


def _data(metrics: Mapping[str, Any]) -> str:
    cases, mark = metrics.get("train_cases"), metrics.get("data_fingerprint")
    learnt = (
        f"The model learnt from {cases} cases"
        if cases
        else "The number of cases that the model learnt from is not recorded"
    )
    which = f" of the prepared data with the fingerprint {mark}" if mark else ""
    return (
        f"{learnt}{which}. Whose radiographs these are, and on which terms, stands with the data: the terms of the data hold for "
        "the model too. The bundle holds weights only: no image and no data of a person."
    )


def _validated(recipe: Recipe, metrics: Mapping[str, Any]) -> Chapter:
    kind = recipe.task_kind
    rows = [
        [figure.name, f"{metrics[figure.key]:.{figure.digits}f}{figure.unit}"]
        for figure in kind.card_figures
        if isinstance(metrics.get(figure.key), int | float)
    ]
    tables, text = [CardTable(["figure", "value"], rows, 2)] if rows else [], []
    if groups := metrics.get("validated"):
        text.append(str(groups["caption"]))
        tables.append(CardTable(groups["header"], groups["rows"]))
    if blend := metrics.get("blend"):
        ages = [[name, f"{value:.1f} months"] for name, value in blend["val_mae_months"].items()]
        tables.append(CardTable(["part of the blend", "mean absolute error"], ages))
        text.append(blend["note"])
    if not tables:
        text.append(
            f"{NOT_MEASURED}: there was no validation split. `boneage evaluate` measures the model on other cases."
        )
    return Chapter("Errors on the validation split", text, tables)


def intervals_chapter(calibration: Mapping[str, Any]) -> Chapter:
    """The intervals of ages in a bundle's calibration.json, for each group of cases."""
    title = "Intervals"
    groups = calibration.get("age_intervals")
    if not groups:
        ratios = calibration.get("sigma_ratio")
        if not ratios:
            return Chapter(title, ["The model states no calibrated interval."])
        told = ", ".join(f"{name} points {ratio:.2f}" for name, ratio in ratios.items())
        return Chapter(
            title,
            [
                f"The circles of uncertainty (sigma) are scaled by what was measured on {calibration['fitted_on']}: {told}."
            ],
        )
    rows = [
        [
            GIRLS_AND_BOYS[group["sex"]],
            _ages(group),
            str(group["cases"]),
            f"{group['low']:+.1f} to {group['high']:+.1f}",
        ]
        for group in groups
    ]
    text = (
        f"{calibration['coverage']:.0%} of the true ages of cases like those that the intervals were fitted on "
        f"({calibration['fitted_on']}) lie between these bounds, added to the predicted age. A case of unknown sex has none."
    )
    return Chapter(
        title, [text], [CardTable(["sex", "predicted age", "cases behind the bounds", "bounds, months"], rows)]
    )


def _ages(group: Mapping[str, Any]) -> str:
    start = f"{group['from'] / 12:g}"
    return f"{start} years and more" if group["to"] is None else f"{start} to {group['to'] / 12:g} years"


def rejected_chapter(recipe: Recipe, gate: Mapping[str, Any] | None, measured: Sequence[Sequence[str]] = ()) -> Chapter:
    """What gets no result instead of a wrong one: the checks that the recipe switches on; `measured`: pictures, how many."""
    quality, kind = recipe.image.quality, recipe.task_kind
    lines = [
        "Files that cannot be read; pictures that are blank, too small, too elongated or of too little contrast.",
    ]
    if quality.header_gate and kind.region != "any":
        lines.append(f"DICOM files whose header says another modality or body part than {_REGIONS[kind.region]}.")
    if gate is not None and quality.pixel_gate:
        held = gate.get("held_out")
        lost = f"; of {held} cases that it had not seen it rejects {gate['held_out_below']:.2%}" if held else ""
        lines.append(f"Pictures that do not look like those that the model learnt from{lost}.")
    else:
        lines.append("No gate by pixels: a picture of something else that passes the checks above gets a result.")
    tables = [CardTable(["pictures", "rejected"], measured, 2)] if measured else []
    return Chapter("What is rejected", ["\n".join(f"- {line}" for line in lines)], tables)


_REGIONS = {"hand": "a hand or wrist", "head": "a head"}


def limits_chapter(recipe: Recipe, first: str) -> Chapter:
    """What the figures do not say."""
    lines = [
        first,
        "Other hospitals, devices, populations and readers were not tested: the error there has to be measured there "
        "(`boneage evaluate`, `boneage calibrate`).",
        "The true values are the labels of the data, and share whatever error those have.",
        *([recipe.task_kind.limits] if recipe.task_kind.limits else []),
    ]
    return Chapter("Limits", ["\n".join(f"- {line}" for line in lines)])


def recipe_chapter(*recipes: Recipe) -> Chapter:
    """How the model is computed, for those who want to make it again."""
    return Chapter("Recipe", [f"```toml\n{recipe.to_toml()}```" for recipe in recipes])
