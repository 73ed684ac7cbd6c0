"""`boneage score` as a Ray job, with the same flags: archive -> one result row for every input file."""

from __future__ import annotations

import sys

from boneage_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["score", *sys.argv[1:]]))
