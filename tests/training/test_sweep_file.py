"""A sweep's file, and the trials that are drawn from it."""

from __future__ import annotations

import math

import pytest

from boneage_ray.errors import UsageError
from boneage_ray.recipes import find_recipe
from boneage_ray.training import sweep_run
from boneage_ray.training.checkpoint import TrainingProgress
from boneage_ray.training.driver import TrainOptions
from boneage_ray.training.sweep import SweepFile, best_figure, drawn_trials, figure_of, read_sweep, set_flags

RECIPE = find_recipe("demo")


def test_trials_are_drawn_by_the_seed_within_the_ranges_and_all_different():
    file = SweepFile(trials=40, settings={"stage.lr": {"low": 1e-4, "high": 1e-2, "log": True}, "batch_size": [8, 16]})
    trials = drawn_trials(file, RECIPE)
    assert [trial.settings for trial in trials] == [trial.settings for trial in drawn_trials(file, RECIPE)]
    rates = sorted(trial.settings["stage.lr"] for trial in trials)
    assert len(rates) == 40
    assert 1e-4 <= rates[0] < 3e-4
    assert 3e-3 < rates[-1] <= 1e-2
    assert 0.3 < sum(math.log10(rate) < -3 for rate in rates) / 40 < 0.7
    for trial in trials:
        assert (trial.recipe.stages[0].lr, trial.recipe.batch_size) == tuple(trial.settings.values())
        assert (
            set_flags(trial.settings)
            == f"--set stage.lr={trial.settings['stage.lr']:g} --set batch_size={trial.recipe.batch_size}"
        )
    other = drawn_trials(file.model_copy(update={"seed": 1}), RECIPE)
    assert other[0].settings != trials[0].settings


def test_short_lists_give_fewer_trials():
    file = SweepFile(trials=9, settings={"batch_size": [8, 16], "model.mirror": [True, False]})
    found = {tuple(trial.settings.values()) for trial in drawn_trials(file, RECIPE)}
    assert found == {(8, True), (8, False), (16, True), (16, False)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trials = 3\n", "settings is missing"),
        ("trials = 0\n[settings]\nseed = [1]\n", "trials = 0"),
        ("trials = 3\ntrails = 3\n[settings]\nseed = [1]\n", "unknown key trails; nearest known: trials"),
        ("trials = 3\n[settings]\nseed = []\n", "seed has no value to try"),
        ("trials = 3\n[settings]\nseed = {low = 2, high = 1}\n", "low=2 must be below high=1"),
        ("trials = 3\n[settings]\nseed = {low = 0, high = 1, log = true}\n", "a logarithmic range begins above 0"),
        ("trials 3", "is not TOML"),
    ],
)
def test_a_wrong_file_is_told(tmp_path, text, said):
    (tmp_path / "sweep.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        read_sweep(str(tmp_path / "sweep.toml"))


def test_a_field_that_no_recipe_has_is_told_before_anything_starts():
    with pytest.raises(UsageError, match=r"unknown key stages\.0\.rl; nearest known: lr"):
        drawn_trials(SweepFile(trials=2, settings={"stage.rl": [0.1]}), RECIPE)


def test_trials_are_compared_by_what_the_recipe_goes_by():
    assert figure_of(RECIPE) == RECIPE.best_by
    assert figure_of(find_recipe("efficientnet-lite-hand")) == "val_mae_months"
    history = [{"val_loss": 2.0}, {"val_loss": 1.0}, {"val_loss": None}]
    assert best_figure(history, "val_loss") == 1.0
    assert best_figure([], "val_loss") == math.inf


def test_a_trial_that_no_longer_gains_and_ends_early_is_finished(monkeypatch):
    trial = drawn_trials(SweepFile(trials=1, settings={"batch_size": [8]}), RECIPE)[0]
    history = [{"epoch": 1, RECIPE.best_by: 2.0}, {"epoch": 2, RECIPE.best_by: 3.0}]
    over = TrainingProgress(stage=len(RECIPE.stages), history=history)
    monkeypatch.setattr(sweep_run, "_place", lambda *_: ("", ""))
    for progress, status in ((over, "finished"), (TrainingProgress(stage=0, history=history), "stopped")):
        monkeypatch.setattr(sweep_run.checkpoint, "load_latest", lambda *_, found=progress: (found, {}))
        result = sweep_run._result(trial, TrainOptions("", ""), RECIPE.best_by, None)
        assert (result.status, result.epochs, result.best) == (status, 2, 2.0)
