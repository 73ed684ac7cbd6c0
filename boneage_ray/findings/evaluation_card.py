"""The model card that an evaluation writes: all that was measured of a model, on one split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from boneage_ray import bundle, storage
from boneage_ray.evaluation.learnt import learnt_in_words
from boneage_ray.evaluation.page import percent, shown
from boneage_ray.findings.stability_section import told_of_cases, told_of_worst
from boneage_ray.findings.task_findings import EvaluationOrder, Measure, TaskFindings
from boneage_ray.model_card import (
    CardTable,
    Chapter,
    intervals_chapter,
    limits_chapter,
    markdown,
    recipe_chapter,
    rejected_chapter,
    use_chapters,
)


def write_card(order: EvaluationOrder, findings: TaskFindings, analysis: Mapping[str, Any]) -> None:
    """`OUT/MODEL_CARD.md` of the models of an evaluation, from its metrics.json."""
    storage.write_text(storage.join(order.out, bundle.CARD), evaluated_card(order, findings, analysis))


def evaluated_card(order: EvaluationOrder, findings: TaskFindings, analysis: Mapping[str, Any]) -> str:
    """The card in Markdown."""
    models, recipe = order.models, order.models.recipe
    gate = bundle.load(models.members[0].uri).gate
    rejected = _rejected(analysis.get("gate"))
    chapters = findings.card_chapters(analysis)
    if "stability" not in analysis:
        chapters.append(Chapter("Stability", ["Not measured: add `--stability` to the command above."]))
    first = "These figures are of one split; the intervals are over its cases."
    return markdown(
        models.name,
        f"{models.summary[:1].upper()}{models.summary[1:]}. Model {models.sha256[:12]}.",
        [
            *use_chapters(recipe),
            Chapter("Data and terms", [_data(order, analysis)]),
            *chapters,
            *([intervals_chapter(models.calibration)] if models.calibration.get("calibrated") else []),
            rejected_chapter(recipe, gate, rejected),
            limits_chapter(recipe, first),
            recipe_chapter(*(member.recipe for member in models.members)),
        ],
    )


def _data(order: EvaluationOrder, analysis: Mapping[str, Any]) -> str:
    learnt = [
        f"{member.name} learnt from {member.metrics['train_cases']} cases"
        for member in order.models.members
        if member.metrics.get("train_cases")
    ]
    evaluated = (
        f"Evaluated on {analysis['n']} cases, the {order.split} split of the prepared data with the fingerprint "
        f"{order.datasets[0].manifest['fingerprint']}, by `{order.command}`."
    )
    terms = "Whose radiographs these are, and on which terms, stands with the data: the terms of the data hold for the model too."
    return " ".join([*(f"{each}." for each in learnt), evaluated, *learnt_in_words(analysis.get("learnt")), terms])


def _rejected(gate: Mapping[str, Any] | None) -> list[list[str]]:
    if not gate:
        return []
    rows = [["cases of this split, by the gate by pixels", f"{gate['rejected']} of {gate['n']}"]]
    return rows + [
        [f"drawn pictures: {kind['name']}", f"{kind['before'] + kind['rejected']} of {kind['drawn']}"]
        for kind in gate["kinds"]
    ]


def stability_chapters(analysis: Mapping[str, Any], measures: Mapping[str, Measure]) -> list[Chapter]:
    """How far results move when a radiograph is changed; none where it was not measured."""
    found = analysis.get("stability")
    if not found:
        return []
    name = next((name for name in measures if any(name in change["moved"] for change in found["changes"])), None)
    if name is None:
        return [Chapter("Stability", [f"Not enough cases: {found['cases']} were taken, none was scored."])]
    rows = [_moved(change, name, measures[name].digits) for change in found["changes"]]
    header = ["change", "cases", f"mean move, {measures[name].unit}", "95 % move less than", "no longer scored"]
    text = [told_of_cases(found), *told_of_worst(found, measures)]
    return [Chapter("Stability", text, [CardTable(header, rows)])]


def _moved(change: Mapping[str, Any], name: str, digits: int) -> list[str]:
    figures = change["moved"].get(name, {})
    moves = [shown(figures.get(key), digits) for key in ("mean_abs", "p95_abs")]
    return [change["change"], str(change["n"]), *moves, str(sum(change["refused"].values()))]


def with_interval(value: float | None, ends: Sequence[float] | None, digits: int = 1, unit: str = "") -> str:
    """A figure with its 95 % interval in brackets.

    >>> with_interval(8.14, [7.7, 8.62], unit=" months")
    '8.1 months (7.7 to 8.6)'
    """
    between = f" ({shown(ends[0], digits)} to {shown(ends[1], digits)})" if ends else ""
    return f"{shown(value, digits)}{unit}{between}"


def share(value: float | None, ends: Sequence[float] | None) -> str:
    """A share in percent with its 95 % interval in brackets."""
    if value is None:
        return "-"
    between = f" ({percent(ends[0])} to {percent(ends[1])})" if ends else ""
    return f"{percent(value)}{between}"
