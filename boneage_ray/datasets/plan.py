"""Which rows of which shard each worker reads in an epoch: a pure function, the same after a resume.

Shards are visited in an order drawn from (seed, epoch), laid end to end, and cut into one run of rows a worker. Runs are of
equal length (the last is filled up from the beginning), because every worker must take the same number of steps; no row is
left out.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """One Parquet file and its number of rows."""

    uri: str
    rows: int


@dataclass(frozen=True)
class Slice:
    """Rows start..stop (stop excluded) of one shard."""

    uri: str
    start: int
    stop: int


def training_slices(shards: Sequence[Shard], seed: int, epoch: int, rank: int, world: int) -> list[Slice]:
    """The rows of worker `rank` of `world` in an epoch."""
    order = list(shards)
    random.Random(f"{seed}:{epoch}").shuffle(order)
    total = sum(shard.rows for shard in order)
    share = -(-total // world)
    rounds = -(-share * world // total)  # two, or more when there are more workers than rows
    return _cut(order * rounds, rank * share, (rank + 1) * share)


def ordered_slices(shards: Sequence[Shard], rank: int, world: int) -> list[Slice]:
    """The rows of worker `rank` for validation: in order, every row exactly once over all workers."""
    total = sum(shard.rows for shard in shards)
    return _cut(shards, total * rank // world, total * (rank + 1) // world)


def _cut(shards: Sequence[Shard], start: int, stop: int) -> list[Slice]:
    found, at = [], 0
    for shard in shards:
        first, last = max(start - at, 0), min(stop - at, shard.rows)
        if first < last:
            found.append(Slice(shard.uri, first, last))
        at += shard.rows
    return found
