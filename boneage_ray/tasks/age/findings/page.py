"""The page of `boneage evaluate`: what analysis.py found, in words, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from boneage_ray.anatomy.growth import years_and_months
from boneage_ray.evaluation import figures
from boneage_ray.evaluation.learning import Histories, learning_sections
from boneage_ray.evaluation.learnt import learnt_in_words
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
from boneage_ray.tasks.age.config import AGE_TASK
from boneage_ray.tasks.age.findings import figures as age_figures
from boneage_ray.tasks.age.findings.analysis import Predictions
from boneage_ray.tasks.age.findings.comparison import comparison_section
from boneage_ray.tasks.age.findings.coverage import coverage_section, too_narrow

# Below this, an interval over cases says little about a group.
FEW_CASES, FEW_IN_BIN = 100, 20


def age_page(
    analysis: Mapping[str, Any],
    predictions: Predictions,
    facts: Mapping[str, str],
    histories: Histories,
    command: str,
    more: Sequence[Section] = (),
) -> str:
    """The page of `boneage evaluate`: `analysis` of these predictions, the history of each model's training, more sections."""
    sections = [
        _agreement(analysis, predictions, command),
        _groups(analysis, predictions, command),
        *([coverage_section(analysis["coverage"], command)] if analysis.get("coverage") else []),
        *([_parts(analysis, command)] if analysis["parts"] else []),
        *_comparison(analysis, command),
        *(_stages(name, found, command) for name, found in analysis["stages"].items()),
        _largest(analysis, command),
        *more,
        *learning_sections(histories, AGE_TASK.figure, command),
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
    return render_page(page)


def _status(analysis: Mapping[str, Any]) -> PageStatus:
    baseline, gap, interval = analysis["baseline"], analysis["sex_gap"], analysis["mae_interval_months"]
    guess = f"Always saying the training median errs by {shown(baseline['mae_months'])} months." if baseline else ""
    few = f"There are few cases ({analysis['n']}): every number here is uncertain."
    cautions = [*learnt_in_words(analysis.get("learnt")), *([few] if analysis["n"] < FEW_CASES else [])]
    if baseline and analysis["mae_months"] >= baseline["mae_months"]:
        return PageStatus("bad", "No better than guessing", [guess, *cautions])
    if baseline and interval and interval[1] >= baseline["mae_months"]:
        cautions.append(f"It is not certain that the model is better than guessing. {guess}")
    if gap and gap["excludes_zero"]:
        worse = "girls" if gap["female_minus_male_months"] > 0 else "boys"
        cautions.append(f"The error is larger for {worse}: {_gap_words(gap)}")
    cautions += too_narrow(analysis.get("coverage"))
    if cautions:
        return PageStatus("caution", "Evaluated, with cautions", cautions)
    return PageStatus(
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
            f"always saying the training median errs by {guess} months"
            if baseline
            else "the data hold no training split",
        ),
    ]


def _range(ends: Sequence[float | None], digits: int = 1, sign: bool = False) -> str:
    return " to ".join(shown(end, digits, sign) for end in ends)


def _agreement(analysis: Mapping[str, Any], predictions: Predictions, command: str) -> Section:
    spread = analysis["abs_error_percentiles_months"]
    pictures = [
        PagePicture(
            age_figures.scatter(predictions),
            f"Scatter of predicted against true age of {analysis['n']} cases around the line of equality",
            "Each case once. The band is 12 months either side of a perfect prediction.",
        ),
        PagePicture(
            age_figures.error_histogram(predictions),
            f"Histogram of the errors, their mean {shown(analysis['bias_months'], sign=True)} months",
            "How often each error occurs. The band is 12 months either side of none.",
        ),
        PagePicture(
            age_figures.residuals(predictions, analysis),
            "Error of each case against its true age, with the mean and the limits of agreement",
            "Error against age, after Bland and Altman: 95 % of errors are expected between the dashed lines.",
            wide=True,
        ),
    ]
    header = ["", *(key if key == "max" else f"{key} %" for key in spread)]
    row = ["absolute error, months", *(shown(value) for value in spread.values())]
    caption = "Percentiles: this share of the cases errs by no more than this"
    return Section("Predicted against true age", (), [PageTable(header, [row], caption)], pictures, command)


def _groups(analysis: Mapping[str, Any], predictions: Predictions, command: str) -> Section:
    gap = analysis["sex_gap"]
    text = _uncompared(analysis) if gap is None else f"Sex: {_gap_words(gap)}"
    by_sex = [_group(SEX_WORDS[sex], row) for sex, row in analysis["by_sex"].items()]
    by_age = [_group(row["bin"], row) for row in analysis["by_age"]]
    columns = ["cases", "MAE", "95 % interval", "RMSE", "bias"]
    tables = [
        PageTable(["true age", *columns], by_age, "By true age in bins of two years; months"),
        PageTable(["sex", *columns], by_sex, "By sex; months"),
    ]
    picture = PagePicture(
        age_figures.errors_by_age(predictions),
        "Boxes of the errors in each two-year bin of the true age",
        "Box: middle half of the cases, with their median. Whiskers: up to 1.5 box heights. Dots: beyond.",
        wide=True,
    )
    return Section("Errors by age and sex", [text], tables, [picture], command)


def _group(name: str, row: Mapping[str, Any]) -> list[str]:
    interval = row.get("mae_interval_months")
    errors = (shown(row["rmse_months"]), shown(row["bias_months"], sign=True))
    return [name, str(row["n"]), shown(row["mae_months"]), _range(interval) if interval else "-", *errors]


