"""How scoring grows: `python tests/benchmarks/scale.py --work DIR [--counts 1000 10000 100000] [--plan 1000000]`.

Scores small phantoms from a simulated S3 store with a bundle of random weights, once for each count: seconds, files a second
without the start, memory of the driver at its first part and at most, requests a thousand files. Time should be linear, the
driver flat. `--plan`: a run over so many keys is ended once all are listed; seconds to the first rows, seconds and memory of the
listing. `--costs`: what the driver and the listing need for each key, part and row, in seconds of one core, which other programs
on the machine do not lengthen much. `--large-masks`: memory to prepare images and masks of 2048 px.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import psutil
from common import hands, machine, random_bundle

sys.path.insert(0, str(Path(__file__).parents[1]))
from s3server import S3Server, free_port

from boneage_ray import storage
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.in_parts import ArchiveParts
from boneage_ray.findings.task_findings import findings_of
from boneage_ray.phantoms.archive import write_hand_archive, write_hand_masks
from boneage_ray.recipes import find_recipe
from boneage_ray.records.schema import empty_result, result_schema, to_table
from boneage_ray.runtime import parts
from boneage_ray.scoring.costs import part_costs
from boneage_ray.scoring.summary import part_counts
from boneage_ray.scoring.tally import tally

SETTINGS = ("image.size=64", "image.quality.min_side=32", "model.backbone.name=test_resnet")


@contextmanager
def store(work, count):
    """A simulated store; yields its environment and what answers how many requests there were."""
    pictures = sorted(hands(work / "pictures", 20, 96).iterdir())
    port = free_port()
    program = [sys.executable, str(Path(__file__).with_name("simulated_store.py")), str(port), str(count)]
    server = subprocess.Popen([*program, *map(str, pictures)])
    place = f"http://127.0.0.1:{port}"

    def asked():
        with urllib.request.urlopen(place) as answer:
            return json.load(answer)

    try:
        for _ in range(100):
            try:
                asked()
                break
            except OSError:
                time.sleep(0.1)
        yield S3Server(place).environment, asked
    finally:
        server.kill()
        server.wait()


def rss(process):
    """Resident memory in MiB; 0 of a process that has ended."""
    try:
        return process.memory_info().rss / 2**20
    except psutil.Error:
        return 0.0


class Watched:
    """A run of `boneage score` over the store, watched from outside."""

    def __init__(self, work, environment, name):
        self.out = work / name
        shutil.rmtree(self.out, ignore_errors=True)
        model = random_bundle(work / "model", "demo", *SETTINGS)
        command = [sys.executable, "-m", "boneage_ray", "score", "s3://site/films", "--model", str(model)]
        command += ["--out", str(self.out)]
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
        self.driver = psutil.Process(self.process.pid)
        self.first = self.listed = None
        self.first_mib = self.most_mib = self.others_mib = self.sum_mib = 0.0

    @property
    def seconds(self):
        return time.monotonic() - self.started

    def committed(self):
        folder = self.out / "results"
        return sum(1 for _ in folder.iterdir()) if folder.exists() else 0

    def look(self):
        """Note what there is to note; False once the run has ended."""
        self.most_mib = max(self.most_mib, rss(self.driver))
        if self.first is None and self.committed():
            self.first, self.first_mib = self.seconds, rss(self.driver)
        if self.listed is None and (self.out / "listed.json").exists():
            self.listed = self.seconds
        return self.process.poll() is None

    def look_at_others(self):
        """The largest of the driver's children, among them the task that lists, and the sum of all."""
        sizes = [rss(child) for child in self.driver.children(recursive=True)]
        self.others_mib = max([self.others_mib, *sizes])
        self.sum_mib = max(self.sum_mib, sum(sizes))


def score(work, count):
    """One whole run."""
    with store(work, count) as (environment, asked):
        run = Watched(work, environment, f"scores-{count}")
        while run.look():
            time.sleep(0.2)
        assert run.process.returncode == 0
        summary = json.loads((run.out / "summary.json").read_text())
        assert summary["inputs"] == count
        seconds, requests = run.seconds, asked()
    steady = (count - 8) / max(seconds - run.first, 1e-9)
    each = ", ".join(f"{name} {1000 * number / count:.1f}" for name, number in sorted(requests.items()))
    print(
        f"{count} files: {seconds:.1f} s, first rows after {run.first:.1f} s, then {steady:.1f} files/s; driver "
        f"{run.first_mib:.0f} MiB at the first rows, {run.most_mib:.0f} at most; {run.committed()} result files; "
        f"requests a thousand files: {each}",
        flush=True,
    )


