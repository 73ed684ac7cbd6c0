"""Trackers: read back from wandb's offline files, a local MLflow store and TensorBoard's event files."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from boneage_ray import bundle, storage
from boneage_ray.errors import StorageError, UsageError
from boneage_ray.models.regressor import Regressor
from boneage_ray.recipes import find_recipe
from boneage_ray.training import tracking
from boneage_ray.training.trackers import TRACKERS, Tracker, leaves
from boneage_ray.training.tracking import tracked

RECIPE = find_recipe("demo")
GIT = "0123456789abcdef0123456789abcdef01234567"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc0000003010100"
    "18dd8db00000000049454e44ae426082"
)
HISTORY = [{"epoch": n, "train_loss": 8.0 / n, "val_mae_months": None if n == 2 else 10.0 + n} for n in (1, 2, 3, 4)]


class KilledError(Exception):
    """What ends the first try."""


@pytest.fixture
def twice(tmp_path, monkeypatch):
    """twice(name) logs epochs 1 and 2, dies, loses epoch 3, goes on with 4 and completes; returns OUT and the bundle's hash."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_ERROR_REPORTING", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)

    monkeypatch.setattr(tracking, "git_hash", lambda: GIT)

    def train(name):
        out = str(tmp_path / "out")
        with pytest.raises(KilledError), tracked(RECIPE, out, [name]) as log:
            log.epoch(HISTORY[0])
            log.epoch(HISTORY[1])
            raise KilledError
        first = storage.read_json(f"{out}/tracking.json")[name]
        assert first["logged"] == 2
        model = Regressor(RECIPE.model, with_weights=False)
        sha256 = bundle.save(out, RECIPE, model.state_dict(), {"val_mae_months": 14.0, "history": HISTORY})
        storage.write_bytes(f"{out}/augmentation.png", PNG)
        with tracked(RECIPE, out, [name]) as log:
            log.epoch(HISTORY[3])
            log.complete(HISTORY, {"best_epoch": 1, "model_sha256": sha256}, ["augmentation.png", "absent.png"])
        assert storage.read_json(f"{out}/tracking.json")[name] == {"run": first["run"], "logged": 4}
        return out, first["run"], sha256

    return train


