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


def training_slices(shards: Sequence[Shard], seed: int, epoch: int, rank: int, world: int) -> list[Slice]:
    """The rows of worker `rank` of `world` in an epoch."""
    order = list(shards)
    random.Random(f"{seed}:{epoch}").shuffle(order)
    total = sum(shard.rows for shard in order)
    share = -(-total // world)
    rounds = -(-share * world // total)  # two, or more if there are more workers than rows
    return rows_between(order * rounds, rank * share, (rank + 1) * share)


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
    weights = inverse_frequency(Counter(name for name in categories if name is not None))
    each = [0.0 if name is None else weights[name] for name in categories]
    share = -(-len(each) // world)
    drawn = sorted(random.Random(draw).choices(range(len(each)), each, k=share * world))
    mine = drawn[rank::world]
    found, at = [], 0
    for shard in shards:
        first, last = bisect_left(mine, at), bisect_left(mine, at + shard.rows)
        if first < last:
            found.append(Slice(shard.uri, 0, shard.rows, tuple(row - at for row in mine[first:last])))
        at += shard.rows
    random.Random(draw).shuffle(found)
    return found


def ordered_slices(shards: Sequence[Shard], rank: int, world: int) -> list[Slice]:
    """The rows of worker `rank` for validation, in order; every row exactly once over all workers."""
    total = sum(shard.rows for shard in shards)
    return rows_between(shards, total * rank // world, total * (rank + 1) // world)


def rows_between(shards: Sequence[Shard], start: int, stop: int) -> list[Slice]:
    """Rows start..stop (stop excluded) of all shards, concatenated."""
    found, at = [], 0
    for shard in shards:
        first, last = max(start - at, 0), min(stop - at, shard.rows)
        if first < last:
            found.append(Slice(shard.uri, first, last))
        at += shard.rows
    return found
