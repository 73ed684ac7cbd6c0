"""The slices that each worker reads in an epoch: a pure function, the same after a resume.

Shards are concatenated in an order drawn from (seed, epoch) and cut into one range of rows per worker. The ranges have equal
length (the last is filled up from the beginning), because every worker must take the same number of steps; no row is
left out.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """One Parquet file and its number of rows."""

    uri: str
    rows: int


@dataclass(frozen=True)
class Slice:
    """Rows start..stop (stop excluded) of one shard, or only the rows `chosen`, which may repeat."""

    uri: str
    start: int
    stop: int
    chosen: tuple[int, ...] | None = None


def training_slices(shards: Sequence[Shard], draw: str, rank: int, world: int) -> list[Slice]:
    """The rows of worker `rank` of `world` in an epoch, whose seed is `draw`."""
    order = list(shards)
    random.Random(draw).shuffle(order)
    total = sum(shard.rows for shard in order)
    share = -(-total // world)
    rounds = -(-share * world // total)  # two, or more if there are more workers than rows
    return rows_between(order * rounds, rank * share, (rank + 1) * share)


def shuffled_rows(total: int, draw: str, rank: int, world: int) -> list[int]:
    """As `training_slices`, for rows that are all at hand: numbers drawn over the whole split, and dealt out."""
    order = list(range(total))
    random.Random(draw).shuffle(order)
    share = -(-total // world)
    return [order[k % total] for k in range(rank, share * world, world)]


def inverse_frequency(counts: Mapping[str, int]) -> dict[str, float]:
    """Weights of categories, proportional to 1 / count and with sum 1: counts 1, 1, 2 give 0.4, 0.4, 0.2."""
    inverse = {name: 1.0 / count for name, count in counts.items() if count}
    total = sum(inverse.values())
    return {name: value / total for name, value in inverse.items()}


def balanced_slices(
    shards: Sequence[Shard], categories: Sequence[str | None], draw: str, rank: int, world: int
) -> list[Slice]:
    """All rows' number of rows, drawn with replacement so that categories are equally frequent; the part of `rank`.

    `categories`: one per row, in the order of the shards; rows of category None are never drawn. `draw`: the epoch's seed.
    """
    mine = sorted(_drawn(categories, draw, world))[rank::world]
    found, at = [], 0
    for shard in shards:
        first, last = bisect_left(mine, at), bisect_left(mine, at + shard.rows)
        if first < last:
            found.append(Slice(shard.uri, 0, shard.rows, tuple(row - at for row in mine[first:last])))
        at += shard.rows
    random.Random(draw).shuffle(found)
    return found


def balanced_rows(categories: Sequence[str | None], draw: str, rank: int, world: int) -> list[int]:
    """As `balanced_slices`, for rows that are all at hand: their numbers."""
    return _drawn(categories, draw, world)[rank::world]


def _drawn(categories: Sequence[str | None], draw: str, world: int) -> list[int]:
    """Numbers of rows, as many as there are (rounded up to equal shares), all categories equally frequent."""
    weights = inverse_frequency(Counter(name for name in categories if name is not None))
    each = [0.0 if name is None else weights[name] for name in categories]
    share = -(-len(each) // world)
    return random.Random(draw).choices(range(len(each)), each, k=share * world)


def ordered_rows(total: int, rank: int, world: int) -> range:
    """As `ordered_slices`, for rows that are all at hand: their numbers."""
    return range(total * rank // world, total * (rank + 1) // world)


def ordered_slices(shards: Sequence[Shard], rank: int, world: int) -> list[Slice]:
    """The rows of worker `rank` for validation, in order; every row exactly once over all workers."""
    mine = ordered_rows(sum(shard.rows for shard in shards), rank, world)
    return rows_between(shards, mine.start, mine.stop)


def rows_between(shards: Sequence[Shard], start: int, stop: int) -> list[Slice]:
    """Rows start..stop (stop excluded) of all shards, concatenated."""
    found, at = [], 0
    for shard in shards:
        first, last = max(start - at, 0), min(stop - at, shard.rows)
        if first < last:
            found.append(Slice(shard.uri, first, last))
        at += shard.rows
    return found
