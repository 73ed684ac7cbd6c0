"""Prepared data -> model bundle: `boneage train` as a job; the same function, the same flags."""

from __future__ import annotations

import sys

from boneage_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
