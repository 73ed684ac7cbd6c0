"""Where a training can be logged besides its own files: wandb, MLflow and TensorBoard, behind one small interface.

None of them is imported unless it is asked for, and none may end a training: `tracking.py` says what failed and goes on.
"""

from __future__ import annotations

import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from boneage_ray import storage
from boneage_ray.errors import StorageError, UsageError
from boneage_ray.runtime.runs import say

PROJECT = "boneage-ray"


@dataclass(frozen=True)
class RunFacts:
    """What is known of a training before its first epoch. `config`: the recipe as plain values."""

    name: str
    out: str
    config: dict[str, Any]
    git: str | None


class Tracker(ABC):
    """One place where one training is logged. `errors` are its own exceptions for what went wrong there."""

    errors: tuple[type[Exception], ...] = (OSError,)

    @abstractmethod
    def start(self, facts: RunFacts, run_id: str | None) -> str:
        """Begin a run, or continue the one of that id; returns its id."""

    @abstractmethod
    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """Log the figures of one epoch, which is counted from 1."""

    @abstractmethod
    def complete(self, number: int, facts: Mapping[str, Any], pictures: Mapping[str, Path], bundle: Path) -> None:
        """Log what the training came to after its last epoch: facts, pictures (PNG), and a folder that holds the bundle alone."""

    @abstractmethod
    def close(self, succeeded: bool) -> None:
        """End the run."""


@final
class WandbTracker(Tracker):
    """Weights & Biases: offline without a key, and without wandb's own error reports."""

    def start(self, facts: RunFacts, run_id: str | None) -> str:
        """See `Tracker`."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read at the import
        import wandb

        self.errors = (wandb.Error, OSError)
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if "WANDB_API_KEY" in os.environ else "offline")
        folder = os.environ.get("WANDB_DIR") or (facts.out if "://" not in facts.out else tempfile.gettempdir())
        Path(folder).mkdir(parents=True, exist_ok=True)
        if mode == "offline":
            say(f"wandb is offline: its files are in {folder}/wandb of this machine, and `wandb sync` sends them")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run_id,
            resume="allow" if mode == "online" else None,  # offline, equal ids are joined by `wandb sync`
            name=facts.name,
            config=facts.config | {"git": facts.git, "out": facts.out},
            mode=mode,
            dir=folder,
            settings=wandb.Settings(silent=True, console="off"),
        )
        return str(self._run.id)

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.log(dict(figures), step=number)

    def complete(self, number: int, facts: Mapping[str, Any], pictures: Mapping[str, Path], bundle: Path) -> None:
        """See `Tracker`; the bundle becomes an artifact of type model, named like the run."""
        import wandb

        self._run.log({name: wandb.Image(str(path)) for name, path in pictures.items()}, step=number)
        self._run.summary.update(dict(facts))
        name = re.sub(r"[^\w.-]", "-", str(self._run.name))
        artifact = wandb.Artifact(name, type="model", metadata=dict(facts))
        artifact.add_dir(str(bundle))
        self._run.log_artifact(artifact, aliases=["latest", str(facts["model_sha256"])[:12]])

    def close(self, succeeded: bool) -> None:
        """See `Tracker`."""
        self._run.finish(exit_code=0 if succeeded else 1)


@final
class MlflowTracker(Tracker):
    """MLflow, on the server or store that MLFLOW_TRACKING_URI names."""

    def start(self, facts: RunFacts, run_id: str | None) -> str:
        """See `Tracker`."""
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            raise UsageError("--track mlflow: set MLFLOW_TRACKING_URI to your server, for example http://mlflow:5000")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read at the import
        from mlflow import MlflowClient
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        self.errors = (MlflowException, OSError)
        self._client = MlflowClient()
        if run_id is None:
            title = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            found = self._client.get_experiment_by_name(title)
            experiment = found.experiment_id if found else self._client.create_experiment(title)
            tags = {"mlflow.source.git.commit": facts.git, "out": facts.out}
            made = self._client.create_run(
                experiment, run_name=facts.name, tags={key: value for key, value in tags.items() if value}
            )
            run_id = str(made.info.run_id)
            params = [Param(key, str(value)[:500]) for key, value in leaves(facts.config)]
            for first in range(0, len(params), 100):  # as many as one request may hold
                self._client.log_batch(run_id, params=params[first : first + 100])
        else:
            self._client.set_terminated(run_id, "RUNNING")
        self._id = run_id
        return run_id

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in figures.items():
            self._client.log_metric(self._id, name, value, step=number)

    def complete(self, number: int, facts: Mapping[str, Any], pictures: Mapping[str, Path], bundle: Path) -> None:
        """See `Tracker`; the bundle stands below `bundle/` of the run's artifacts."""
        for name, value in facts.items():
            self._client.set_tag(self._id, name, str(value))
        for path in pictures.values():
            self._client.log_artifact(self._id, str(path), "figures")
        self._client.log_artifacts(self._id, str(bundle), "bundle")

    def close(self, succeeded: bool) -> None:
        """See `Tracker`."""
        self._client.set_terminated(self._id, "FINISHED" if succeeded else "FAILED")


@final
class TensorboardTracker(Tracker):
    """TensorBoard's event files in OUT/tensorboard. They hold no bundle, only where it is.

    Each epoch is a file of its own, whole once it is logged: the writer's flush leaves events in its queue, and a training may be
    killed at any moment.
    """

    errors = (OSError, StorageError)

    def start(self, facts: RunFacts, run_id: str | None) -> str:
        """See `Tracker`; a continued run adds files to the same folder."""
        self._kept = storage.join(facts.out, "tensorboard")
        if run_id is None:
            text = "\n".join(f"    {key} = {value}" for key, value in leaves(facts.config | {"git": facts.git}))
            with self._events(".config") as events:
                events.add_text("config", text, 0)
        return facts.name

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """See `Tracker`."""
        with self._events(f".{number:06d}") as events:
            for name, value in figures.items():
                events.add_scalar(name, value, number)

    def complete(self, number: int, facts: Mapping[str, Any], pictures: Mapping[str, Path], bundle: Path) -> None:
        """See `Tracker`."""
        import cv2

        with self._events(".result") as events:
            for name, path in pictures.items():
                picture = cv2.imread(str(path))
                assert picture is not None  # written by the training itself
                events.add_image(name, picture[:, :, ::-1], number, dataformats="HWC")
            events.add_text("result", "\n".join(f"    {key} = {value}" for key, value in facts.items()), number)

    def close(self, succeeded: bool) -> None:
        """See `Tracker`: nothing is open."""

    @contextmanager
    def _events(self, suffix: str) -> Iterator[Any]:
        """A writer of one file, which is in OUT when the block has ended."""
        from tensorboardX import SummaryWriter

        with tempfile.TemporaryDirectory(prefix="boneage-tensorboard-") as folder:
            with SummaryWriter(folder, filename_suffix=suffix) as events:
                yield events
            for path in Path(folder).iterdir():
                storage.write_bytes(storage.join(self._kept, path.name), path.read_bytes())


TRACKERS: dict[str, type[Tracker]] = {
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
    "tensorboard": TensorboardTracker,
}


def leaves(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested values with dotted names: `{"a": {"b": 1}}` gives `[("a.b", 1)]`; lists are leaves."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{before}{key}"
        found += leaves(value, f"{name}.") if isinstance(value, dict) else [(name, value)]
    return found
