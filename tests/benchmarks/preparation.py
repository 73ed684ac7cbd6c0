"""Preparation against a bare decode-and-resize loop: `python tests/benchmarks/preparation.py --work DIR [--count 2000]`.

The bare loop is one process a core over its share of the files: read, decode with OpenCV, shrink to fit 256 px, pad; no hash,
no gate, no isolation, nothing written. `boneage prepare` is measured over its steady part (the first part of each actor is left
out), and as a whole command. `--images DIR` takes a folder of real radiographs instead of phantoms (links to them are made).
"""

from __future__ import annotations

import argparse
import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
from common import bare_rate, boneage, hands, machine

SIZE = 256


def bare(files, start):
    """One process of the bare loop."""
    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    start()
    for path in files:
        pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
        scale = SIZE / max(pixels.shape)
        small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        canvas = np.zeros((SIZE, SIZE), np.uint8)
        top, left = (SIZE - small.shape[0]) // 2, (SIZE - small.shape[1]) // 2
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return len(files)


def _watch(folder, seen, over):
    while not over.is_set():
        for path in folder.glob("part-*.parquet"):
            if path.name not in seen:
                with suppress(OSError):  # removed at the end of the run
                    seen[path.name] = path.stat().st_mtime, pq.read_metadata(path).num_rows
        time.sleep(0.05)


def ours(source, out):
    """Steady and overall images per second of `boneage prepare`, and seconds to its first committed part."""
    shutil.rmtree(out, ignore_errors=True)
    seen, over = {}, threading.Event()
    watcher = threading.Thread(target=_watch, args=(out / "cases", seen, over))
    watcher.start()
    ran = boneage("prepare", source, "--recipe", "resnet18-multitask", "--out", out)
    over.set()
    watcher.join()
    parts = sorted(seen.values())
    cores = len(os.sched_getaffinity(0))
    rate = sum(rows for _, rows in parts[cores:]) / (parts[-1][0] - parts[cores - 1][0])
    return rate, sum(rows for _, rows in parts) / ran.seconds, parts[0][0] - ran.started


def linked(images, folder, count):
    """`count` links to the images of a folder, under names of their own."""
    if not folder.exists():
        folder.mkdir(parents=True)
        originals = sorted(path for path in images.rglob("*") if path.is_file())
        for k in range(count):
            original = originals[k % len(originals)]
            (folder / f"{k:06d}{original.suffix}").symlink_to(original.resolve())
    return folder


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--size", type=int, default=512, help="height of the phantoms")
    parser.add_argument("--images", type=Path, help="a folder of real radiographs")
    given = parser.parse_args()
    if given.images:
        source = linked(given.images, given.work / f"{given.images.name}-{given.count}", given.count)
    else:
        source = hands(given.work / f"hands-{given.count}-{given.size}", given.count, given.size)
    files = sorted(source.iterdir())
    print(
        f"{machine()}; {len(files)} images of {sum(f.stat().st_size for f in files) / len(files) / 1e3:.0f} kB on average"
    )
    for round_number in range(1, given.rounds + 1):
        plain = bare_rate(bare, files)
        steady, whole, first = ours(source, given.work / "data")
        print(
            f"round {round_number}: prepare {steady:.1f}/s steady ({whole:.1f}/s with start and end), bare loop {plain:.1f}/s, "
            f"ratio {steady / plain:.3f}; first part after {first:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
