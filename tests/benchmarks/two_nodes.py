"""Two nodes of one core against one node of two: `PYTHONPATH=tests python tests/benchmarks/two_nodes.py --work DIR [--rounds 2]`.

Both score the same archive, one after the other and in turns, on the first two cores of this machine. The second node is a real
one, with processes and an address of its own (`tests/pipelines/real_nodes.py`); it needs root. Steady throughput leaves out the
first part of each actor. The ratio to reach is 0.9.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

from common import hands, machine, random_bundle
from pipelines.real_nodes import available, real_nodes
from scoring import ours


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    if reason := available():
        raise SystemExit(f"nodes of their own need namespaces: {reason}")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    work = arguments.work
    model = random_bundle(work / "model-resnet34", "timm-regressor", "model.backbone.name=resnet34")
    images = hands(work / f"hands-{arguments.count}", arguments.count, 512)
    print(f"machine: {machine()}; {arguments.count} PNG of 512 px, resnet34 at 256 px", flush=True)
    alone = {**os.environ, "BONEAGE_CPUS": "2"}
    ratios = []
    for turn in range(arguments.rounds):
        one, _ = ours(model, images, work / "scores-one", alone)
        with real_nodes() as nodes:
            nodes.add()
            two, _ = ours(model, images, work / "scores-two", nodes.environment)
            ratios.append(two / one)
            print(
                f"round {turn + 1}: one node {one:.1f} images/s, two nodes {two:.1f}, ratio {ratios[-1]:.3f}",
                flush=True,
            )
    print(f"ratio: median {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
