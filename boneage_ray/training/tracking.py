"""Logging to wandb with --wandb; offline without a key."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from boneage_ray.errors import UsageError
from boneage_ray.recipes.recipe import Recipe


class Tracker:
    """Logs epochs to wandb, or nowhere."""

    def __init__(self, recipe: Recipe, out: str, enabled: bool) -> None:
        self._run: Any = None
        if not enabled:
            return
        try:
            import wandb
        except ImportError:
            raise UsageError("--wandb needs the package wandb: pip install 'boneage-ray[wandb]'") from None
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
