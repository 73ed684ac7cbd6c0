"""What a training worker counts."""

from __future__ import annotations

import math

import pytest

from boneage_ray.runtime import metrics
from boneage_ray.training.metering import TrainingMeter


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    now = [0.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
    return now


def line(val_loss=0.5):
    return {"epoch": 3, "train_loss": 0.25, "val_loss": val_loss, "val_seconds": 4.0}


def test_an_epoch_is_counted_once_a_second_and_whole(clock, recorded):
    meter = TrainingMeter(0)

    def batches():
        for _ in range(3):
            clock[0] += 0.25  # to read a batch
            yield None

    for _ in meter.waiting(batches()):
        clock[0] += 0.5  # to train on it
        meter.step(8, 1.5)
    assert [value for name, value, *_ in recorded if name == "boneage_train_images"] == [16, 8]
    meter.epoch(line())
    totals = recorded.totals()
    assert totals["boneage_train_seconds", "data"] == 0.75
    assert totals["boneage_train_seconds", "step"] == 1.5
    assert totals["boneage_train_seconds", "validation"] == 4.0
    losses = [(value, *labels) for name, value, *labels in recorded if name == "boneage_train_loss"]
    assert losses == [(1.5, "train"), (0.25, "train"), (0.5, "val")]
    assert totals["boneage_train_epoch",] == 3


def test_the_loss_of_a_step_that_is_still_on_the_gpu_is_left_to_the_epoch(clock, recorded):
    meter = TrainingMeter(0)
    clock[0] += 2
    meter.step(8, math.nan)
    meter.epoch(line(val_loss=None))
    assert [value for name, value, *_ in recorded if name == "boneage_train_loss"] == [0.25]


def test_other_workers_count_images_and_seconds_and_no_loss(clock, recorded):
    meter = TrainingMeter(1)
    clock[0] += 2
    meter.step(8, 1.5)
    meter.epoch(line())
    assert {name for name, *_ in recorded} == {"boneage_train_workers", "boneage_train_images", "boneage_train_seconds"}
