"""Which rows each worker reads: whole, even, and the same after a resume."""

from __future__ import annotations

from collections import Counter

import pytest

from boneage_ray.datasets.plan import Shard, Slice, balanced_slices, inverse_frequency, ordered_slices, training_slices

SHARDS = [Shard("a", 5), Shard("b", 128), Shard("c", 1), Shard("d", 40)]
TOTAL = 174


def rows(slices):
    return [(s.uri, k) for s in slices for k in range(s.start, s.stop)]


@pytest.mark.parametrize("world", [1, 2, 3, 7, 200, 400])
def test_training_leaves_no_row_out_and_gives_every_worker_as_many(world):
    shares = [rows(training_slices(SHARDS, "0:3", rank, world)) for rank in range(world)]
    assert {len(share) for share in shares} == {-(-TOTAL // world)}
    counts = Counter(row for share in shares for row in share)
    assert len(counts) == TOTAL
    assert counts.total() - TOTAL < world
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("world", [1, 2, 3, 7, 200])
def test_validation_reads_every_row_exactly_once_and_in_order(world):
    shares = [rows(ordered_slices(SHARDS, rank, world)) for rank in range(world)]
    assert [row for share in shares for row in share] == rows([Slice(s.uri, 0, s.rows) for s in SHARDS])


def test_the_order_is_drawn_again_each_epoch_and_the_same_for_the_same_epoch():
    orders = [tuple(s.uri for s in training_slices(SHARDS, f"0:{epoch}", 0, 1)) for epoch in range(12)]
    assert orders == [tuple(s.uri for s in training_slices(SHARDS, f"0:{epoch}", 0, 1)) for epoch in range(12)]
    assert len(set(orders)) > 4
    assert orders != [tuple(s.uri for s in training_slices(SHARDS, f"1:{epoch}", 0, 1)) for epoch in range(12)]


def test_golden_slices():
    assert training_slices(SHARDS, "0:0", 1, 2) == [Slice("b", 46, 128), Slice("a", 0, 5)]
    assert ordered_slices(SHARDS, 1, 2) == [Slice("b", 82, 128), Slice("c", 0, 1), Slice("d", 0, 40)]


def test_a_single_shard_is_cut_between_workers():
    shard = [Shard("a", 10)]
    assert [training_slices(shard, "0:0", rank, 3) for rank in range(3)] == [
        [Slice("a", 0, 4)],
        [Slice("a", 4, 8)],
        [Slice("a", 8, 10), Slice("a", 0, 2)],
    ]


def test_weights_go_with_the_inverse_frequency_and_sum_to_one():
    assert inverse_frequency({"a": 1, "b": 1, "c": 2}) == pytest.approx({"a": 0.4, "b": 0.4, "c": 0.2})
    assert inverse_frequency({"a": 5, "b": 0}) == {"a": 1.0}


CATEGORIES = ["rare" if k % 29 == 0 else None if k == 1 else "common" for k in range(TOTAL)]


def drawn(draw, rank=0, world=1):
    start = {"a": 0, "b": 5, "c": 133, "d": 134}
    return [start[s.uri] + row for s in balanced_slices(SHARDS, CATEGORIES, draw, rank, world) for row in s.chosen]


def test_balanced_drawing_gives_each_category_its_equal_share():
    counts = Counter(CATEGORIES[row] for epoch in range(40) for row in drawn(f"0:{epoch}"))
    assert CATEGORIES.count("rare") == 6
    assert set(counts) == {"rare", "common"}
    assert counts["rare"] / counts.total() == pytest.approx(0.5, abs=0.02)


def test_balanced_drawing_is_the_same_for_the_same_epoch_and_even_over_workers():
    assert drawn("0:1") == drawn("0:1") != drawn("0:2")
    shares = [drawn("0:1", rank, 3) for rank in range(3)]
    assert {len(share) for share in shares} == {58}
    assert Counter(row for share in shares for row in share) == Counter(drawn("0:1"))
