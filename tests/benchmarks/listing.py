"""A large S3 prefix: `python tests/benchmarks/listing.py --work DIR [--count 100000] [--size 96]`.

Puts `count` small PNG phantoms (links to 50 of them) behind an S3 server on loopback (`rclone serve s3`), runs
`boneage prepare` on the prefix, and prints the seconds to the first committed part and the memory of the driver process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
from common import machine

sys.path.insert(0, str(Path(__file__).parents[1]))
from s3server import serve_s3

from boneage_ray.phantoms.archive import HAND_FOLDER, write_hand_archive


def fill(bucket, count, size):
    """`count` keys in folders of 1,000."""
    if (bucket / "archive").exists():
        return
    write_hand_archive(str(bucket.parent / "originals"), 50, seed=2, size=size)
    originals = sorted((bucket.parent / "originals" / HAND_FOLDER).iterdir())
    for k in range(count):
        folder = bucket / "archive" / f"{k // 1000:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        os.link(originals[k % len(originals)], folder / f"{k:07d}.png")


def memory_mib(pid):
    """Resident memory of one process."""
    return psutil.Process(pid).memory_info().rss / 2**20


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=96)
    given = parser.parse_args()
    buckets = given.work / f"buckets-{given.count}"
    fill(buckets / "site", given.count, given.size)
    (buckets / "out").mkdir(exist_ok=True)
    print(machine(), f"{given.count} keys")
    with serve_s3(buckets) as server:
        run = f"run-{int(time.time())}"
        command = [sys.executable, "-m", "boneage_ray", "prepare", "s3://site/archive", "--recipe", "demo"]
        command += ["--set", "image.quality.min_side=32", "--out", f"s3://out/{run}"]
        started = time.time()
        process = subprocess.Popen(command, env={**os.environ, **server.environment})
        cases = buckets / "out" / run / "cases"
        first, told = None, 0
        while process.poll() is None:
            parts = len(list(cases.glob("part-*"))) if cases.exists() else 0
            if parts and first is None:
                first = time.time() - started
                print(f"first part after {first:.1f} s; driver {memory_mib(process.pid):.0f} MiB", flush=True)
            if parts >= told + 40:
                told = parts
                print(
                    f"{time.time() - started:.0f} s: {parts} parts; driver {memory_mib(process.pid):.0f} MiB",
                    flush=True,
                )
            time.sleep(0.2)
        print(f"exit code {process.returncode} after {time.time() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
