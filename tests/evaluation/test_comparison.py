"""Several models on the same cases: paired differences, and what a model costs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from made_up_predictions import predictions

from boneage_ray.evaluation.costs import Metered, sum_of_costs
from boneage_ray.tasks.age.findings.comparison import comparison_section, pair_figures, training_seconds


def test_a_pair_is_compared_case_by_case():
    chance = np.random.default_rng(0)
    true = chance.uniform(20, 220, 200)
    shared = chance.normal(
        0, 12, 200
    )  # hard cases are hard for both: the difference is known far better than either error
    parts = {
        "a": (true + shared + np.sign(shared)).tolist(),
        "b": (true + shared).tolist(),
        "c": (true - shared).tolist(),
    }
    found = pair_figures(replace(predictions(true.tolist(), true.tolist()), parts=parts))
    assert [(pair["first"], pair["second"], pair["differ"]) for pair in found] == [
        ("a", "b", True),
        ("a", "c", True),
        ("b", "c", False),
    ]
    assert found[0]["mae_difference_months"] == pytest.approx(1.0)
    assert found[0]["interval_months"] == pytest.approx([1.0, 1.0])
    one = pair_figures(replace(predictions([100.0], [100.0]), parts={"a": [101.0], "b": [102.0]}))
    assert one[0] == {
        "first": "a",
        "second": "b",
        "mae_difference_months": -1.0,
        "interval_months": None,
        "differ": None,
    }


class Slow:
    """Takes a case's time, as a predictor does."""

    sha256, batch_size, device, parameters = "0", 4, torch.device("cpu"), 500_000

    def __init__(self):
        self.asked = []

    def __call__(self, columns):
        self.asked.append(len(columns["sex"]))
        return {"age_months": [1.0] * len(columns["sex"])}


def test_a_model_is_metered_once_it_is_warm():
    predictor = Slow()
    meter = Metered(predictor, "slow")
    assert meter({"image": [0] * 8, "sex": ["F"] * 8}) == {"age_months": [1.0] * 8}
    meter({"image": [0] * 2, "sex": ["F"] * 2})
    assert predictor.asked == [1, 8, 2]
    assert (meter.last["parameters"], meter.last["cases"]) == (500_000, 2)
    assert meter.last["peak_bytes"] is None or meter.last["peak_bytes"] > 10**7


def test_costs_of_all_shards_add_up():
    cost = {"name": "a", "parameters": 10, "cases": 4, "seconds": 2.0, "peak_bytes": 3_000_000}
    more = [cost, cost | {"seconds": 1.0, "peak_bytes": 5_000_000}, cost | {"name": "b", "peak_bytes": None}]
    assert sum_of_costs([*more, cost | {"name": "c", "cases": 0}]) == [
        {"name": "a", "parameters": 10, "milliseconds_per_case": 375.0, "peak_memory_mb": 5.0},
        {"name": "b", "parameters": 10, "milliseconds_per_case": 500.0, "peak_memory_mb": None},
    ]


def test_the_page_says_what_is_not_known():
    members = [
        SimpleNamespace(name="a", metrics={"history": [{"train_seconds": 30.0}, {"train_seconds": 60.0}]}),
        SimpleNamespace(name="b", metrics={}),
    ]
    seconds = training_seconds(members)
    assert seconds == {"a": 90.0}
    cost = {"parameters": 2_500_000, "milliseconds_per_case": 12.34, "peak_memory_mb": None}
    costs = [cost | {"name": name, "training_seconds": seconds.get(name)} for name in "ab"]
    pair = {"first": "a", "second": "b", "mae_difference_months": -0.5, "interval_months": None, "differ": None}
    costs_table, pairs_table = comparison_section(costs, [pair], "on CPU", "boneage evaluate").tables
    assert costs_table.rows == [["a", "2.50", "1.5", "12.3", "-"], ["b", "2.50", "-", "12.3", "-"]]
    assert pairs_table.rows == [["a - b", "-0.50", "-", "not enough cases"]]
