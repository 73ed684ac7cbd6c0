"""What a submitted job costs over a direct run: `python tests/benchmarks/submitted.py --work DIR [--count 48] [--rounds 3]`.

Three ways score the same archive with the built-in model hand, in turns: `boneage submit --follow` to a running head, and
`boneage score` that joins the same head, or starts a Ray of its own. Seconds are those that a person waits for the command.
The overhead to stay within is 20 s.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import yaml
from common import boneage, hands, machine

PATIENCE_S = 180
JOBS = Path(__file__).parents[2] / "jobs"


@contextmanager
def head(environment):
    """(address for drivers, address for jobs) of a head with two CPUs, which ends with the block."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    gcs, board, agent, client = (probe.getsockname()[1] for probe in probes)
    for probe in probes:
        probe.close()
    folder = tempfile.mkdtemp(prefix="ray-s-", dir="/tmp")  # sockets lie in it: its path must be short
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"),
        *(f"--temp-dir={folder}", "--node-ip-address=127.0.0.1", "--object-store-memory=300000000"),
        *(f"--port={gcs}", f"--dashboard-port={board}", f"--dashboard-agent-listen-port={agent}"),
        f"--ray-client-server-port={client}",
    ]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        url, end = f"http://127.0.0.1:{board}", time.monotonic() + PATIENCE_S
        while not _answers(f"{url}/api/jobs/"):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the head did not start; its log is in {folder}")
            time.sleep(0.5)
        yield f"127.0.0.1:{gcs}", url
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def job_spec(path, words):
    """Write a job of jobs/score.py with these words."""
    spec = {"entrypoint": f"{sys.executable} score.py {words}", "entrypoint_num_cpus": 0.5}
    path.write_text(yaml.safe_dump(spec | {"runtime_env": {"working_dir": str(JOBS)}}))
    return path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    work = arguments.work
    images = hands(work / f"hands-{arguments.count}", arguments.count, 512)
    print(f"machine: {machine()}; {arguments.count} PNG of 512 px, the built-in model hand", flush=True)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "BONEAGE_CPUS"))}
    plain |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    over_joined, over_own = [], []
    with head(plain) as (address, url):
        for turn in range(arguments.rounds):
            out = work / f"scores-{turn}"
            for place in work.glob(f"{out.name}-*"):
                shutil.rmtree(place)
            words = f"{images} --model hand --out {out}"
            joined = boneage("score", *f"{words}-joined".split(), environment={**plain, "RAY_ADDRESS": address}).seconds
            spec = job_spec(work / "job.yaml", f"{words}-job")
            job = boneage("submit", spec, "--address", url, "--follow", environment=plain).seconds
            own = boneage("score", *f"{words}-own".split(), environment={**plain, "BONEAGE_CPUS": "2"}).seconds
            over_joined.append(job - joined)
            over_own.append(job - own)
            said = f"submitted {job:.1f} s, joined {joined:.1f} s, with a Ray of its own {own:.1f} s"
            print(f"round {turn + 1}: {said}; overhead {job - joined:.1f} and {job - own:.1f} s", flush=True)
    medians = [statistics.median(seconds) for seconds in (over_joined, over_own)]
    print(f"overhead: median {medians[0]:.1f} s over joining, {medians[1]:.1f} s over a Ray of its own")


if __name__ == "__main__":
    main()
