"""Two workers that share each batch train the same weights as one: accumulated, clipped, averaged, in float32.

The network has no batch norm: that one normalises over each worker's own images.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from datetime import timedelta

import pytest
import torch
from plain_world import BATCH_SIZE, CASES, STEPS, PlainWorld, figures, job, part, tiny_recipe
from torch import distributed, nn

from boneage_ray.augment.config import AugmentConfig
from boneage_ray.training import checkpoint
from boneage_ray.training.loop import train_stages
from boneage_ray.training.notice import Notice, SharedNotice

PATIENCE_S = 400  # on a busy machine three processes that import everything take minutes
pytestmark = pytest.mark.slow  # three processes that import everything
STAGE = {
    "epochs": 2,
    "optimizer": "adamw",
    "lr": 3e-3,
    "accumulate": 2,
    "clip_norm": 0.5,
    "ema": 0.9,
    "schedule": "cosine",
}


def recipe():
    plain = tiny_recipe("model.backbone.name=test_convnext", "model.dropout=0")
    return plain.derive(augment=AugmentConfig().model_dump(), stages=(STAGE,))


class SharedWorld(PlainWorld):
    """One of two workers, as training/driver.py makes them, without Ray: each has half of every batch."""

    size = 2

    def __init__(self, rank):
        super().__init__()
        self.rank, self.shared = rank, SharedNotice(self.size)

    def wrap(self, model):
        return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)

    def same_buffers(self, raw):
        for buffer in raw.buffers():
            distributed.broadcast(buffer, src=0)

    def gather(self, value):
        gathered = [None, None]
        distributed.all_gather_object(gathered, value)
        return gathered

    def train_batches(self, epoch, data="train"):
        half = BATCH_SIZE // 2
        for batch in super().train_batches(epoch, data):
            yield part(batch, range(self.rank * half, (self.rank + 1) * half))

    def notice(self):
        return self.shared.heard(super().notice() if self.rank == 1 else Notice.NONE)

    def val_batches(self):
        yield part(self.val, range(self.rank * 3, self.rank * 3 + 3))


def work(rank, folder):
    """The main function of a worker."""
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/meeting", 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=PATIENCE_S))
    train_stages(job(recipe(), f"{folder}/run"), SharedWorld(rank))
    world = SharedWorld(rank)
    world.told = {2: Notice.STOP}  # the second worker is told; both end after the next step
    train_stages(job(recipe(), f"{folder}/left"), world)
    distributed.destroy_process_group()


def mid_epoch_recipe(*settings):
    """Batch normalisation and dropout: each worker has statistics and draws of its own, until the epoch ends."""
    return tiny_recipe("stage.epochs=2", "model.dropout=0.3", "stage.ema=0.8", *settings)


def work_in_two_runs(rank, folder):
    """The main function of a worker: a training without a stop, and one that is ended in mid-epoch and goes on."""
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/meeting", 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=PATIENCE_S))
    train_stages(job(mid_epoch_recipe(), f"{folder}/whole"), SharedWorld(rank))
    for stops_at_step in (STEPS + 1, None):  # the second worker is told; both end after the next step
        world = SharedWorld(rank)
        world.told = {stops_at_step: Notice.STOP}
        train_stages(job(mid_epoch_recipe(), f"{folder}/broken"), world)
        if stops_at_step:
            assert len(world.steps) == STEPS + 2
            distributed.barrier()  # the second run begins when the checkpoint is there
    distributed.destroy_process_group()


def test_two_workers_that_end_in_mid_epoch_go_on_as_if_they_had_not(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work_in_two_runs, args=(rank, str(tmp_path))) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE_S)
    assert [worker.exitcode for worker in workers] == [0, 0]
    whole = checkpoint.load_latest(f"{tmp_path}/whole", "mark", workers=2)
    broken = checkpoint.load_latest(f"{tmp_path}/broken", "mark", workers=2)
    assert whole is not None
    assert broken is not None
    assert figures(broken[0]) == figures(whole[0])
    assert broken[1].keys() == whole[1].keys()
    for name, value in whole[1].items():
        assert torch.equal(broken[1][name], value), name


def test_two_workers_train_as_one_does_and_one_goes_on_where_two_ended(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(rank, str(tmp_path))) for rank in range(2)]
    for worker in workers:
        worker.start()
    one = train_stages(job(recipe(), tmp_path / "one"), PlainWorld())
    for worker in workers:
        worker.join(PATIENCE_S)
    assert [worker.exitcode for worker in workers] == [0, 0]
    found = checkpoint.load_latest(f"{tmp_path}/run", "mark")
    alone = checkpoint.load_latest(f"{tmp_path}/one", "mark")
    assert found is not None
    assert alone is not None
    for read in (checkpoint.model_weights, checkpoint.average_weights):
        both, single = read(found[1]), read(alone[1])
        assert both.keys() == single.keys()
        assert len(both) > 10
        for name, value in single.items():
            assert torch.allclose(both[name], value, rtol=0, atol=1e-5), name
    assert one.history[-1]["train_loss"] < one.history[0]["train_loss"]
    for ours, theirs in zip(found[0].history, one.history, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-5)
        assert ours["val_mae_months"] == pytest.approx(theirs["val_mae_months"], abs=1e-3)
    assert found[0].history[-1]["train_cases"] == CASES
    left = replace(job(recipe(), f"{tmp_path}/left"), any_workers=True)
    assert checkpoint.saved_places(left.run_uri)[-1] == (1, 1)
    last = PlainWorld()
    torch.manual_seed(99)
    history = train_stages(left, last).history
    assert (last.asked, len(last.steps)) == ([1], 1), "the two that left had done one of the two steps"
    assert [(line["train_cases"], line["workers"]) for line in history] == [(CASES, 2), (CASES, 1)]
    for ours, theirs in zip(history, one.history, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-5)
    weights = checkpoint.model_weights(checkpoint.load_latest(left.run_uri, "mark")[1])
    for name, value in checkpoint.model_weights(alone[1]).items():
        assert torch.allclose(weights[name], value, rtol=0, atol=1e-5), name
