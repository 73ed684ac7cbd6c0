"""Risk and coverage: the error of the cases that are kept when the least certain are left out. Pure functions.

After El-Yaniv and Wiener, On the foundations of noise-free selective classification, 2010. A model that knows when it errs has a
curve that falls as fewer cases are kept; one that does not has a flat one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from boneage_ray.evaluation import figures
from boneage_ray.evaluation.bootstrap import bootstrap_interval
from boneage_ray.evaluation.page import PagePicture, PageTable, Section, percent, shown
from boneage_ray.preparation.geometry import Floats

FEWEST = 20
SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
TITLE = "Error when the least certain cases are left out"


def retention_figures(uncertainty_N: Floats, error_N: Floats) -> dict[str, Any]:
    """The mean error of the kept cases at each share, at best (the largest errors left out), and of all, as JSON.

    `uncertainty_N`: any scale on which more is less certain; equal ones are left out in equal parts, not by chance. `lines`: kept
    share, cases, mean error, the same at best. `half`: the mean errors of the certain half and of the other one, each with its
    95 % interval. Fewer than `FEWEST` cases, or equal uncertainties, have no lines.
    """
    n = len(error_N)
    found: dict[str, Any] = {"n": n, "lines": [], "half": None, "equal": n > 0 and float(np.ptp(uncertainty_N)) == 0}
    if n < FEWEST or found["equal"]:
        return found
    kept, best = kept_error(uncertainty_N, error_N), kept_error(error_N, error_N)
    for share in SHARES:
        count = max(1, round(share * n))
        found["lines"].append(
            {"share": share, "n": count, "error": float(kept[count - 1]), "best": float(best[count - 1])}
        )
    found["half"] = _halves(uncertainty_N, error_N)
    return found


def kept_error(uncertainty_N: Floats, error_N: Floats) -> Floats:
    """(N,): the mean error of the 1, 2, ... N most certain cases; cases of equal uncertainty count by their mean.

    >>> kept_error(np.array([1.0, 2.0, 2.0]), np.array([4.0, 1.0, 3.0])).tolist()
    [4.0, 3.0, 2.6666666666666665]
    """
    _, inverse, counts = np.unique(uncertainty_N, return_inverse=True, return_counts=True)
    of_level = np.bincount(inverse, weights=error_N) / counts
    each = np.repeat(of_level, counts)
    return np.asarray(each.cumsum() / np.arange(1, len(each) + 1))


def _halves(uncertainty_N: Floats, error_N: Floats) -> dict[str, Any]:
    """The mean errors of the certain half and of the rest."""
    order = np.argsort(uncertainty_N, kind="stable")
    half = len(order) // 2
    kept, left = error_N[order[:half]], error_N[order[half:]]
    certain, rest = (bootstrap_interval(part, np.random.default_rng(0)) for part in (kept, left))
    return {
        "kept": float(kept.mean()),
        "kept_interval": certain,
        "left_out": float(left.mean()),
        "left_out_interval": rest,
    }


def retention_section(found: Mapping[str, Any], by: str, error: str, command: str) -> Section:
    """The part of the page: `found` of `retention_figures`; `by`: what says how certain a case is, `error`: with its unit."""
    if found["equal"]:
        return Section(TITLE, [f"Every case has the same {by}: it does not say which cases are less certain."])
    if not found["lines"]:
        return Section(TITLE, [f"Not enough cases ({found['n']} of {FEWEST})."])
    half = found["half"]
    text = [
        f"The cases are ordered by the {by}, and the least certain are left out. The certain half errs by "
        f"{shown(half['kept'], 2)} ({_ends(half['kept_interval'])}), the other half by {shown(half['left_out'], 2)} "
        f"({_ends(half['left_out_interval'])})."
    ]
    header = ["kept", "cases", error, "at best"]
    rows = [
        [percent(line["share"]), str(line["n"]), shown(line["error"], 2), shown(line["best"], 2)]
        for line in found["lines"]
    ]
    caption = "At best: if the cases of the largest errors were the least certain"
    picture = PagePicture(
        figures.retention_curve(found["lines"], error),
        f"Risk-coverage curve: {error} of the kept share of {found['n']} cases",
        f"Lower is better. By chance the line would be flat. Ordered by the {by}.",
    )
    return Section(TITLE, text, [PageTable(header, rows, caption)], [picture], command)


def _ends(interval: list[float]) -> str:
    return f"95 % interval {shown(interval[0], 2)} to {shown(interval[1], 2)}"
