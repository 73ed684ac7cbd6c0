"""wandb: offline without a key, and absent unless asked for."""

from __future__ import annotations

import pytest

from boneage_ray.recipes import find_recipe
from boneage_ray.training.tracking import Tracker


def test_nothing_is_written_unless_asked_for(tmp_path):
    with Tracker(find_recipe("demo"), str(tmp_path), enabled=False) as tracker:
        tracker.log({"epoch": 1, "train_loss": 2.0})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_without_a_key_the_run_is_kept_offline(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    with Tracker(find_recipe("demo"), str(tmp_path), enabled=True) as tracker:
        tracker.log({"epoch": 1, "train_loss": 2.0, "val_mae_months": None})
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert len(list(folder.glob("*.wandb"))) == 1
