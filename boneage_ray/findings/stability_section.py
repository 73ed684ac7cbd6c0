"""The stability suite in a report: one figure and one table, the same for every task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boneage_ray.evaluation.figures import moves
from boneage_ray.evaluation.page import PagePicture, PageTable, Section, percent, shown
from boneage_ray.findings.task_findings import Measure


def stability_sections(analysis: Mapping[str, Any], measures: Mapping[str, Measure], command: str) -> list[Section]:
    """The section of `analysis["stability"]`; none where it was not measured."""
    found = analysis.get("stability")
    if not found:
        return []
    changes = found["changes"]
    present = [name for name in measures if any(name in change["moved"] for change in changes)]
    text = [told_of_cases(found), *told_of_worst(found, measures)]
    if not present:
        return [Section("Stability", [*text, f"Not enough cases: {found['cases']} were taken, none was scored."])]
    first = present[0]
    main, others = measures[first], [name for name in present[1:] if measures[name].unit == "share"]
    header = ["change", "cases", "no longer scored", f"mean move, {main.unit}", "95 % move less than", "most", "shift"]
    header += [measures[name].words for name in others]
    rows = [_row(change, first, main.digits, others) for change in changes]
    bars = [
        (change["change"], change["moved"][first]["mean_abs"], change["moved"][first]["p95_abs"])
        for change in changes
        if first in change["moved"]
    ]
    picture = PagePicture(
        moves(bars, f"{main.words} moves by ({main.unit})"),
        f"How far the {main.words} moves after each of {len(bars)} changes",
        "Bar: mean over the cases. Line: 95 % of the cases move less than this.",
        wide=True,
    )
    caption = "Moves against the same radiograph unchanged; shift: the mean with its sign"
    return [Section("Stability", text, [PageTable(header, rows, caption)], [picture], command)]


def told_of_cases(found: Mapping[str, Any]) -> str:
    """Which cases the suite took, and whether it changed files or prepared images."""
    changed, cases = found["from_original"], found["cases"]
    where = (
        "the original files" if changed == cases else f"{changed} original files and {cases - changed} prepared images"
    )
    if not changed:
        where = (
            "the prepared images, as the original files were not at hand; resolution and gray depth are tested in part"
        )
    unscored = f" {found['not_scored']} of them were not scored even unchanged." if found["not_scored"] else ""
    return f"{cases} cases, evenly spaced in the split, were scored again after each change, made to {where}.{unscored}"


def told_of_worst(found: Mapping[str, Any], measures: Mapping[str, Measure], count: int = 3) -> list[str]:
    """In words, the changes that move the first measure most, and those after which cases are not scored."""
    changes = found["changes"]
    first = next((name for name in measures if any(name in change["moved"] for change in changes)), None)
    if first is None:
        return []
    moved = [change for change in changes if first in change["moved"]]
    worst = sorted(moved, key=lambda change: -change["moved"][first]["mean_abs"])[:count]
    told = "; ".join(
        f"{each['change']} ({shown(each['moved'][first]['mean_abs'], measures[first].digits)})" for each in worst
    )
    lines = [f"The {measures[first].words} moves most on average, in {measures[first].unit}, after: {told}."]
    refused = [f"{each['change']} ({sum(each['refused'].values())})" for each in changes if each["refused"]]
    if refused:
        lines.append(f"Cases were no longer scored after: {'; '.join(refused)}.")
    return lines


def _row(change: Mapping[str, Any], first: str, digits: int, others: list[str]) -> list[str]:
    figures = change["moved"].get(first, {})
    cells = [change["change"], str(change["n"]), str(sum(change["refused"].values()))]
    cells += [shown(figures.get(key), digits) for key in ("mean_abs", "p95_abs", "largest_abs")]
    cells.append(shown(figures.get("mean"), digits, sign=True))
    shares = (change["moved"].get(name, {}).get("mean") for name in others)
    return cells + ["-" if share is None else percent(share) for share in shares]
