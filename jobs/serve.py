"""Answer requests over HTTP until the job is stopped: `boneage serve` as a job; the same function, the same flags."""

from __future__ import annotations

import sys

from boneage_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
