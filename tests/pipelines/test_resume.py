"""Killed with SIGKILL, given again: the same results, and nothing done twice that was committed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import psutil
import pytest
from pipelines.steps import FOUR_EPOCHS, run

from boneage_ray import storage
from boneage_ray.commands import pipeline
from boneage_ray.phantoms.archive import HAND_FOLDER, write_hand_archive

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def start(*arguments):
    """The console command in a process of its own, with a Ray of its own."""
    command = [sys.executable, "-m", "boneage_ray", *arguments]
    environment = {**os.environ, "BONEAGE_CPUS": "2"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(happened, process, timeout=300):
    """Wait until `happened()` while the process runs."""
    end = time.monotonic() + timeout
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def kill_when(process, happened):
    """SIGKILL the driver as soon as `happened()`."""
    wait_for(happened, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@contextmanager
def slowed_worker(process, happened):
    """From when something happened on, the process that trains in a started command runs for a tenth of the time only."""
    found, ended = [], threading.Event()

    def seen():
        if not found:
            children = psutil.Process(process.pid).children(recursive=True)
            found.extend(child for child in children if "RayTrainWorker" in child.name())
        return found and happened()

    def slow():
        with suppress(psutil.NoSuchProcess):
            while not ended.wait(0.15):
                found[0].suspend()
                time.sleep(1.5)
                found[0].resume()

    wait_for(seen, process)
    found[0].suspend()
    thread = threading.Thread(target=slow)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_training_that_is_killed_and_told_to_stop_resumes_with_the_same_losses(prepared, model, tmp_path):
    """Killed in the middle of the first epoch, then told to stop by SIGTERM, which is heeded after a step."""
    broken, checkpoints = str(tmp_path / "broken"), tmp_path / "broken" / "checkpoints"
    flags = [part for setting in FOUR_EPOCHS for part in ("--set", setting)]
    command = ("train", "--recipe", "demo", "--data", prepared, "--out", broken, *flags, "--set")
    kill_when(start(*command, "checkpoint.every_steps=1"), (checkpoints / "epoch-0000-step-000001.json").exists)
    assert not (checkpoints / "epoch-0001.json").exists()

    def steps():
        return set(checkpoints.glob("epoch-*-step-*.json"))

    before = steps()
    told = start(*command, "checkpoint.every_steps=1", "--resume")
    # A step or two a second: or it would be ready before the signal reaches it.
    with slowed_worker(told, lambda: steps() - before):
        time.sleep(4)  # the command hears of its steps
        told.send_signal(signal.SIGTERM)
        # Long enough to hear of it. Until its end, a crowded machine would take ten times its own time.
        with suppress(subprocess.TimeoutExpired):
            told.communicate(timeout=60)
    said = told.communicate(timeout=300)[1]
    assert (told.returncode, "give the command again with --resume" in said) == (130, True), said
    assert steps() - before, said
    assert not (tmp_path / "broken" / "manifest.json").exists()
    record = run(pipeline.train, pipeline.TrainArguments("demo", prepared, broken, settings=FOUR_EPOCHS, resume=True))
    assert record.answer["epochs"] == 4

    def losses(out):
        history = json.loads(storage.read_text(f"{out}/metrics.json"))["history"]
        return [(line["epoch"], line["train_loss"], line["val_loss"], line["lr"]) for line in history]

    assert losses(broken) == losses(model)
    weights = [storage.read_bytes(f"{out}/weights.safetensors") for out in (model, broken)]
    assert weights[0] == weights[1]


def test_a_training_whose_worker_is_killed_again_and_again_goes_on(prepared, model, tmp_path, capsys):
    out = tmp_path / "out"

    def kill_workers():
        """At the end of epochs 1 and 2, the process that trains."""
        for epoch in (1, 2):
            while not (out / "checkpoints" / f"epoch-{epoch:04d}.json").exists():
                time.sleep(0.02)
            for process in psutil.Process().children(recursive=True):  # trainings of other tests go on
                with suppress(psutil.NoSuchProcess):
                    if "RayTrainWorker" in process.name():
                        process.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill_workers, daemon=True)
    killer.start()
    arguments = pipeline.TrainArguments("demo", prepared, str(out), settings=FOUR_EPOCHS)
    assert run(pipeline.train, arguments).answer["epochs"] == 4
    killer.join(timeout=10)
    said = capsys.readouterr().err
    assert "going on after epoch 1, try 2 of 3" in said and "going on after epoch 2, try 2 of 3" in said
    assert storage.read_bytes(f"{out}/weights.safetensors") == storage.read_bytes(f"{model}/weights.safetensors")


def test_killed_scoring_continues(model, tmp_path, result_rows):
    write_hand_archive(str(tmp_path / "hands"), 400, seed=21, size=96)
    source, out = str(tmp_path / "hands" / HAND_FOLDER), tmp_path / "scores"
    process = start("score", source, "--model", model, "--out", str(out))
    first = out / "results" / "part-00000.parquet"
    kill_when(process, first.exists)
    kept = {path.name: path.stat().st_mtime_ns for path in sorted((out / "results").glob("part-*.parquet"))}
    assert 1 <= len(kept) < 14
    assert not (out / "summary.json").exists()
    time.sleep(5)  # the killed driver's actors end by themselves
    answer = run(pipeline.score, pipeline.ScoreArguments(source, model, str(out))).answer
    assert answer["inputs"] == answer["scored"] == 400
    assert len(result_rows(str(out))) == 400
    again = {path.name: path.stat().st_mtime_ns for path in sorted((out / "results").glob("part-*.parquet"))}
    assert len(again) == 14
    assert {name: again[name] for name in kept} == kept
