"""`boneage serve` as a Ray job, with the same flags: answers requests over HTTP until the job is stopped."""

from __future__ import annotations

import sys

from boneage_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
