"""A fourth task is a folder beside the others and a line in one list: shown with a task that is in no release."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import boneage_ray

PACKAGE = Path(boneage_ray.__file__).parent
HERE = Path(__file__).parent / "keypoints"
LINE = "    VIEWS_TASK,\n)"


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the package with one folder and one line more (and the line that imports what that one names)."""
    place = tmp_path_factory.mktemp("house")
    shutil.copytree(PACKAGE, place / "boneage_ray", ignore=shutil.ignore_patterns("__pycache__"))
    folder = place / "boneage_ray" / "tasks" / "keypoints"
    (folder / "findings").mkdir(parents=True)
    (folder / "__init__.py").touch()
    shutil.copy(HERE / "keypoints_config.py", folder / "config.py")
    shutil.copy(HERE / "keypoints_task.py", folder / "task.py")
    shutil.copy(HERE / "keypoints_findings.py", folder / "findings" / "__init__.py")
    listed = place / "boneage_ray" / "tasks" / "known.py"
    text = listed.read_text(encoding="utf-8")
    assert text.count(LINE) == 1
    text = text.replace(LINE, "    VIEWS_TASK,\n    KEYPOINTS,\n)")
    first = "from boneage_ray.tasks.kind import"
    text = text.replace(first, f"from boneage_ray.tasks.keypoints.config import KEYPOINTS\n{first}")
    listed.write_text(text, encoding="utf-8")
    return place


def run(house, *arguments):
    paths = [house, Path(__file__).parents[1] / "training"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=house, env=env
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    return answer.stdout


def test_it_is_trained_scored_explained_and_evaluated(house, tmp_path):
    found = json.loads(run(house, str(HERE / "keypoints_way.py"), str(tmp_path)).splitlines()[-1])
    assert found == {
        "epochs": [["val_error_px", "val_loss", "val_seconds"]] * 2,
        "line": "epoch 1/2: loss 0.5000, validation mean error 3.50 px, 7.0 images/s",
        "reported": ["val_error_px", "val_loss"],
        "warm_up": "scored",
        "rows": [["scored", None, ["thumb", "index", "middle", "ring", "little"]], ["failed", "truncated", []]],
        "picture": [64, 64, 3],
        "page": [True, True],
        "evaluated": [{"model": "fingertips", "error_px": 1.5}, {"split": "test"}],
    }


def test_recipes_of_the_other_tasks_are_told_apart_from_it_without_torch(house):
    code = """
import sys
from boneage_ray.errors import UsageError
from boneage_ray.recipes import RECIPES
from boneage_ray.recipes.recipe import build_recipe

def refusal(**values):
    try:
        build_recipe({"name": "x", "summary": "y", **values}, "x")
    except UsageError as error:
        print(error)

refusal(model={"kind": "fingertip-net"})
refusal(model={"kind": "fingertip-net"}, task={"kind": "keypoints"})
refusal(best_by="val_error_px")
print(len(RECIPES) > 10, sorted({"torch", "ray"} & set(sys.modules)))
"""
    assert run(house, "-c", code).splitlines() == [
        'recipe x: a fingertip-net learns the task keypoints, not age: give task={kind = "keypoints"}',
        "recipe x: the task keypoints has no ages to go by: give best_by=val_error_px",
        "recipe x: the task age has no fingertips to go by: give best_by=val_mae_months",
        "True []",
    ]