def _uncompared(analysis: Mapping[str, Any]) -> str:
    girls, boys = (analysis["by_sex"].get(sex, {}).get("n", 0) for sex in ("F", "M"))
    return (
        f"Not enough cases to compare the errors of girls ({girls}) and boys ({boys}): at least 2 of each are needed."
    )


def _gap_words(gap: Mapping[str, Any]) -> str:
    verdict = "which leaves out 0" if gap["excludes_zero"] else "which includes 0: no difference is shown"
    difference = shown(gap["female_minus_male_months"], 2, sign=True)
    ends = _range(gap["interval_months"], 2, sign=True)
    return f"MAE of girls minus MAE of boys is {difference} months, 95 % interval {ends}, {verdict}."


def _parts(analysis: Mapping[str, Any], command: str) -> Section:
    whole = [_mae("all together", analysis), *(_mae(part["name"], part) for part in analysis["parts"])]
    caption = (
        "Mean absolute error on the same cases, months; the last column compares case by case, + is worse than together"
    )
    columns = ["MAE", "95 % interval", "bias", "MAE minus that of all together"]
    tables = [PageTable(["prediction", *columns], whole, caption)]
    text = ["Several predictions were made for each case and joined into one."]
    if spread := analysis["spread"]:
        rho = shown(spread["spearman_with_abs_error"], 2, sign=True)
        text.append(
            f"Their spread (standard deviation) is {shown(spread['mean_months'])} months on average. Rank correlation with the "
            f"size of the error (Spearman): {rho}; +1 would mean that a large spread always means a large error."
        )
        thirds = [
            [name, str(third["n"]), shown(third["largest_spread_months"]), shown(third["mae_months"])]
            for name, third in zip(("smallest third", "middle third", "largest third"), spread["thirds"], strict=False)
        ]
        tables.append(PageTable(["spread", "cases", "up to, months", "MAE, months"], thirds, "Cases by their spread"))
    return Section("The parts and the whole", text, tables, command=command)


def _comparison(analysis: Mapping[str, Any], command: str) -> list[Section]:
    costs, pairs = analysis.get("costs", ()), analysis.get("pairs", ())
    return [comparison_section(costs, pairs, analysis["measured_on"], command)] if costs or pairs else []


def _mae(name: str, row: Mapping[str, Any]) -> list[str]:
    interval, behind = row["mae_interval_months"], "-"
    if "minus_whole_months" in row:
        ends = row["minus_whole_interval_months"]
        behind = shown(row["minus_whole_months"], 2, sign=True) + (f" ({_range(ends, 2, sign=True)})" if ends else "")
    return [
        name,
        shown(row["mae_months"], 2),
        _range(interval, 2) if interval else "-",
        shown(row["bias_months"], sign=True),
        behind,
    ]


def _stages(name: str, found: Mapping[str, Any], command: str) -> Section:
    classes = found["classes"]
    # Without a head of its own the class comes from the predicted age, and both rows would be the same.
    ways = {"predicted": "from the model's own head"} if found["source"] == "head" else {}
    ways["thresholded"] = "from the predicted age"
    keys = ("accuracy", "precision", "recall", "f1", "qwk")
    rows = [[words, *(shown(found[way][key], 3) for key in keys)] for way, words in ways.items()]
    pictures = [
        PagePicture(
            figures.confusion_matrix(classes, found[way]["confusion"], found[way]["qwk"], f"{name}-{way}"),
            f"Confusion matrix of {len(classes)} classes {words}, weighted kappa {shown(found[way]['qwk'], 3)}",
            f"Class {words}: cases, and percentages of the row.",
        )
        for way, words in ways.items()
    ]
    text = [f"Classes: {', '.join(classes)}. Precision, recall and F1 are weighted by the cases of each class."]
    if found["direct_minus_thresholded"]:
        text.append(_direct_words(found["direct_minus_thresholded"]))
    return Section(
        f"Stages: {name} classes",
        text,
        [PageTable(["class", "accuracy", "precision", "recall", "F1", "weighted kappa"], rows)],
        pictures,
        command,
    )


def _direct_words(found: Mapping[str, Any]) -> str:
    """The accuracy of the head against that of the predicted age, in words."""
    words = f"The accuracy of the head minus that of the predicted age is {100 * found['difference']:+.1f} points"
    if found["interval"] is None:
        return f"{words}; one case has no interval."
    low, high = found["interval"]
    verdict = "which includes 0: no difference is shown" if low <= 0 <= high else "which leaves out 0"
    return f"{words}, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}, {verdict}."


def _largest(analysis: Mapping[str, Any], command: str) -> Section:
    rows = []
    for row in analysis["largest_residuals"]:
        ages = (_age(row["true_months"]), _age(row["predicted_months"]))
        rows.append(
            [row["record_id"], row["input_uri"], row["sex"] or "unknown", *ages, shown(row["error_months"], 1, True)]
        )
    text = "Check these radiographs first: a wrong label, a wrong sex or a poor film may be behind them."
    table = PageTable(["record", "input", "sex", "true", "predicted", "error, months"], rows, text_columns=3)
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
        text.insert(
            1, f"These age bins hold fewer than {FEW_IN_BIN} cases, too few for a statement about them: {thin}."
        )
    return Section("What this does not show", text)
