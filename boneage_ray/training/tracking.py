"""Log a training to wandb, only where it was asked for: offline without a key, and without wandb's own error reports."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from boneage_ray.recipes.recipe import Recipe


class Tracker:
    """Logs epochs to wandb, or nowhere."""

    def __init__(self, recipe: Recipe, out: str, enabled: bool) -> None:
        self._run: Any = None
        if not enabled:
            return
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read at the import
        import wandb  # here, not above: it is not to be loaded unless asked for

        online = "WANDB_API_KEY" in os.environ
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if online else "offline")
        folder = os.environ.get("WANDB_DIR") or (out if "://" not in out else tempfile.gettempdir())
        settings = wandb.Settings(silent=True, console="off")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "boneage-ray"),
            config=recipe.model_dump(mode="json"),
            mode=mode,
            dir=folder,
            settings=settings,
        )

    def log(self, line: dict[str, Any]) -> None:
        """Log the figures of one epoch."""
        if self._run is not None:
            self._run.log({key: value for key, value in line.items() if value is not None}, step=line["epoch"])

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._run is not None:
            self._run.finish()
