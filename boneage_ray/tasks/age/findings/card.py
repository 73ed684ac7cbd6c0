"""The chapters of the model card on ages: errors, groups, coverage, from the analysis of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boneage_ray.evaluation.page import SEX_WORDS, percent, shown
from boneage_ray.findings.evaluation_card import share, with_interval
from boneage_ray.model_card import CardTable, Chapter
from boneage_ray.tasks.age.findings.coverage import FEWEST

FEW = 10


def age_chapters(analysis: Mapping[str, Any]) -> list[Chapter]:
    """Errors, subgroups and coverage; nothing where the analysis holds none of them."""
    chapters = []
    if "mae_months" in analysis:
        chapters += [_errors(analysis), _groups(analysis)]
    if coverage := analysis.get("coverage"):
        chapters.append(_coverage(coverage))
    return chapters


def _errors(analysis: Mapping[str, Any]) -> Chapter:
    low, high = analysis["limits_of_agreement_months"]
    rows = [
        ["mean absolute error", with_interval(analysis["mae_months"], analysis["mae_interval_months"], unit=" months")],
        ["root mean square error", f"{shown(analysis['rmse_months'])} months"],
        ["bias (predicted minus true)", f"{shown(analysis['bias_months'], sign=True)} months"],
        ["95 % of the errors are expected between", f"{shown(low, sign=True)} and {shown(high, sign=True)} months"],
        ["within 12 months of the true age", percent(analysis["within_12_months"])],
        ["within 24 months of the true age", percent(analysis["within_24_months"])],
    ]
    if baseline := analysis.get("baseline"):
        rows.append(["error of always saying the median age", f"{shown(baseline['mae_months'])} months"])
    for name, found in analysis["stages"].items():
        rows.append([f"right of the {name} stages of growth", percent(found["predicted"]["accuracy"])])
    return Chapter(
        "Errors", [f"On {analysis['n']} cases; in brackets 95 % intervals."], [CardTable(["figure", "value"], rows, 2)]
    )


def _groups(analysis: Mapping[str, Any]) -> Chapter:
    rows = [_group(SEX_WORDS[sex], row) for sex, row in analysis["by_sex"].items()]
    rows += [_group(f"true age {row['bin']}", row) for row in analysis["by_age"]]
    header = ["group", "cases", "mean absolute error, months", "95 % interval", "bias, months"]
    return Chapter("Errors by sex and age", [_gap(analysis)], [CardTable(header, rows)])


def _group(name: str, row: Mapping[str, Any]) -> list[str]:
    if row["n"] < FEW:
        return [name, str(row["n"]), f"not enough cases ({row['n']} of {FEW})", "-", "-"]
    low, high = row["mae_interval_months"]
    return [
        name,
        str(row["n"]),
        shown(row["mae_months"]),
        f"{shown(low)} to {shown(high)}",
        shown(row["bias_months"], sign=True),
    ]


def _gap(analysis: Mapping[str, Any]) -> str:
    gap = analysis["sex_gap"]
    if gap is None:
        girls, boys = (analysis["by_sex"].get(sex, {}).get("n", 0) for sex in ("F", "M"))
        return f"Not enough cases to compare girls ({girls}) and boys ({boys})."
    low, high = gap["interval_months"]
    verdict = "a difference is shown" if gap["excludes_zero"] else "no difference is shown"
    difference = shown(gap["female_minus_male_months"], 2, sign=True)
    ends = f"{shown(low, 2, True)} to {shown(high, 2, True)}"
    return f"Error of girls minus error of boys: {difference} months ({ends}): {verdict}."


def _coverage(found: Mapping[str, Any]) -> Chapter:
    rows = [("all", found)] + [(row["name"], row) for part in ("by_sex", "by_age") for row in found[part]]
    header = ["group", "cases", "true age inside the interval", "mean width, months"]
    text = [
        f"The intervals are made to hold {found['level']:.0%} of the true ages; so many of these cases they hold, with 95 % "
        "intervals in brackets.",
        *([found["note"]] if found.get("note") else []),
    ]
    return Chapter("Coverage of the intervals", text, [CardTable(header, [_covered(*row) for row in rows])])


def _covered(name: str, row: Mapping[str, Any]) -> list[str]:
    if row["covered"] is None:
        return [name, str(row["n"]), f"not enough cases ({row['n']} of {FEWEST})", "-"]
    return [name, str(row["n"]), share(row["covered"], row["interval"]), shown(row["mean_width_months"])]
