"""The page of a scoring run: what became of every input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from boneage_ray.decoding.reasons import MEANINGS
from boneage_ray.evaluation import data_figures, figures
from boneage_ray.evaluation.page import (
    SEX_WORDS,
    Number,
    Page,
    PagePicture,
    PageStatus,
    PageTable,
    Section,
    percent,
    render_page,
    shown,
)
from boneage_ray.records.schema import Row
from boneage_ray.scoring.summary import STATUSES

_MEANT = {
    "scored": "read, accepted and given a result",
    "rejected": "readable, but must not be scored",
    "failed": "could not be read or scored",
}


class Named(Protocol):
    """What a page is of: its title, and what a scored input has."""

    @property
    def title(self) -> str: ...

    @property
    def noun(self) -> str: ...


@dataclass(frozen=True)
class ShownRows:
    """The rows of a page: the first that were not scored, the least certain (tally.py), rejected ones with a `thumbnail`."""

    problems: Sequence[Row] = ()
    least_certain: Sequence[Row] = ()
    thumbnails: Sequence[Row] = ()


def score_page(
    summary: Mapping[str, Any], rows: ShownRows, facts: Mapping[str, str], command: str, wording: Named
) -> str:
    """The page of `boneage score`: `summary` as `add_up` makes it, with the `distribution` of tally.py.

    Of a problem only input_uri, status, step, reason and message are shown.
    """
    sections = [_balance(summary, command)]
    if summary["ages"]:
        sections.append(_ages(summary, command))
    spread = summary.get("distribution", {})
    if spread.get("stages_by_sex"):
        sections.append(_stages(spread["stages_by_sex"], summary["flags"], command))
    elif summary["cvm_stages"]:
        sections.append(_cvm_stages(summary, command))
    if spread.get("certain") or spread.get("uncertain"):
        sections.append(_certainty(spread, command))
    if rows.least_certain:
        sections.append(_work_list(rows.least_certain, command))
    if rows.problems:
        sections.append(_problems(summary, rows.problems, command))
    if rows.thumbnails:
        sections.append(_thumbnails(rows.thumbnails, command))
    page = Page(
        title=wording.title,
        facts=facts,
        status=_status(summary, wording.noun),
        numbers=_numbers(summary),
        sections=sections,
        data={"facts": dict(facts), "command": command, "summary": dict(summary)},
    )
    return render_page(page)


def _status(summary: Mapping[str, Any], noun: str) -> PageStatus:
    inputs, scored, rejected, failed = _counts(summary)
    account = f"All {inputs} inputs are accounted for: {scored} scored, {rejected} rejected, {failed} failed."
    if scored == 0:
        return PageStatus("bad", "Nothing was scored", [account])
    sexless = _sexless(summary)
    if rejected or failed:
        missing = f"{rejected + failed} of {inputs} inputs have no {noun}"
        said = "The reasons are listed below; the other inputs are not affected."
        return PageStatus("caution", missing, [account, said, *sexless])
    if sexless:
        return PageStatus("caution", "Most inputs were scored without a sex", [account, *sexless])
    return PageStatus("good", "Every input was scored", [account])


def _sexless(summary: Mapping[str, Any]) -> list[str]:
    """A caution where more than half of the ages were predicted without a sex; other tasks do without one."""
    unknown, scored = summary["sexes"].get("unknown", 0), summary["scored"]
    if not summary["ages"] or 2 * unknown <= scored:
        return []
    share = f"The sex of {unknown:,} of {scored:,} scored inputs is unknown"
    return [f"{share}: ages are less exact without it. Give --metadata with a column sex, or --sex if all are alike."]


def _counts(summary: Mapping[str, Any]) -> tuple[int, int, int, int]:
    return summary["inputs"], summary["scored"], summary["rejected"], summary["failed"]


def _numbers(summary: Mapping[str, Any]) -> list[Number]:
    inputs = summary["inputs"]
    counted = [Number(status.capitalize(), f"{summary[status]:,}", _MEANT[status]) for status in STATUSES]
    unknown = summary["sexes"].get("unknown", 0)
    return [
        Number("Inputs", f"{inputs:,}", "files found, one result row each"),
        *counted,
        Number("Scored without a sex", f"{unknown:,}", f"{percent(unknown, summary['scored'])} of the scored"),
    ]


def _balance(summary: Mapping[str, Any], command: str) -> Section:
    inputs = summary["inputs"]
    outcomes = [
        [status, _MEANT[status], f"{summary[status]:,}", percent(summary[status], inputs)] for status in STATUSES
    ]
    tables = [
        PageTable(
            ["outcome", "meaning", "inputs", "share"],
            [*outcomes, ["sum", "all inputs", f"{inputs:,}", percent(inputs, inputs)]],
            "What became of every input",
            text_columns=2,
        )
    ]
    if summary["reasons"]:
        rows = [[r, MEANINGS.get(r, ""), f"{n:,}", percent(n, inputs)] for r, n in summary["reasons"].items()]
        tables.append(
            PageTable(["reason", "meaning", "inputs", "share"], rows, "Why inputs were not scored", text_columns=2)
        )
    if summary["flags"]:
        flags = [[flag, f"{n:,}", percent(n, inputs)] for flag, n in summary["flags"].items()]
        tables.append(PageTable(["flag", "inputs", "share"], flags, "Soft warnings; an input may have several"))
    read = summary.get("tables", {"read": []})
    if read["read"]:
        tables.append(_table_rows(read))
    return Section("Balance sheet", _update(summary), tables, command=command)


def _update(summary: Mapping[str, Any]) -> list[str]:
    """What the last update did, in words; nothing of a run that was never updated."""
    if not (done := summary.get("update")):
        return []
    new, changed, vanished = (f"{done[name]:,}" for name in ("new", "changed", "vanished"))
    lines = [
        f"The last update scored {new} new and {changed} changed inputs; {vanished} have vanished, and their rows with them."
    ]
    if done.get("retried"):
        lines.append(f"{done['retried']:,} inputs that could not be read before were tried again.")
    if done.get("kept"):
        first, *others = done["closed_inputs"]
        more = f" and {len(others):,} more places" if others else ""
        lines.append(f"{done['kept']:,} rows are kept whose files could not be examined: {first}{more}.")
    return lines


def _table_rows(read: Mapping[str, Any]) -> PageTable:
    meant = {"used": "belong to a file", "unmatched": "name no file", "unused": "contradict others, or cannot be read"}
    rows = [[name, meaning, f"{read[name]:,}", percent(read[name], read["rows"])] for name, meaning in meant.items()]
    return PageTable(
        ["rows", "meaning", "count", "share"], rows, "What became of the rows of the metadata", text_columns=2
    )


def _ages(summary: Mapping[str, Any], command: str) -> Section:
    ages = ", ".join(f"{name}: {count}" for name, count in summary["ages"].items())
    by_sex = summary.get("distribution", {}).get("ages_by_sex")
    counts = sum(map(Counter, by_sex.values()), Counter()) if by_sex else Counter(summary["sexes"])
    sexes = ", ".join(f"{counts[sex]:,} {word}" for sex, word in SEX_WORDS.items() if counts[sex])
    picture = PagePicture(
        data_figures.ages_by_sex({"scored": by_sex}, "inputs") if by_sex else figures.age_histogram(summary["ages"]),
        f"Histogram of predicted ages in bins of two years; {ages}",
        f"Predicted ages of the {counts.total():,} scored inputs ({sexes}), in bins of two years.",
        wide=True,
    )
    return Section("Predicted ages", pictures=[picture], command=command)


def _cvm_stages(summary: Mapping[str, Any], command: str) -> Section:
    total = sum(summary["cvm_stages"].values())
    rows = [[name, f"{count:,}", percent(count, total)] for name, count in summary["cvm_stages"].items()]
    text = (
        []
        if total == summary["scored"]
        else [f"{summary['scored'] - total:,} scored inputs have no stage, see the flags."]
    )
    return Section("Cervical stages", text, [PageTable(["stage", "inputs", "share"], rows)], command=command)


def _stages(stages: Mapping[str, Mapping[str, Mapping[str, int]]], flags: Mapping[str, int], command: str) -> Section:
    """A table for each scheme: stage, and how many of each sex."""
    none = flags.get("cvm_not_measurable", 0)
    tables = []
    for scheme, table in stages.items():
        total = sum(sum(row.values()) for row in table.values())
        rows = [
            [stage, *(f"{row.get(sex, 0):,}" for sex in SEX_WORDS), percent(sum(row.values()), total)]
            for stage, row in table.items()
        ]
        named = "Cervical stages" if scheme == "cervical" else f"Stages of growth, scheme {scheme}"
        tables.append(PageTable(["stage", *SEX_WORDS.values(), "share"], rows, named))
    text = [f"{none:,} scored inputs have no cervical stage, see the flags."] if none else []
    return Section("Stages by sex", text, tables, command=command)


def _certainty(spread: Mapping[str, Any], command: str) -> Section:
    certain, uncertain = spread["certain"], spread["uncertain"]
    text = [f"Certain: {certain:,} results, nothing speaks against them. Uncertain: {uncertain:,}, for a reason below."]
    tables = []
    if widths := spread["interval_widths"]:
        total = sum(widths.values())
        rows = [[name, f"{count:,}", percent(count, total)] for name, count in widths.items()]
        tables.append(PageTable(["months", "inputs", "share"], rows, "Width of the interval of an age"))
    if spread["because"]:
        rows = [[name, f"{count:,}", percent(count, certain + uncertain)] for name, count in spread["because"].items()]
        tables.append(
            PageTable(["reason", "inputs", "share"], rows, "Why results are uncertain; one may have several reasons")
        )
    return Section("How certain the results are", text, tables, command=command)


def _work_list(least: Sequence[Row], command: str) -> Section:
    rows = []
    for row in least:
        low, high = row["age_low_months"], row["age_high_months"]
        interval = "" if low is None or high is None else f"{shown(low, 0)} to {shown(high, 0)}"
        age = "" if row["age_months"] is None else shown(row["age_months"])
        found = [row["input_uri"], ", ".join(row["because"]), age, interval, row["cvm_stage"] or ""]
        rows.append(found)
    columns = [("input", True), ("because", True), ("age (months)", False), ("interval", False), ("stage", False)]
    kept = [k for k, (_, always) in enumerate(columns) if always or any(row[k] for row in rows)]
    cells = [[row[k] for k in kept] for row in rows]
    table = PageTable([columns[k][0] for k in kept], cells, f"The {len(rows)} least certain", text_columns=2)
    text = ["Look at these first; work-list.csv has the same inputs."]
    return Section("Work list", text, [table], command=command)


def _thumbnails(rejected: Sequence[Row], command: str) -> Section:
    listed = "; ".join(f"{data_figures.short_name(row['input_uri'])}: {row['reason']}" for row in rejected)
    sheet = PagePicture(
        data_figures.contact_sheet(rejected), f"Contact sheet of rejected inputs; {listed}", "", wide=True
    )
    text = [f"The first {len(rejected)}. These pictures are patient data: keep this page as you keep the images."]
    return Section("Rejected inputs", text, pictures=[sheet], command=command)


def _problems(summary: Mapping[str, Any], problems: Sequence[Row], command: str) -> Section:
    total = summary["rejected"] + summary["failed"]
    first = f"The first {len(problems)} of {total:,}." if len(problems) < total else "All of them."
    columns = ("input_uri", "status", "step", "reason", "message")
    rows = [[row[column] or "" for column in columns] for row in problems]
    return Section(
        "Inputs that were not scored",
        text=[f"{first} The results hold a row for every one, with the same words."],
        tables=[PageTable(["input", "status", "step", "reason", "message"], rows, text_columns=len(columns))],
        command=command,
    )
