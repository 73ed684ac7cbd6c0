"""An archive that grows: `python tests/benchmarks/updates.py --work DIR [--count 20000] [--new 10] [--repeats 3] [--kills 20]`.

Scores `count` small phantoms (links to 500 of them) with a bundle of random weights, then adds `new` files and times
`boneage score --update`, `repeats` times, and once with nothing to do. Then it adds files and kills the driver, `kills` times in
a row, at any moment or soon after its first commit, and ends with one update. After each step the rows are counted: one for each
file, none twice. At last the same files are scored into another OUT in one unbroken run, and the rows are compared.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.dataset as ds
from common import hands, machine, random_bundle

SETTINGS = ("image.size=64", "image.quality.min_side=32", "model.backbone.name=resnet10t")


def add(images, originals, count, name):
    """New names of old files, spread over the whole listing."""
    for k in range(count):
        os.link(originals[k % len(originals)], images / f"{'0amz~'[k % 5]}-{name}-{k:04d}.png")


def check(out, images):
    """Rows = files, none twice."""
    uris = ds.dataset(f"{out}/results").to_table(columns=["input_uri"])["input_uri"].to_pylist()
    assert len(set(uris)) == len(uris), "a row stands twice"
    return len(uris), len(list(images.iterdir()))


def state(out):
    """What tells whether a part was written."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "results").iterdir()}


def difference(out, other):
    """How many rows differ in anything but numbers, and the largest difference of an age."""
    found, expected = (
        {row["input_uri"]: row for row in ds.dataset(f"{place}/results").to_table().to_pylist()}
        for place in (out, other)
    )
    assert found.keys() == expected.keys()
    ages = ("age_months", "age_low_months", "age_high_months", "age_spread_months", "age_difference_months")
    unlike, most = 0, 0.0
    for uri, row in found.items():
        unlike += any(row[name] != expected[uri][name] for name in row if name not in ages)
        most = max(most, *(abs((row[name] or 0.0) - (expected[uri][name] or 0.0)) for name in ages))
    return f"{len(found)} rows, {unlike} unlike, ages differ by {most:.4f} months at most"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--new", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--added", type=int, default=600, help="files before each kill")
    given = parser.parse_args()
    images = hands(given.work / f"hands-{given.count}", given.count, 96)
    originals = sorted(images.iterdir())[:100]
    model = random_bundle(given.work / "model", "demo", *SETTINGS)
    out = given.work / f"scores-{given.count}"
    command = [sys.executable, "-m", "boneage_ray", "score", str(images), "--model", str(model), "--out", str(out)]
    command += ["--update"]
    print(machine(), f"{given.count} files")

    def update(title):
        started = time.monotonic()
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr
        rows, files = check(out, images)
        assert rows == files, (rows, files)
        seconds = time.monotonic() - started
        print(f"{title}: {seconds:.1f} s, {rows} rows", flush=True)
        return seconds

    update("first run" if not out.exists() else "whatever was left")
    for k in range(given.repeats):
        add(images, originals, given.new, f"night-{time.time_ns()}")
        update(f"{given.new} new files, {k + 1}")
    usual = update("nothing new")
    draw = random.Random(1)
    for k in range(given.kills):
        add(images, originals, given.added, f"kill-{time.time_ns()}")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if k % 2:  # soon after its first commit
            before = state(out)
            while process.poll() is None and state(out) == before:
                time.sleep(0.02)
            time.sleep(draw.uniform(0.0, 2.0))
        else:
            time.sleep(usual * draw.uniform(0.1, 2.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        ended = process.returncode != -signal.SIGKILL
        rows, files = check(out, images)
        print(f"kill {k + 1}: {rows} rows of {files} files{', had ended' if ended else ''}", flush=True)
    if given.kills:
        update("after all kills")
        unbroken = given.work / f"unbroken-{time.time_ns()}"
        subprocess.run([*command[:-2], str(unbroken)], capture_output=True, check=True)
        print(f"against one unbroken run: {difference(out, unbroken)}")


if __name__ == "__main__":
    main()
