"""`boneage evaluate` as a Ray job, with the same flags: bundle + prepared split -> metrics and report."""

from __future__ import annotations

import sys

from boneage_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
