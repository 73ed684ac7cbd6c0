"""Log a training to the trackers that were asked for, and continue the same runs after a failure.

`OUT/tracking.json` keeps the id of each run and the last epoch that it has. What a tracker missed, because the training was
killed or the tracker did not answer, it gets when the training goes on or ends.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from boneage_ray import bundle, storage
from boneage_ray.errors import StorageError, UsageError
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.runtime.runs import git_hash, say
from boneage_ray.training.trackers import TRACKERS, RunFacts, Tracker

RECORD = "tracking.json"


class _Tracked:
    """One tracker, its run's id, and the last epoch that it has."""

    def __init__(self, name: str, tracker: Tracker, run_id: str, logged: int) -> None:
        self.name, self.tracker, self.run_id, self.logged = name, tracker, run_id, logged
        self.failing = False

    def tried(self, work: Callable[[], None]) -> bool:
        """Whether the work succeeded; the first failure in a row is said."""
        try:
            work()
        except self.tracker.errors as error:
            if not self.failing:
                say(f"{self.name} does not take what is logged ({' '.join(str(error).split())}); the training goes on")
            self.failing = True
            return False
        self.failing = False
        return True


class Tracking:
    """The trackers of one training; without any, everything here does nothing."""

    def __init__(self, out: str, tracked: Sequence[_Tracked]) -> None:
        self._out, self._tracked = out, tracked

    def catch_up(self, history: Sequence[dict[str, Any]]) -> None:
        """Log the epochs that a tracker has not yet; `history` holds all that there were."""
        for one in self._tracked:
            for line in history:
                number = int(line["epoch"])
                if number > one.logged and not self._epoch(one, number, line):
                    break
        self._keep()

    def epoch(self, line: dict[str, Any]) -> None:
        """Log the figures of one epoch where all before it are logged."""
        number = int(line["epoch"])
        for one in self._tracked:
            if number == one.logged + 1:
                self._epoch(one, number, line)
        self._keep()

    def complete(self, history: Sequence[dict[str, Any]], facts: dict[str, Any], pictures: Sequence[str]) -> None:
        """Log what the training came to; `pictures` are names below OUT, and left out where there is none."""
        if not self._tracked:
            return
        self.catch_up(history)
        with tempfile.TemporaryDirectory(prefix="boneage-tracking-") as folder:
            copied, whole = Path(folder, "pictures"), Path(folder, "bundle")
            found = {Path(name).stem: _copy(self._out, name, copied) for name in pictures if self._has(name)}
            manifest, _ = bundle.read_manifest(self._out)
            for name in (bundle.MANIFEST, *manifest["sha256"]):
                _copy(self._out, name, whole)
            for one in self._tracked:
                one.tried(lambda one=one: one.tracker.complete(len(history), facts, found, whole))  # type: ignore[misc]

    def _has(self, name: str) -> bool:
        return storage.exists(storage.join(self._out, name))

    def _epoch(self, one: _Tracked, number: int, line: dict[str, Any]) -> bool:
        figures = {key: float(value) for key, value in line.items() if _is_figure(value)}
        done = one.tried(lambda: one.tracker.epoch(number, figures))
        if done:
            one.logged = number
        return done

    def _keep(self) -> None:
        if self._tracked:
            record = {one.name: {"run": one.run_id, "logged": one.logged} for one in self._tracked}
            try:
                storage.write_json(storage.join(self._out, RECORD), record)
            except StorageError as error:
                say(f"{RECORD} was not written ({error}): a continued run may log epochs again; the training goes on")


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _copy(out: str, name: str, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(storage.read_bytes(storage.join(out, name)))
    return folder / name


@contextmanager
def tracked(recipe: Recipe, out: str, names: Sequence[str]) -> Iterator[Tracking]:
    """Start or continue a run with each tracker, and end it with the block: as failed if that raises."""
    place = storage.join(out, RECORD)
    kept: dict[str, Any] = storage.read_json(place) if names and storage.exists(place) else {}
    facts = RunFacts(recipe.name, out, recipe.model_dump(mode="json"), git_hash()) if names else None
    with ExitStack() as ends:
        found = []
        for name in dict.fromkeys(names):
            before = kept.get(name, {})
            assert facts is not None
            one = _started(name, facts, before.get("run"), int(before.get("logged", 0)))
            ends.push(lambda kind, *_, one=one: one.tried(lambda: one.tracker.close(kind is None)) and False)
            found.append(one)
        tracking = Tracking(out, found)
        tracking.catch_up([])
        yield tracking


def check_trackers(names: Sequence[str]) -> None:
    """Raise `UsageError` for a tracker that does not exist."""
    if unknown := [name for name in names if name not in TRACKERS]:
        raise UsageError(f"--track {unknown[0]}: one of {', '.join(TRACKERS)} is needed")


def _started(name: str, facts: RunFacts, run_id: str | None, logged: int) -> _Tracked:
    tracker = TRACKERS[name]()
    try:
        return _Tracked(name, tracker, tracker.start(facts, run_id), logged)
    except ImportError as error:
        hint = f"pip install 'boneage-ray[{name}]'"
        raise UsageError(f"--track {name}: {error.name or name} is not installed: {hint}") from None
    except tracker.errors as error:
        raise UsageError(f"--track {name}: {' '.join(str(error).split())}; nothing was trained") from error
