"""The rounds of `boneage receive`: what came is scored, and the results are sent back.

Scoring is `boneage score --update` in a process of its own: whatever ends it, the node goes on receiving, and the next round does
what is left.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from boneage_ray import storage
from boneage_ray.errors import BoneageError
from boneage_ray.export.sending import send_new, sum_of, waits
from boneage_ray.runtime.runs import say

TICK_SECONDS = 0.5
AGAIN_SECONDS = 60.0  # after a round that could not do all
MOST_QUIET_TIMES = 10  # that what came waits, where more comes all the time


@dataclass
class Rounds:
    """What a round does, and what the rounds did so far: `scored` is the answer of the last `boneage score`."""

    source: str
    model: str
    out: str
    send_to: str | None = None
    scored: dict[str, Any] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)
    known: dict[str, str] = field(default_factory=dict)

    def round(self) -> bool:
        """Score, then send; whether all is done. What is not is said, and left for the next round."""
        try:
            if storage.is_empty(self.source):
                return True
            return self._score() and (self.send_to is None or self._send(self.send_to))
        except (BoneageError, ValueError) as error:  # the node goes on receiving
            say(f"results wait: {error}")
            return False

    def _score(self) -> bool:
        words = ["score", self.source, "--model", self.model, "--out", self.out, "--update", "--json"]
        # A session of its own: Ctrl-C ends receiving, not the scoring of what was received.
        done = subprocess.run(
            [sys.executable, "-m", "boneage_ray", *words], stdout=subprocess.PIPE, check=False, start_new_session=True
        )
        if done.returncode:
            say(f"boneage score ended with exit code {done.returncode}; all that was received is kept")
            return False
        self.scored = json.loads(done.stdout)
        return True

    def _send(self, place: str) -> bool:
        total = sum_of(send_new(self.out, place, self.known))
        self.sent += total.written
        if total.written:
            say(f"sent to {place}: {', '.join(f'{count} {name}' for name, count in sorted(total.written.items()))}")
        for uri, _, message in total.left_out:
            say("", detail=f"not sent: {uri}: {message}")
        return not waits(total)


def go_round(
    rounds: Callable[[], bool], kept_at: Callable[[], float | None], quiet: float, stop: threading.Event
) -> None:
    """Rounds until `stop`: one at once, for what an earlier command left, then one whenever nothing came for `quiet` seconds.

    `kept_at`: when something last came, by the monotonic clock. A round that could not do all is made again.
    """
    seen, first, due = None, 0.0, time.monotonic()
    while not stop.wait(TICK_SECONDS):
        came = kept_at()
        if came is not None and came != seen:
            first = first or came
            seen, due = came, min(came + quiet, first + MOST_QUIET_TIMES * quiet)
        if time.monotonic() >= due:
            first = 0.0
            due = float("inf") if rounds() else time.monotonic() + AGAIN_SECONDS
