"""Workers that die: of a module that Ray's workers can import."""

from __future__ import annotations

import os
import signal

from boneage_ray.scoring.score import ScoreWorker


class Mortal(ScoreWorker):
    """A scoring worker that is killed by every file with `killer` in its name, as the memory monitor would do it."""

    def _load(self, item):
        if "killer" in item.uri:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._load(item)
