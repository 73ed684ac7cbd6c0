"""wandb: offline without a key, and absent unless asked for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from boneage_ray.recipes import find_recipe
from boneage_ray.training.tracking import Tracker


def test_nothing_is_written_unless_asked_for(tmp_path):
    with Tracker(find_recipe("demo"), str(tmp_path), enabled=False) as tracker:
        tracker.log({"epoch": 1, "train_loss": 2.0})
    assert list(tmp_path.iterdir()) == []


def test_wandb_is_not_loaded_unless_asked_for(tmp_path):
    code = "import sys, boneage_ray.cli, boneage_ray.training.driver\n"
    code += "from boneage_ray.recipes import find_recipe\nfrom boneage_ray.training.tracking import Tracker\n"
    code += "Tracker(find_recipe('demo'), sys.argv[1], enabled=False).log({'epoch': 1})\nprint('wandb' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"


@pytest.mark.slow
def test_without_a_key_the_run_is_kept_offline(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_ERROR_REPORTING"):
        monkeypatch.delenv(name, raising=False)
    with Tracker(find_recipe("demo"), str(tmp_path), enabled=True) as tracker:
        tracker.log({"epoch": 1, "train_loss": 2.0, "val_mae_months": None})
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert len(list(folder.glob("*.wandb"))) == 1
