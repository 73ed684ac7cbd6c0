"""Checkpoints: whole or absent, tensors and plain values, never a pickle."""

from __future__ import annotations

import json

import pytest
import torch

from boneage_ray.errors import MismatchError
from boneage_ray.recipes.stage import Stage
from boneage_ray.training import checkpoint
from boneage_ray.training.checkpoint import TrainingProgress, TrainingState
from boneage_ray.training.optimization import build_optimizer


def trained(name):
    """A small model with an optimizer that has taken steps."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = build_optimizer(Stage(optimizer=name, lr=0.1), model.parameters())
    for _ in range(3):
        model(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def saved(uri, epoch=1, mark="mark", name="adamw"):
    model, optimizer = trained(name)
    progress = TrainingProgress(
        epoch=epoch, best_epoch=1, best_score=3.5, history=[{"epoch": k + 1} for k in range(epoch)]
    )
    checkpoint.save_checkpoint(uri, mark, progress, TrainingState(model.state_dict(), optimizer))
    return model, optimizer, progress


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_model_optimizer_progress_and_random_state_come_back(tmp_path, name):
    model, optimizer, progress = saved(str(tmp_path), name=name)
    state = torch.get_rng_state()
    found, tensors = checkpoint.load_latest(str(tmp_path), "mark")
    assert (found.epoch, found.best_score, found.history) == (1, 3.5, progress.history)
    weights = checkpoint.model_weights(tensors)
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    assert torch.equal(tensors["rng"], state)
    fresh = torch.nn.Linear(3, 2)
    restored = build_optimizer(Stage(optimizer=name, lr=0.7), fresh.parameters())
    checkpoint.restore_optimizer(restored, found, tensors)
    before, after = optimizer.state_dict(), restored.state_dict()
    assert after["state"].keys() == before["state"].keys() == {0, 1}
    for index, entries in before["state"].items():
        for key, value in entries.items():
            other = after["state"][index][key]
            assert torch.equal(other, value) if isinstance(value, torch.Tensor) else other == value
    assert after["param_groups"][0]["lr"] == 0.1


def test_an_optimizer_without_steps_comes_back_too(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = build_optimizer(Stage(optimizer="adam"), model.parameters())
    checkpoint.save_checkpoint(
        str(tmp_path), "mark", TrainingProgress(epoch=1), TrainingState(model.state_dict(), optimizer)
    )
    found, tensors = checkpoint.load_latest(str(tmp_path), "mark")
    checkpoint.restore_optimizer(optimizer, found, tensors)
    assert optimizer.state_dict()["state"] == {}


def test_the_last_two_epochs_are_kept(tmp_path):
    for epoch in (1, 2, 3, 4):
        saved(str(tmp_path), epoch)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["epoch-0003.json", "epoch-0003.safetensors", "epoch-0004.json", "epoch-0004.safetensors"]
    assert checkpoint.saved_places(str(tmp_path)) == [(3, 0), (4, 0)]


def test_an_epoch_counts_only_with_both_files(tmp_path):
    saved(str(tmp_path), 1)
    saved(str(tmp_path), 2)
    (tmp_path / "epoch-0002.json").unlink()
    assert checkpoint.load_latest(str(tmp_path), "mark")[0].epoch == 1
    saved(str(tmp_path), 2)
    (tmp_path / "epoch-0002.safetensors").unlink()
    assert checkpoint.load_latest(str(tmp_path), "mark")[0].epoch == 1


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d[:500] + b"x" + d[501:], lambda d: b""])
def test_a_damaged_epoch_falls_back_to_the_one_before(tmp_path, damage):
    saved(str(tmp_path), 1)
    saved(str(tmp_path), 2)
    path = tmp_path / "epoch-0002.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert checkpoint.load_latest(str(tmp_path), "mark")[0].epoch == 1
    (tmp_path / "epoch-0001.safetensors").write_bytes(b"")
    assert checkpoint.load_latest(str(tmp_path), "mark") is None


def test_another_runs_checkpoint_is_refused(tmp_path):
    saved(str(tmp_path))
    with pytest.raises(MismatchError, match=r"another recipe, data or version; .*--overwrite"):
        checkpoint.load_latest(str(tmp_path), "other")


def test_nothing_there_is_a_new_start(tmp_path):
    assert checkpoint.load_latest(str(tmp_path / "absent"), "mark") is None
    assert checkpoint.load_latest(str(tmp_path), "mark") is None


def test_checkpoints_on_s3(s3_bucket):
    uri = f"{s3_bucket}/run/checkpoints"
    assert checkpoint.load_latest(uri, "mark") is None
    for epoch in (1, 2, 3):
        model, _, _ = saved(uri, epoch)
    found, tensors = checkpoint.load_latest(uri, "mark")
    assert (found.epoch, checkpoint.saved_places(uri)) == (3, [(2, 0), (3, 0)])
    assert torch.equal(checkpoint.model_weights(tensors)["weight"], model.weight)


def test_plain_values_are_json(tmp_path):
    saved(str(tmp_path))
    values = json.loads((tmp_path / "epoch-0001.json").read_text())
    assert (values["fingerprint"], values["epoch"], len(values["sha256"])) == ("mark", 1, 64)


def epoch_of(uri, number, score, keep=2):
    """Commit an epoch with this score; its weights are all `number`."""
    before = checkpoint.load_latest(uri, "mark")
    progress = before[0] if before else TrainingProgress()
    progress.epoch = number
    progress.history.append({"epoch": number, "score": score})
    weights = {"weight": torch.full((2,), float(number))}
    checkpoint.keep_best(uri, progress, weights, {"of": number}, keep)
    checkpoint.save_checkpoint(uri, "mark", progress, TrainingState(weights, trained("sgd")[1]))
    return progress


def test_the_best_epochs_are_kept_with_what_validation_says_of_each(tmp_path):
    uri = str(tmp_path)
    for number, score in enumerate([None, 9.0, 7.0, 8.0, 7.0, 12.0, None], start=1):
        progress = epoch_of(uri, number, score)
    assert [(kept["epoch"], kept["score"]) for kept in progress.best] == [(3, 7.0), (5, 7.0)]
    assert checkpoint.load_best(uri)["weight"].tolist() == [3.0, 3.0]
    assert checkpoint.load_calibration(uri) == {"of": 3}
    assert sorted(path.name for path in tmp_path.glob("best-*")) == ["best-0003.safetensors", "best-0005.safetensors"]


def test_best_weights_that_no_commit_names_do_not_count(tmp_path):
    uri = str(tmp_path)
    progress = epoch_of(uri, 1, 5.0, keep=1)
    progress.epoch = 2
    progress.history.append({"epoch": 2, "score": 1.0})
    checkpoint.keep_best(uri, progress, {"weight": torch.zeros(2)}, {"of": 2})  # killed before the commit
    assert checkpoint.load_best(uri)["weight"].tolist() == [1.0, 1.0]
    assert checkpoint.load_calibration(uri) == {"of": 1}
    epoch_of(uri, 2, 6.0, keep=1)
    assert [path.name for path in tmp_path.glob("best-*")] == ["best-0001.safetensors"]
    (tmp_path / "best-0001.safetensors").write_bytes(b"torn")
    with pytest.raises(MismatchError, match=r"best-0001\.safetensors is damaged or lost"):
        checkpoint.load_best(uri)


def test_the_best_weights_of_every_checkpoint_that_is_left_are_there(tmp_path):
    uri = str(tmp_path)
    epoch_of(uri, 1, 5.0, keep=1)
    epoch_of(uri, 2, 4.0, keep=1)
    (tmp_path / "epoch-0002.safetensors").write_bytes(b"torn")
    again = epoch_of(uri, 2, 6.0, keep=1)  # on another machine the repeated epoch is worse
    assert again.best[0]["epoch"] == 1
    assert checkpoint.load_best(uri)["weight"].tolist() == [1.0, 1.0]


def test_in_mid_epoch_the_last_two_and_the_last_whole_epoch_are_kept(tmp_path):
    for place in ((1, 0), (2, 0), (2, 10), (2, 20), (2, 30)):
        commit_at(tmp_path, place)
    assert checkpoint.saved_places(str(tmp_path)) == [(2, 0), (2, 20), (2, 30)]
    assert checkpoint.load_latest(str(tmp_path), "mark", workers=2)[0].step == 30
    (tmp_path / "epoch-0002-step-000030.safetensors").write_bytes(b"torn")
    assert checkpoint.load_latest(str(tmp_path), "mark", workers=2)[0].step == 20
    found = checkpoint.load_latest(str(tmp_path), "mark", workers=1)[0]
    assert (found.epoch, found.step) == (2, 0), "the middle of an epoch is for those who dealt it out"
    commit_at(tmp_path, (3, 0))
    assert checkpoint.saved_places(str(tmp_path)) == [(2, 30), (3, 0)]


def commit_at(folder, place):
    model, optimizer = trained("sgd")
    progress = TrainingProgress(epoch=place[0], step=place[1], workers=2)
    own = [{"cases": torch.tensor(rank)} for rank in range(2)] if place[1] else []
    checkpoint.save_checkpoint(str(folder), "mark", progress, TrainingState(model.state_dict(), optimizer, workers=own))


def test_what_each_worker_had_comes_back(tmp_path):
    commit_at(tmp_path, (0, 5))
    _, tensors = checkpoint.load_latest(str(tmp_path), "mark")
    assert [int(checkpoint.worker_tensors(tensors, rank)["cases"]) for rank in range(2)] == [0, 1]


def test_fingerprints_see_every_value():
    marks = {checkpoint.fingerprint_of(*values) for values in (({"a": 1}, 2), ({"a": 1}, 3), ({"a": 2}, 2), ({}, "2"))}
    assert len(marks) == 4
    assert checkpoint.fingerprint_of({"a": 1, "b": 2}) == checkpoint.fingerprint_of({"b": 2, "a": 1})
