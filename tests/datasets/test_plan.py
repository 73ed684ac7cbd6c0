"""Which rows each worker reads: whole, even, and the same after a resume."""

from __future__ import annotations

from collections import Counter

import pytest

from boneage_ray.datasets.plan import Shard, Slice, ordered_slices, training_slices

SHARDS = [Shard("a", 5), Shard("b", 128), Shard("c", 1), Shard("d", 40)]
TOTAL = 174


def rows(slices):
    return [(s.uri, k) for s in slices for k in range(s.start, s.stop)]


@pytest.mark.parametrize("world", [1, 2, 3, 7, 200, 400])
def test_training_leaves_no_row_out_and_gives_every_worker_as_many(world):
    shares = [rows(training_slices(SHARDS, 0, 3, rank, world)) for rank in range(world)]
    assert {len(share) for share in shares} == {-(-TOTAL // world)}
    counts = Counter(row for share in shares for row in share)
    assert len(counts) == TOTAL
    assert counts.total() - TOTAL < world
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("world", [1, 2, 3, 7, 200])
def test_validation_reads_every_row_exactly_once_and_in_order(world):
    shares = [rows(ordered_slices(SHARDS, rank, world)) for rank in range(world)]
    assert [row for share in shares for row in share] == rows([Slice(s.uri, 0, s.rows) for s in SHARDS])


def test_the_order_is_drawn_anew_each_epoch_and_the_same_for_the_same_epoch():
    orders = [tuple(s.uri for s in training_slices(SHARDS, 0, epoch, 0, 1)) for epoch in range(12)]
    assert orders == [tuple(s.uri for s in training_slices(SHARDS, 0, epoch, 0, 1)) for epoch in range(12)]
    assert len(set(orders)) > 4
    assert orders != [tuple(s.uri for s in training_slices(SHARDS, 1, epoch, 0, 1)) for epoch in range(12)]


def test_golden_slices():
    assert training_slices(SHARDS, 0, 0, 1, 2) == [Slice("b", 46, 128), Slice("a", 0, 5)]
    assert ordered_slices(SHARDS, 1, 2) == [Slice("b", 82, 128), Slice("c", 0, 1), Slice("d", 0, 40)]


def test_a_single_shard_is_cut_between_workers():
    shard = [Shard("a", 10)]
    assert [training_slices(shard, 0, 0, rank, 3) for rank in range(3)] == [
        [Slice("a", 0, 4)],
        [Slice("a", 4, 8)],
        [Slice("a", 8, 10), Slice("a", 0, 2)],
    ]
