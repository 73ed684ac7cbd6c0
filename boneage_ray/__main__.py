"""`python -m boneage_ray` is `boneage`."""

from boneage_ray.cli import main

raise SystemExit(main())
