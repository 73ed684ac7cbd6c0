"""`boneage prepare` as a Ray job, with the same flags: archive -> Parquet shards."""

from __future__ import annotations

import sys

from boneage_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
