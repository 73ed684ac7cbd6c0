"""Metrics: their names, their bounded labels, and what they cost without Ray: nothing."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from boneage_ray.runtime import metrics


def test_names_are_unique_and_as_prometheus_wants_them():
    names = [metric.name for metric in metrics.METRICS]
    assert len(names) == len(set(names)) == 15
    assert all(re.fullmatch(r"boneage_(score|serve|train)_[a-z_]+", name) for name in names)
    assert not any(name.endswith("_total") for name in names), "Ray adds it"
    assert metrics.SCORE_FILES.series == ("ray_boneage_score_files_total",)
    assert metrics.TRAIN_LOSS.series == ("ray_boneage_train_loss",)
    ends = ("bucket", "sum", "count")
    assert metrics.SERVE_REQUEST_SECONDS.series == tuple(f"ray_boneage_serve_request_seconds_{end}" for end in ends)


def test_only_the_name_of_a_model_is_a_label_without_a_list_of_values():
    free = {(metric.name, label) for metric in metrics.METRICS for label, known in metric.labels.items() if not known}
    assert free == {("boneage_serve_images", "model")}


def test_a_value_that_is_not_listed_becomes_other(recorded):
    metrics.SCORE_FILES.add(2, status="scored", reason="/archive/Doe^Jane.dcm")
    metrics.SERVE_REQUESTS.add(route="/v1/predict", status="200")
    assert recorded == [
        ("boneage_score_files", 2, "scored", "other"),
        ("boneage_serve_requests", 1, "/v1/predict", "200"),
    ]
    with pytest.raises(KeyError):
        metrics.SCORE_FILES.add(1, status="scored")


def test_a_counter_takes_no_nothing_and_a_gauge_only_what_is_finite(recorded):
    metrics.SCORE_BYTES.add(0)
    metrics.TRAIN_LOSS.set(float("nan"), split="train")
    metrics.TRAIN_LOSS.set(0.5, split="train")
    assert recorded == [("boneage_train_loss", 0.5, "train")]


def test_recording_needs_no_ray_and_imports_none():
    code = (
        "import sys\nfrom boneage_ray.runtime import metrics\nmetrics.SCORE_BYTES.add(3)\n"
        "metrics.SCORE_READ_SECONDS.observe(0.1)\nmetrics.SCORE_ACTORS.set(1)\nprint('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_clock_adds_up_by_step_until_it_is_asked(monkeypatch):
    now = iter([0.0, 1.0, 10.0, 12.0, 20.0, 20.5, 30.0, 30.25])
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: next(now))
    clock = metrics.StepClock()
    with pytest.raises(ZeroDivisionError), clock.step("write"):
        raise ZeroDivisionError
    assert list(clock.waiting("wait", [7, 8])) == [7, 8]
    clock.add("write", 3.0)
    assert clock.take() == {"write": 4.0, "wait": 2.75}
    assert clock.take() == {}
