"""Archive -> one result row for every input file: `boneage score` as a job; the same function, the same flags."""

from __future__ import annotations

import sys

from boneage_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["score", *sys.argv[1:]]))
