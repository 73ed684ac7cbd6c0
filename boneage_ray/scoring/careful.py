"""Finds the inputs that kill their worker: a part that killed it several times is worked on one input at a time.

Before each input its number is written to `OUT/retries/part-*.json`. The worker that comes after a killed one reads there at
which input that one was. An input at which two were killed gets a row that says so. When the part is committed the file goes.
"""

from __future__ import annotations

from typing import Any

from boneage_ray import storage
from boneage_ray.errors import InputProblem
from boneage_ray.runtime.parts import Part

RETRIES = "retries"
_DEATHS = 2  # one may have another cause


class Suspects:
    """The inputs of one part at which workers were killed."""

    def __init__(self, out: str, part: Part) -> None:
        self.uri = storage.join(out, RETRIES, f"{part.target.rpartition('/')[2]}.json")
        self.mark = part.mark
        self.deaths: dict[str, int] = {}
        kept: dict[str, Any] = storage.read_json(self.uri) if storage.exists(self.uri) else {}
        if kept.get("mark") == part.mark:
            self.deaths = kept["deaths"]
            at = str(kept["at"])
            self.deaths[at] = self.deaths.get(at, 0) + 1

    def begin(self, number: int) -> InputProblem | None:
        """Note that this input is worked on from now; its problem instead if it must not be."""
        if self.deaths.get(str(number), 0) >= _DEATHS:
            said = f"its worker was killed {_DEATHS} times at this input, which was alone: out of memory, or a crash of a library"
            return InputProblem("predict", "internal_error", said)
        storage.write_json(self.uri, {"mark": self.mark, "at": number, "deaths": self.deaths})
        return None

    def end(self) -> None:
        """Forget them: the part is committed."""
        storage.delete_tree(self.uri)