def plan(work, count):
    """A run that is ended when everything is listed."""
    with store(work, count) as (environment, asked):
        run = Watched(work, environment, f"plan-{count}")
        number = 0
        while run.look() and run.listed is None:
            number += 1
            if number % 10 == 0:
                run.look_at_others()
            if number % 300 == 0:
                print(
                    f"{run.seconds:.0f} s: driver {rss(run.driver):.0f} MiB, {run.committed()} parts, {asked()}",
                    flush=True,
                )
            time.sleep(0.1)
        listed = f"all were listed after {run.listed:.1f} s" if run.listed else "it ended before all were listed"
        run.process.send_signal(signal.SIGINT)
        run.process.wait(120)
    print(
        f"{count} keys: first rows after {run.first:.1f} s; {listed}; driver {run.first_mib:.0f} MiB at the first rows, "
        f"{run.most_mib:.0f} at most; the largest other process {run.others_mib:.0f} MiB, all others together {run.sum_mib:.0f}",
        flush=True,
    )


def costs(work, keys=100_000, rows_a_part=256, parts_there=40):
    """Single costs, in this process."""
    with store(work, keys) as (environment, _):
        os.environ |= environment
        started = time.process_time()
        assert sum(1 for _ in storage.list_files("s3://site/films")) == keys
        listed = time.process_time() - started
        started = time.process_time()
        *_, end = parts.Todo(ArchiveParts(FilesArchive("s3://site/films"), "results", files_only=True), {})()
        planned = time.process_time() - started
        assert end["line"]["inputs"] == keys
    out = work / "costs"
    shutil.rmtree(out, ignore_errors=True)
    lines = []
    for number in range(parts_there):
        rows = [result_row(number * rows_a_part + k) for k in range(rows_a_part)]
        spent = part_costs(
            {"seconds": {"read": 1.0, "predict": 2.0}, "decoder_deaths": 0}, False, rows, [0.1] * len(rows)
        )
        part = parts.Part(f"results/part-{number:05d}.parquet", "[]", len(rows))
        lines.append(parts.commit(str(out), part, to_table(rows, result_schema()), part_counts(rows) | spent))
    tracemalloc.start()
    held = [parts.without_large(json.loads(json.dumps(line))) for line in lines * 10]
    each = tracemalloc.get_traced_memory()[0] / len(held)
    tracemalloc.stop()
    started = time.process_time()
    tally(str(out), lines, {"efficientnet-lite-hand": findings_of(find_recipe("efficientnet-lite-hand"))})
    tallied = (time.process_time() - started) / (parts_there * rows_a_part)
    size = sum(path.stat().st_size for path in (out / "results").iterdir()) / parts_there
    print(
        f"listing {1e6 * listed / keys:.0f} us a key, with cutting into parts {1e6 * planned / keys:.0f}; "
        f"the driver holds {each:.0f} bytes a part, counting at the end {1e6 * tallied:.0f} us a row; "
        f"{size / 1024:.0f} KiB a part of {rows_a_part}",
        flush=True,
    )


def large_masks(work, count=160):
    """`prepare` of images and masks of 2048 px a side: how large its processes become."""
    archive, out = work / "masks", work / "masks-prepared"
    if not archive.exists():
        write_hand_masks(str(archive), write_hand_archive(str(archive), count, seed=3, size=256), 3, 256)
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "boneage_ray", "prepare", str(archive), "--recipe", "hand-mask"]
    process = subprocess.Popen([*command, "--set", "image.size=2048", "--out", str(out)], stdout=subprocess.DEVNULL)
    largest = together = 0.0
    while process.poll() is None:
        driver = psutil.Process(process.pid)
        sizes = [rss(each) for each in (driver, *driver.children(recursive=True))]
        largest, together = max(largest, *sizes), max(together, sum(sizes))
        time.sleep(0.3)
    assert process.returncode == 0
    print(
        f"{count} images with masks at 2048 px: largest process {largest:.0f} MiB, all together {together:.0f}",
        flush=True,
    )


def result_row(number):
    """A row as the built-in hand model leaves it."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    age = 40 + number % 160
    return empty_result() | {
        "input_uri": f"s3://site/films/{number // 1000:05d}/film-{number:08d}.png",
        "input_sha256": digest,
        "input_bytes": 100_000 + number,
        "status": "scored",
        "sop_uid": f"1.2.840.{int(digest[:16], 16)}",
        "sex": "FM"[number % 2],
        "sex_source": "dicom",
        "age_months": age + number % 7 / 7,
        "age_low_months": age - 20.0,
        "age_high_months": age + 21.0,
        "interval_coverage": 0.9,
        "stages": {"three": "child", "four": "child"},
        "flags": ["spacing_unknown"],
        "model": "efficientnet-lite-hand",
        "model_sha256": digest,
        "package_version": "0.1.0",
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--plan", type=int, default=0)
    parser.add_argument("--costs", action="store_true")
    parser.add_argument("--large-masks", action="store_true")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    print(machine(), flush=True)
    for count in given.counts:
        score(given.work, count)
    if given.costs:
        costs(given.work)
    if given.large_masks:
        large_masks(given.work)
    if given.plan:
        plan(given.work, given.plan)


if __name__ == "__main__":
    main()
