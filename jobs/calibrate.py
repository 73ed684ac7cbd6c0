"""`boneage calibrate` as a Ray job, with the same flags: bundle + a site's own cases -> a bundle for that site."""

from __future__ import annotations

import sys

from boneage_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["calibrate", *sys.argv[1:]]))
