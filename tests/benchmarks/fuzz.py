"""The fuzz run: `python tests/benchmarks/fuzz.py --work DIR [--count 5000] [--seed 0] [--data ../shared/data]`.

Damages real radiographs (phantoms too, and alone where there are no real ones) and prepares each as `boneage prepare` does, in
decoder processes of its own. Exit code 1 unless every file is accounted for, no process had more than 1 GB, none ran past the
time limit, nothing became `internal_error`, and no truncated file gave a record with other pixels than the whole file. Files
that fail are left in DIR; `--only NUMBER` makes one file again and prepares it in this process, with its traceback.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import machine
from fuzzing import fuzzed, phantom_seeds, real_seeds

from boneage_ray.errors import InputProblem
from boneage_ray.preparation.isolated import DecoderPool
from boneage_ray.preparation.prepare import ImageConfig, prepare_image

MAX_PEAK_MB = 1000.0
SOUND = "record"
CHANGES = ((0.0, 1e-9), (1e-9, 2.0), (2.0, 256.0))


@dataclass(frozen=True)
class Outcome:
    """What became of one file. `change`: mean absolute difference of its prepared image from the whole file's, of 255 gray
    levels; exactly 0.0 for the same decoded pixels, None where one of the two has no record."""

    number: int
    kind: str
    damage: str
    told: str
    message: str
    seconds: float
    change: float | None


def outcome(pool, file, whole):
    """One file's outcome; `whole`: what was prepared of the seed files, by index."""
    start = time.perf_counter()
    told, message, changed = SOUND, "", None
    try:
        changed = change(pool.prepare(file.data), whole[file.seed])
    except InputProblem as problem:
        told, message = problem.reason, problem.message
    return Outcome(file.number, file.kind, file.damage, told, message, time.perf_counter() - start, changed)


def change(one, other):
    """See `Outcome.change`."""
    if other is None:
        return None
    if one.pixel_sha256 == other.pixel_sha256:
        return 0.0
    return max(1e-6, float(np.abs(one.pixels.astype(int) - other.pixels).mean()))


def run(seeds, numbers, seed, pool, threads=2):
    """Outcomes in the order of the numbers."""
    with ThreadPoolExecutor(threads) as workers:
        whole = list(workers.map(lambda s: _sound(pool, s.data), seeds))
        return list(workers.map(lambda number: outcome(pool, fuzzed(seeds, number, seed), whole), numbers))


def _sound(pool, data):
    try:
        return pool.prepare(data)
    except InputProblem:
        return None


def print_tables(outcomes):
    """Reasons by kind; and which damage left a record, with what pixels."""
    kinds = sorted({o.kind for o in outcomes})
    reasons = Counter((o.told, o.kind) for o in outcomes)
    print(f"\n| outcome | {' | '.join(kinds)} | all |\n|---|{'---|' * (len(kinds) + 1)}")
    for told, total in Counter(o.told for o in outcomes).most_common():
        print(f"| {told} | {' | '.join(str(reasons[told, kind]) for kind in kinds)} | {total} |")
    columns = ("format", "damage", "files", "records", "same pixels", "changed by < 2 gray levels", "by more")
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for kind, damage in sorted({(o.kind, o.damage) for o in outcomes}):
        these = [o for o in outcomes if (o.kind, o.damage) == (kind, damage)]
        records = [o for o in these if o.told == SOUND]
        same, little, much = (sum(low <= (o.change or 0.0) < high for o in records) for low, high in CHANGES)
        print(f"| {kind} | {damage} | {len(these)} | {len(records)} | {same} | {little} | {much} |")


def faults(outcomes, count, pool):
    """What must not be, one line each."""
    found = []
    if len(outcomes) != count:
        found.append(f"{len(outcomes)} outcomes for {count} files")
    if pool.counts.peak_mb > MAX_PEAK_MB:
        found.append(f"a decoder process had {pool.counts.peak_mb:.0f} MB")
    for o in outcomes:
        if o.seconds > pool.limits.seconds or "did not end within" in o.message:
            found.append(f"file {o.number}: {o.kind}, {o.damage}: {o.seconds:.1f} s, {o.message}")
        if o.told == "internal_error":
            found.append(f"file {o.number}: {o.kind}, {o.damage}: internal_error: {o.message}")
        if o.damage == "truncate" and o.change:
            found.append(f"file {o.number}: {o.kind}, truncated, yet a record with other pixels")
    return found


def again(seeds, number, seed):
    """One file in this process, with its traceback."""
    file = fuzzed(seeds, number, seed)
    print(f"{file.kind}, {file.damage}, from {seeds[file.seed].name}, {len(file.data)} bytes")
    try:
        print(prepare_image(file.data, ImageConfig()))
    except InputProblem:
        traceback.print_exc()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the files that fail")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", type=int, help="make this file again and prepare it here")
    given = parser.parse_args()
    seeds = [*real_seeds(given.data), *phantom_seeds()]
    if given.only is not None:
        return again(seeds, given.only, given.seed)
    print(f"{given.count} files damaged from {len(seeds)} sound ones ({Counter(s.kind for s in seeds)}), {machine()}")
    start = time.time()
    with DecoderPool(ImageConfig(), 2) as pool:
        outcomes = run(seeds, range(given.count), given.seed, pool)
    print_tables(outcomes)
    slowest = max(outcomes, key=lambda o: o.seconds)
    print(
        f"\n{time.time() - start:.0f} s in all; slowest: file {slowest.number} ({slowest.kind}, {slowest.damage}), ",
        end="",
    )
    print(f"{slowest.seconds:.2f} s; largest decoder process {pool.counts.peak_mb:.0f} MB; ", end="")
    print(f"{pool.counts.deaths} ended at work, {pool.counts.replaced} were replaced for the memory that they kept")
    died = [o for o in outcomes if "decoder process ended" in o.message or "needs more than" in o.message]
    for o in died[:20]:
        print(f"file {o.number}: {o.kind}, {o.damage}: {o.told}: {o.message}")
    found = faults(outcomes, given.count, pool)
    given.work.mkdir(parents=True, exist_ok=True)
    for line in found:
        print("FAULT", line)
        if line.startswith("file "):
            number = int(line.split()[1].rstrip(":"))
            (given.work / f"{number}.bin").write_bytes(fuzzed(seeds, number, given.seed).data)
    print("no faults" if not found else f"{len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
