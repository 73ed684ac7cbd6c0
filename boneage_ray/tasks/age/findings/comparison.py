"""Several models on the same cases: how far their errors differ, case by case, and what each costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from boneage_ray.evaluation.bootstrap import bootstrap_interval
from boneage_ray.evaluation.page import PageTable, Section, shown
from boneage_ray.prediction.members import Member
from boneage_ray.records.schema import Row
from boneage_ray.tasks.age.findings.analysis import Predictions

_DIGITS = 6


def pair_figures(predictions: Predictions, seed: int = 0) -> list[dict[str, Any]]:
    """For every two of the parts: the mean of |error of first| minus |error of second| over the cases, with its 95 % interval.

    The same resamples for every pair. `differ` is None where one case says nothing of an interval.
    """
    true_N = np.asarray(predictions.true_months, np.float64)
    sizes = {name: np.abs(np.asarray(ages, np.float64) - true_N) for name, ages in predictions.parts.items()}
    found = []
    for first, second in combinations(sizes, 2):
        difference_N = sizes[first] - sizes[second]
        ends = bootstrap_interval(difference_N, np.random.default_rng(seed))
        found.append(
            {
                "first": first,
                "second": second,
                "mae_difference_months": round(float(difference_N.mean()), _DIGITS),
                "interval_months": ends and [round(end, _DIGITS) for end in ends],
                "differ": None if ends is None else not ends[0] <= 0 <= ends[1],
            }
        )
    return found


def training_seconds(members: Sequence[Member]) -> dict[str, float]:
    """Seconds of the epochs of each model that says them."""
    found = {}
    for member in members:
        seconds = [line.get("train_seconds") for line in member.metrics.get("history", [])]
        if seconds and all(isinstance(each, int | float) for each in seconds):
            found[member.name] = round(sum(seconds), 1)
    return found


def comparison_in_words(costs: Sequence[Row], pairs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The lines of the terminal."""
    found = {}
    for pair in pairs:
        difference, between, words = _pair(pair)[1:]
        found[f"mae_months of {pair['first']} minus {pair['second']}"] = f"{difference} ({between}), different: {words}"
    for cost in costs:
        memory = "" if cost["peak_memory_mb"] is None else f", {cost['peak_memory_mb']:.0f} MB"
        million = f"{cost['parameters'] / 1e6:.2f} million parameters"
        found[f"cost of {cost['name']}"] = f"{million}, {cost['milliseconds_per_case']:.1f} ms a case{memory}"
    return found


def comparison_section(costs: Sequence[Row], pairs: Sequence[Mapping[str, Any]], where: str, command: str) -> Section:
    """The part of the page: `costs` of evaluation/costs.py with `training_seconds`, `pairs` of `pair_figures`."""
    header = ["model", "parameters, millions", "training, min", "prediction, ms a case", "peak memory, MB"]
    rows = [
        [
            cost["name"],
            shown(cost["parameters"] / 1e6, 2),
            shown(None if cost["training_seconds"] is None else cost["training_seconds"] / 60),
            shown(cost["milliseconds_per_case"]),
            shown(cost["peak_memory_mb"], 0),
        ]
        for cost in costs
    ]
    caption = f"Measured in this evaluation, {where}; memory is that of the process on CPUs, of the tensors on a GPU"
    tables = [PageTable(header, rows, caption)] if rows else []
    text = []
    if pairs:
        text.append(
            "The models are compared on the same cases, pair by pair: the interval is of the paired difference."
        )
        tables.append(
            PageTable(
                ["pair", "MAE difference, months", "95 % interval", "do they differ?"],
                [_pair(pair) for pair in pairs],
                "MAE of the first minus MAE of the second; below 0 the first is better",
            )
        )
    return Section("Models, their costs and differences", text, tables, command=command)


def _pair(pair: Mapping[str, Any]) -> list[str]:
    ends = pair["interval_months"]
    words = {None: "not enough cases", True: "yes", False: "not shown"}[pair["differ"]]
    between = " to ".join(shown(end, 2, sign=True) for end in ends) if ends else "-"
    return [f"{pair['first']} - {pair['second']}", shown(pair["mae_difference_months"], 2, sign=True), between, words]
