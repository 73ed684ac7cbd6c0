"""`boneage train` as a Ray job, with the same flags: prepared data -> model bundle."""

from __future__ import annotations

import sys

from boneage_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
