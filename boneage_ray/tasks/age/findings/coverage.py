"""How often intervals of ages hold the true age: pure functions, no model, no Ray.

The share of covered cases is uncertain itself; its 95 % interval is that of Wilson (Probable inference, the law of succession,
and statistical inference, 1927), which holds for few cases and for shares near 0 and 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from boneage_ray.anatomy.growth import AGE_BINS, age_bin
from boneage_ray.evaluation.page import SEX_WORDS, PageTable, Section, percent, shown
from boneage_ray.tasks.age.findings.analysis import Predictions

# Below this, a share says too little to be shown; no more sources than this are listed.
FEWEST, MOST_SOURCES = 10, 20


def wilson_interval(hits: int, cases: int) -> tuple[float, float]:
    """95 % interval of a share, from `hits` of `cases`.

    >>> [round(end, 3) for end in wilson_interval(90, 100)]
    [0.826, 0.945]
    """
    from scipy.stats import binomtest

    found = binomtest(hits, cases).proportion_ci(0.95, "wilson")
    return float(found.low), float(found.high)


def coverage_figures(predictions: Predictions) -> dict[str, Any] | None:
    """Of the cases that have an interval: the covered share and the mean width, of all, by sex, age and source.

    None for a model without intervals. A group of fewer than `FEWEST` cases has no share (None).
    """
    if predictions.bounds is None or predictions.level is None:
        return None
    known = [k for k, pair in enumerate(predictions.bounds) if pair is not None]
    by_source = predictions.source or [None] * len(predictions.bounds)
    sources = [name for name, _ in Counter(by_source).most_common(MOST_SOURCES) if name]

    def groups(keys: Sequence[object], names: Mapping[Any, str]) -> list[dict[str, Any]]:
        """The figures of the cases of each key, those of no case left out."""
        found = [
            {"name": name, **_share(predictions, [k for k in known if keys[k] == key])} for key, name in names.items()
        ]
        return [row for row in found if row["n"]]

    return {
        "level": predictions.level,
        "without_interval": len(predictions.bounds) - len(known),
        "name": "all",
        **_share(predictions, known),
        "by_sex": groups([sex or "unknown" for sex in predictions.sex], SEX_WORDS),
        "by_age": groups([age_bin(age) for age in predictions.true_months], {name: name for name in AGE_BINS}),
        "by_source": groups(by_source, {name: name for name in sources} if len(sources) > 1 else {}),
    }


def _share(predictions: Predictions, chosen: Sequence[int]) -> dict[str, Any]:
    pairs = [pair for k in chosen if (pair := (predictions.bounds or [])[k]) is not None]
    if len(chosen) < FEWEST:
        return {"n": len(chosen), "covered": None, "interval": None, "mean_width_months": None}
    low_N, high_N = np.array(pairs, np.float64).T
    true_N = np.array([predictions.true_months[k] for k in chosen], np.float64)
    hits = int(((low_N <= true_N) & (true_N <= high_N)).sum())
    return {
        "n": len(chosen),
        "covered": hits / len(chosen),
        "interval": list(wilson_interval(hits, len(chosen))),
        "mean_width_months": float((high_N - low_N).mean()),
    }


def covered_in_words(row: Mapping[str, Any]) -> str:
    """The share of a group with its interval and the mean width, on one line."""
    if row["covered"] is None:
        return f"not enough cases ({row['n']} of {FEWEST})"
    low, high = row["interval"]
    ends = f"{percent(low)} to {percent(high)}"
    return f"{percent(row['covered'])} of {row['n']} ({ends}), {row['mean_width_months']:.1f} months wide"


def too_narrow(found: Mapping[str, Any] | None) -> list[str]:
    """A caution where surely fewer true ages lie inside their intervals than was promised."""
    if not found or found["covered"] is None or found["interval"][1] >= found["level"]:
        return []
    return [
        f"Only {percent(found['covered'])} of the true ages lie inside their intervals of coverage {percent(found['level'])}: "
        "boneage calibrate fits intervals to cases like these."
    ]


def coverage_section(found: Mapping[str, Any], command: str) -> Section:
    """The part of the page on intervals: `found` of `coverage_figures`."""
    level = percent(found["level"])
    text = [
        f"Intervals of coverage {level}: of cases like those that they were fitted on, that share of true ages lies inside. The "
        "table shows how many of these cases do."
    ]
    if found["without_interval"]:
        text.append(
            f"{found['without_interval']} cases have no interval: their sex is unknown, or too few were there to fit it."
        )
    if note := found.get("note"):
        text.append(note)
    header = ["cases", "inside", "95 % interval", "mean width, months"]
    groups = [("", [found]), ("sex", found["by_sex"]), ("true age", found["by_age"]), ("source", found["by_source"])]
    tables = [
        PageTable([name, *header], [_line(row) for row in rows], f"By {name}" if name else "")
        for name, rows in groups
        if rows
    ]
    return Section("Intervals of the age", text, tables, command=command)


def _line(row: Mapping[str, Any]) -> list[str]:
    if row["covered"] is None:
        return [row["name"], str(row["n"]), f"not enough cases ({row['n']} of {FEWEST})", "-", "-"]
    ends = f"{percent(row['interval'][0])} to {percent(row['interval'][1])}"
    return [row["name"], str(row["n"]), percent(row["covered"]), ends, shown(row["mean_width_months"])]
