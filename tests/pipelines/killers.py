"""Workers that die: of a module that Ray's workers can import."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from boneage_ray.scoring.score import ScoreWorker


class Mortal(ScoreWorker):
    """A scoring worker that is killed, as the memory monitor would do it, by every file with `killer` in its name, and the first
    time by one with `once` in it.
    """

    def _load(self, item):
        if "killer" in item.uri:
            os.kill(os.getpid(), signal.SIGKILL)
        if "once" in item.uri and not (happened := Path(self.out, "once")).exists():
            happened.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._load(item)
