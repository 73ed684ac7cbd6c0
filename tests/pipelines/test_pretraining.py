"""Pretraining on other data, balanced drawing, and what a training command checks before it starts."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from pipelines.steps import SMALL, run

from boneage_ray.commands import pipeline
from boneage_ray.datasets import load
from boneage_ray.datasets.plan import training_slices
from boneage_ray.errors import UsageError

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TINY = [*SMALL[:1], "model.backbone.name=test_resnet", "batch_size=16"]
LESSONS = [
    *TINY,
    'stages=[{epochs=1, data="pretrain", lr=1e-3}, {epochs=2, lr=1e-3, ema=0.9, accumulate=2}]',
    "balance=four",
]


def arguments(prepared, out, settings, pretrain=None):
    return pipeline.TrainArguments("demo", prepared, str(out), pretrain, settings=settings)


def test_pretraining_comes_first_and_its_encoder_starts_another_training(prepared, tmp_path, capsys):
    run(pipeline.train, arguments(prepared, tmp_path / "taught", LESSONS, pretrain=prepared))
    metrics = json.loads((tmp_path / "taught" / "metrics.json").read_text())
    assert [line["stage"] for line in metrics["history"]] == [0, 1, 1]
    assert {line["train_cases"] for line in metrics["history"]} == {42}
    assert "no training case of class adult: the three-stage head cannot learn it" in capsys.readouterr().err
    weights = tmp_path / "taught" / "checkpoints" / "pretrained.safetensors"
    again = [*TINY, "stage.epochs=1", f"model.backbone.weights={weights}"]
    run(pipeline.train, arguments(prepared, tmp_path / "next", again))
    assert (tmp_path / "next" / "manifest.json").exists()


def test_pretraining_data_are_asked_for_and_refused_in_words(prepared, tmp_path):
    with pytest.raises(UsageError, match="demo starts with pretraining: give --pretrain-data"):
        run(pipeline.train, arguments(prepared, tmp_path / "a", LESSONS))
    with pytest.raises(UsageError, match="demo has no stage with data = pretrain"):
        run(pipeline.train, arguments(prepared, tmp_path / "b", TINY, pretrain=prepared))
    assert not list(Path(tmp_path).iterdir())


def test_the_reader_pauses_while_its_batches_wait(prepared, local_ray, monkeypatch):
    turns = []

    class Counting(load.Pause):
        def on_execution_step(self, executor):
            turns.append(time.monotonic())
            super().on_execution_step(executor)

    monkeypatch.setattr(load, "Pause", Counting)
    source = load.open_prepared(prepared)
    rows = 0
    start = time.monotonic()
    for batch in load.batches(training_slices(source.shards("train"), "0:0", 0, 1), 8):
        rows += len(batch)
        time.sleep(0.2)
    assert rows == source.rows("train")
    assert 1 <= len(turns) <= (time.monotonic() - start) / load.Pause.SECONDS + 1
