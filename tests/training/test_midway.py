"""Checkpoints in mid-epoch: a run goes on at the step at which it was ended, as if it had not been."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from plain_world import STEPS, Killed, PlainWorld, figures, job, tiny_recipe

from boneage_ray.errors import MismatchError
from boneage_ray.training import checkpoint, driver, midway
from boneage_ray.training.ahead import NonFiniteLossError
from boneage_ray.training.loop import train_stages
from boneage_ray.training.notice import Notice

pytestmark = pytest.mark.usefixtures("one_thread")

# What a training may hang on: draws of augmentation and dropout, averages, rates, accumulated gradients, a worse score.
SETTINGS = ("stage.epochs=2", "stage.ema=0.8", "model.dropout=0.3", "stage.lr=5e-3", "checkpoint.keep=2")


def everything(folder):
    """All tensors of the last checkpoint, and the best weights."""
    _, tensors = checkpoint.load_latest(str(folder), "mark")
    return tensors | {f"best.{name}": value for name, value in checkpoint.load_best(str(folder)).items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("more", "steps"), [((), STEPS), (("stage.accumulate=2",), 2)])
def test_two_kills_in_mid_epoch_leave_no_trace(tmp_path, more, steps):
    recipe = tiny_recipe(*SETTINGS, *more)
    whole = train_stages(job(recipe, tmp_path / "whole"), PlainWorld())
    broken = job(tiny_recipe(*SETTINGS, *more, "checkpoint.every_steps=1"), tmp_path / "broken")
    with pytest.raises(Killed):
        train_stages(broken, PlainWorld(dies_at_step=2))
    assert checkpoint.saved_places(broken.run_uri) == [(0, 1)]
    torch.manual_seed(99)
    second = PlainWorld(dies_at_step=2 * steps - 1)  # the last step of epoch 2
    with pytest.raises(Killed):
        train_stages(broken, second)
    assert checkpoint.saved_places(broken.run_uri)[-1] == (1, steps - 1)
    torch.manual_seed(98)
    last = PlainWorld()
    assert figures(train_stages(broken, last)) == figures(whole)
    assert len(last.steps) == 1, "nothing is done again"
    assert equal(everything(tmp_path / "broken"), everything(tmp_path / "whole"))


@pytest.mark.parametrize("step", [1, STEPS, STEPS + 2])
def test_a_run_that_is_told_to_stop_ends_after_the_step_and_goes_on_there(tmp_path, step):
    recipe = tiny_recipe(*SETTINGS)
    whole = train_stages(job(recipe, tmp_path / "whole"), PlainWorld())
    work = job(recipe, tmp_path / "stopped")
    first = PlainWorld(told={step: Notice.STOP})
    progress = train_stages(work, first)
    if step == STEPS:  # the last step of an epoch: that is committed as a whole
        assert figures(progress) == figures(whole)
        return
    assert progress.stage == 0
    assert len(first.steps) == step
    assert checkpoint.saved_places(work.run_uri)[-1] == divmod(step, STEPS)
    torch.manual_seed(99)
    last = PlainWorld()
    assert figures(train_stages(work, last)) == figures(whole)
    assert len(last.steps) == 2 * STEPS - step
    assert equal(everything(tmp_path / "stopped"), everything(tmp_path / "whole"))


def test_a_node_that_leaves_makes_a_checkpoint_and_ends_nothing(tmp_path):
    recipe = tiny_recipe(*SETTINGS)
    whole = train_stages(job(recipe, tmp_path / "whole"), PlainWorld())
    work = job(recipe, tmp_path / "left")
    with pytest.raises(Killed):  # it goes on for two steps, then its node is gone
        train_stages(work, PlainWorld(told={1: Notice.LEAVING}, dies_at_step=3))
    assert checkpoint.saved_places(work.run_uri)[-1] == (0, 1)
    last = PlainWorld()
    assert figures(train_stages(work, last)) == figures(whole)
    assert len(last.steps) == 2 * STEPS - 1
    assert equal(everything(tmp_path / "left"), everything(tmp_path / "whole"))


def test_a_torn_checkpoint_in_mid_epoch_costs_its_steps_and_nothing_else(tmp_path):
    recipe = tiny_recipe(*SETTINGS, "checkpoint.every_steps=1")
    whole = train_stages(job(recipe, tmp_path / "whole"), PlainWorld())
    work = job(recipe, tmp_path / "torn")
    with pytest.raises(Killed):
        train_stages(work, PlainWorld(dies_at_step=STEPS))
    (tmp_path / "torn" / "epoch-0000-step-000002.json").unlink()  # killed before it was committed
    last = PlainWorld()
    assert figures(train_stages(work, last)) == figures(whole)
    assert len(last.steps) == 2 * STEPS - 1
    assert equal(everything(tmp_path / "torn"), everything(tmp_path / "whole"))


class Two(PlainWorld):
    """The first of two workers, who sees all batches."""

    size = 2


def test_other_workers_go_back_to_the_last_whole_epoch(tmp_path, capsys):
    recipe = tiny_recipe(*SETTINGS, "checkpoint.every_steps=1")
    work = job(recipe, tmp_path)
    with pytest.raises(Killed):
        train_stages(work, PlainWorld(dies_at_step=STEPS + 2))
    assert checkpoint.saved_places(work.run_uri)[-1] == (1, 1)
    driver._say_what_is_lost(work.run_uri, "mark", 1)
    assert capsys.readouterr().err == ""
    driver._say_what_is_lost(work.run_uri, "mark", 2)
    assert "the steps after epoch 1 are trained again: 1 workers had dealt out its cases" in capsys.readouterr().err
    with pytest.raises(Killed):  # its own first checkpoint counts, not the later ones of the other
        train_stages(work, Two(dies_at_step=2))
    assert [place for place in checkpoint.saved_places(work.run_uri) if place[1]] == [(1, 1)]
    assert checkpoint.load_latest(work.run_uri, "mark")[0].workers == 2
    work = replace(work, recipe=recipe)
    (tmp_path / "epoch-0001-step-000001.json").unlink()
    two = Two()
    progress = train_stages(work, two)
    assert (two.asked, len(two.steps)) == ([1], STEPS)
    assert [(line["epoch"], line["workers"]) for line in progress.history] == [(1, 1), (2, 2)]


def test_workers_of_another_number_share_what_those_before_had_summed_up():
    progress = checkpoint.TrainingProgress(epoch=3, step=5, workers=2)
    state = {"rng": torch.get_rng_state(), "seconds": torch.tensor(7.0)}
    tensors = {}
    for rank, (loss, cases) in enumerate([(6.0, 10), (14.0, 10)]):
        own = state | {"loss": torch.tensor(loss), "cases": torch.tensor(cases), "raw.mean": torch.tensor(float(rank))}
        tensors |= {f"worker.{rank}.{name}": value for name, value in own.items()}
    shares = [midway._own(progress, tensors, rank, 3) for rank in range(3)]
    assert [int(own["cases"]) for own in shares] == [7, 7, 6]
    assert [float(own["loss"]) for own in shares] == pytest.approx([7.0, 7.0, 6.0]), "a mean of 1 on each"
    assert [float(own["raw.mean"]) for own in shares] == [0.0] * 3, "the first one's statistics"
    assert float(midway._own(progress, tensors, 1, 2)["loss"]) == 14.0


def test_workers_that_make_other_batches_are_refused(tmp_path):
    work = job(tiny_recipe("stage.epochs=2"), tmp_path)
    with pytest.raises(Killed):
        train_stages(work, PlainWorld(dies_after=1))
    other = replace(work, recipe=tiny_recipe("stage.epochs=2", "batch_size=3"))
    three = PlainWorld()
    three.size = 3
    with pytest.raises(MismatchError, match=r"with 4 images a step; 3 workers take 3: resume with the --workers"):
        train_stages(other, three)


def test_a_loss_that_is_not_finite_is_in_no_checkpoint(tmp_path):
    def spoil(epoch, start, batch):
        if (epoch, start) == (0, 4):
            batch.age_B[0] = float("inf")
        return batch

    recipe = tiny_recipe("stage.epochs=1", "checkpoint.every_steps=1")
    with pytest.raises(NonFiniteLossError):
        train_stages(job(recipe, tmp_path), PlainWorld(spoil=spoil))
    assert checkpoint.saved_places(str(tmp_path)) == [(0, 1)]
