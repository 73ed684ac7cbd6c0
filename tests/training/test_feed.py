"""What each worker trains on: from memory where the split is small, by Ray Data's slices where it is not."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from shards_on_disk import record, write_prepared

from boneage_ray.datasets import load
from boneage_ray.datasets.batch import NO_MASK
from boneage_ray.datasets.held import HeldSplit, check_room
from boneage_ray.errors import StorageError, UsageError
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.training.feed import Feed, shared_recipe

SIDE, ROWS = 8, 13


def rows_of(count, **more):
    images = [np.full((SIDE, SIDE), k, np.uint8) for k in range(count)]
    return [record(f"case-{k}", image, "MF"[k % 2], float(k)) | more for k, image in enumerate(images)]


@pytest.fixture
def prepared(tmp_path):
    found = write_prepared(tmp_path, {"train": rows_of(ROWS), "val": rows_of(5), "test": []})
    found.manifest["image"] = {"size": SIDE}
    return found


def feed(prepared, rank=0, size=1, *settings):
    return Feed(override(find_recipe("demo"), ["batch_size=4", *settings]), {"train": prepared}, rank, size)


def ids(batches):
    return [name for batch in batches for name in batch.ids]


def test_a_held_epoch_is_drawn_over_all_rows_and_the_same_for_the_same_epoch(prepared):
    found = feed(prepared)
    batches = list(found.train_batches(0, "train"))
    assert [len(batch) for batch in batches] == [4, 4, 4, 1]
    for batch in batches:  # pixels, age and id belong together
        assert batch.image_B1HW[:, 0, 0, 0].tolist() == batch.age_B.tolist() == [int(i[5:]) for i in batch.ids]
    first, again, next_one = (
        ids(batches),
        ids(feed(prepared).train_batches(0, "train")),
        ids(found.train_batches(1, "train")),
    )
    assert first == again != next_one
    assert sorted(first) == sorted(next_one) == sorted(f"case-{k}" for k in range(ROWS))
    assert ids(found.val_batches()) == [f"case-{k}" for k in range(5)]


@pytest.mark.parametrize("world", [2, 5, 20])
def test_workers_share_an_epoch_equally_and_leave_no_row_out(prepared, world):
    feeds = [feed(prepared, rank, world) for rank in range(world)]
    shares = [ids(each.train_batches(3, "train")) for each in feeds]
    assert {len(share) for share in shares} == {-(-ROWS // world)}
    counts = Counter(name for share in shares for name in share)
    assert len(counts) == ROWS and max(counts.values()) - min(counts.values()) <= 1
    assert {len(list(each.train_batches(0, "train"))) for each in feeds} == {feeds[0].batches_per_epoch("train")}
    assert [name for each in feeds for name in ids(each.val_batches())] == [f"case-{k}" for k in range(5)]


def test_balanced_rows_are_drawn_by_category(prepared):
    drawn = ids(feed(prepared, 0, 1, "balance=sex").train_batches(0, "train"))
    assert len(drawn) == ROWS and drawn == ids(feed(prepared, 0, 1, "balance=sex").train_batches(0, "train"))
    whole = [ids(feed(prepared, rank, 2, "balance=sex").train_batches(0, "train")) for rank in (0, 1)]
    assert len(whole[0]) == len(whole[1]) == 7


def test_the_data_alone_decide_what_is_held(prepared, monkeypatch):
    assert prepared.is_held("train")
    monkeypatch.setattr(load, "HELD_BYTES", ROWS * SIDE * SIDE - 1)
    assert not prepared.is_held("train") and prepared.is_held("val")
    prepared.manifest["image"]["mask"] = "file"  # a second picture each
    assert not prepared.is_held("val") or 2 * 5 * SIDE * SIDE <= load.HELD_BYTES


def test_masks_and_points_of_some_shards_are_unknown_in_the_others(tmp_path):
    masked = rows_of(3, mask=bytes([1]) * SIDE * SIDE)
    vertebral = rows_of(2, vertebral=[[1.0, 2.0]] * 13, to_original=[1.0, 0.0, 0.0])
    prepared = write_prepared(tmp_path, {"train": masked + vertebral, "val": [], "test": []}, rows_per_shard=3)
    rows = HeldSplit(prepared.shards("train")).rows
    assert rows.mask_B1HW is not None and rows.points_BK2 is not None
    assert rows.mask_B1HW.flatten(1)[:, 0].tolist() == [1, 1, 1, NO_MASK, NO_MASK]
    assert rows.points_BK2[:, 0, 0].isnan().tolist() == [True, True, True, False, False]
    assert torch.equal(rows.chosen([4, 0]).age_B, torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize(("workers", "batch", "rate"), [(1, 32, 1.0), (4, 32, 1.0), (5, 30, 0.9375), (64, 64, 2.0)])
def test_rates_follow_a_batch_that_cannot_be_shared(workers, batch, rate, capsys):
    recipe = override(find_recipe("demo"), ["batch_size=32"])
    shared = shared_recipe(recipe, workers)
    assert shared.batch_size == batch
    assert [stage.lr for stage in shared.stages] == pytest.approx([stage.lr * rate for stage in recipe.stages])
    assert (f"learning rates times {rate:.3g}" in capsys.readouterr().err) == (rate != 1)


def test_a_lost_shard_is_named_and_training_goes_on_once_it_is_back(prepared, tmp_path):
    lost = tmp_path / "train" / "part-00001.parquet"
    away = lost.rename(tmp_path / "away")
    found = feed(prepared)
    with pytest.raises(StorageError, match=r"train/part-00001\.parquet: there is no such file"):
        ids(found.train_batches(0, "train"))
    away.rename(lost)
    assert sorted(ids(found.train_batches(0, "train"))) == sorted(f"case-{k}" for k in range(ROWS))


def test_images_that_leave_no_room_for_training_are_not_kept_on_a_gpu(monkeypatch):
    free = [6000]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0], 9000))
    check_room([1000, 2000], torch.device("cuda"))
    free[0] = 5998
    with pytest.raises(UsageError, match=r"--cache-on-gpu: the images take 0\.00 GiB, and 0\.00 GiB of the GPU"):
        check_room([1000, 2000], torch.device("cuda"))