def offline_records(path):
    """The records of a .wandb file: a log of LevelDB's format, in blocks of 32 KiB after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, part = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(part)
            part = b""


def wandb_items(items):
    return {item.key or ".".join(item.nested_key): item.value_json for item in items}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wandb_keeps_one_run_offline_with_config_figures_and_the_bundle(twice):
    out, run_id, sha256 = twice("wandb")
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    files = sorted((Path(out) / "wandb").glob("offline-run-*/*.wandb"))
    assert [path.name for path in files] == [f"run-{run_id}.wandb"] * 2
    until = time.monotonic() + 60
    while not all(any(record.HasField("exit") for record in offline_records(path)) for path in files):
        assert time.monotonic() < until  # another process writes them, on a busy machine some time later
        time.sleep(0.2)
    records = [list(offline_records(path)) for path in files]
    every = [record for found in records for record in found]
    runs = [record.run for record in every if record.HasField("run")]
    assert {run.run_id for run in runs} == {run_id}
    config = wandb_items(runs[0].config.update)
    assert config["git"] == f'"{GIT}"'
    assert '"image"' not in config["image"]
    assert config["name"] == f'"{RECIPE.name}"'
    lines = [wandb_items(record.history.item) for record in every if record.HasField("history")]
    losses = {int(line["_step"]): float(line["train_loss"]) for line in lines if "train_loss" in line}
    assert losses == {1: 8.0, 2: 4.0, 3: 8 / 3, 4: 2.0}
    assert any("augmentation.path" in line for line in lines)
    assert [record.exit.exit_code for record in every if record.HasField("exit")] == [1, 0]
    (artifact,) = (record.artifact for record in every if record.HasField("artifact"))
    listed = {entry.path: entry.digest for entry in artifact.manifest.contents}
    assert set(listed) == {*bundle.FILES, bundle.MANIFEST}
    assert (artifact.type, artifact.name) == ("model", RECIPE.name)
    assert set(artifact.aliases) == {"latest", sha256[:12]}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_one_run_with_config_figures_and_the_bundle(twice, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/store")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    _, run_id, sha256 = twice("mlflow")
    from mlflow import MlflowClient

    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("boneage-ray").experiment_id])
    assert (run.info.run_id, run.info.status, run.info.run_name) == (run_id, "FINISHED", RECIPE.name)
    losses = {metric.step: metric.value for metric in client.get_metric_history(run_id, "train_loss")}
    assert losses == {1: 8.0, 2: 4.0, 3: 8 / 3, 4: 2.0}
    assert run.data.params["batch_size"] == str(RECIPE.batch_size)
    assert run.data.params["image.size"] == str(RECIPE.image.size)
    assert run.data.tags["mlflow.source.git.commit"] == GIT
    held = client.download_artifacts(run_id, "bundle")
    assert bundle.load(held).sha256 == sha256
    assert [item.path for item in client.list_artifacts(run_id, "figures")] == ["figures/augmentation.png"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_every_epoch_and_the_picture(twice):
    from tensorboardX.proto.event_pb2 import Event

    out, _, sha256 = twice("tensorboard")
    events = []
    for path in (Path(out) / "tensorboard").iterdir():
        data, at = path.read_bytes(), 0
        while at < len(data):  # length, its checksum, the event, its checksum
            (length,) = struct.unpack("<Q", data[at : at + 8])
            events.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += length + 16
    values = [(value, event.step) for event in events for value in event.summary.value]
    losses = {step: value.simple_value for value, step in values if value.tag == "train_loss"}
    assert losses == pytest.approx({1: 8.0, 2: 4.0, 3: 8 / 3, 4: 2.0})
    texts = {value.tag: value.tensor.string_val[0].decode() for value, _ in values if value.tensor.string_val}
    assert f"model_sha256 = {sha256}" in texts["result/text_summary"]
    assert f"git = {GIT}" in texts["config/text_summary"]
    assert [value.image.width for value, _ in values if value.tag == "augmentation"] == [1]


def test_a_tracker_that_fails_ends_no_training_and_gets_later_what_it_missed(tmp_path, monkeypatch, capsys):
    class Flaky(Tracker):
        got: list[int] = []  # noqa: RUF012
        down = True

        def start(self, facts, run_id):
            return "r"

        def epoch(self, number, figures):
            if self.down:
                raise OSError("no route")
            self.got.append(number)

        def complete(self, number, facts, pictures, bundle):
            raise OSError("no route")

        def close(self, succeeded):
            assert succeeded

    monkeypatch.setitem(TRACKERS, "wandb", Flaky)
    with tracked(RECIPE, str(tmp_path), ["wandb"]) as log:
        log.epoch(HISTORY[0])
        log.epoch(HISTORY[1])
        Flaky.down = False
        log.catch_up(HISTORY[:3])
    assert Flaky.got == [1, 2, 3]
    assert capsys.readouterr().err == "wandb does not take what is logged (no route); the training goes on\n"


def test_what_cannot_be_tracked_is_refused_before_the_training(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UsageError, match="--track wandbb: one of wandb, mlflow, tensorboard"):
        tracking.check_trackers(["wandbb"])
    with pytest.raises(UsageError, match="set MLFLOW_TRACKING_URI"), tracked(RECIPE, str(tmp_path), ["mlflow"]):
        pass
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with (
        pytest.raises(UsageError, match=r"install 'boneage-ray\[mlflow\]'"),
        tracked(RECIPE, str(tmp_path), ["mlflow"]),
    ):
        pass


def test_without_trackers_nothing_is_written_or_imported(tmp_path):
    code = "import sys, boneage_ray.cli, boneage_ray.training.driver\n"
    code += "from boneage_ray.recipes import find_recipe\nfrom boneage_ray.training.tracking import tracked\n"
    code += "with tracked(find_recipe('demo'), sys.argv[1], []) as log:\n"
    code += "    log.epoch({'epoch': 1}); log.complete([], {}, [])\n"
    code += "print(sorted({'wandb', 'mlflow', 'tensorboardX'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []


def test_nested_values_have_dotted_names():
    assert leaves({"a": {"b": 1, "c": [1, 2]}, "d": None}) == [("a.b", 1), ("a.c", [1, 2]), ("d", None)]


def test_events_are_in_an_out_on_object_storage_after_each_epoch(monkeypatch):
    out = f"memory://tracked-{time.monotonic_ns()}"
    with tracked(RECIPE, out, ["tensorboard"]) as log:
        for k, line in enumerate(HISTORY[:2], 1):
            log.epoch(line)  # the driver may be killed at any moment from here on
            written = b"".join(storage.read_bytes(file.uri) for file in storage.list_files(f"{out}/tensorboard"))
            assert written.count(b"train_loss") == k
            assert storage.read_json(f"{out}/tracking.json")["tensorboard"]["logged"] == k


def test_a_record_that_cannot_be_written_ends_no_training(tmp_path, monkeypatch, capsys):
    def full(uri, value):
        raise StorageError("disk_full", f"{uri}: no space left")

    with tracked(RECIPE, str(tmp_path), ["tensorboard"]) as log:
        monkeypatch.setattr(storage, "write_json", full)
        log.epoch(HISTORY[0])
        log.catch_up(HISTORY[:2])
    assert "tracking.json was not written" in capsys.readouterr().err
