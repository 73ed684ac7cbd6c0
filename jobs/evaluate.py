"""Bundle + prepared split -> metrics and report: `boneage evaluate` as a job; the same function, the same flags."""

from __future__ import annotations

import sys

from boneage_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
