"""`boneage train --sweep` on phantoms: a table, a page, and the same again after a kill."""

from __future__ import annotations

import shutil

import pytest
from pipelines.steps import SMALL, run

from boneage_ray import storage
from boneage_ray.commands import pipeline
from boneage_ray.commands.sweep import sweep
from boneage_ray.errors import MismatchError, UsageError

pytestmark = [pytest.mark.ray, pytest.mark.slow]
FILE = """
trials = 3
grace_epochs = 3
[settings]
"stage.lr" = [1e-6, 1e-4, 3e-3]
"""


def test_a_sweep_ranks_its_trials_and_goes_on_from_their_epochs(prepared, tmp_path):
    (tmp_path / "sweep.toml").write_text(FILE)
    out = tmp_path / "sweep"
    asked = {"sweep": str(tmp_path / "sweep.toml"), "settings": [*SMALL, "stage.epochs=3"]}
    run(sweep, pipeline.TrainArguments("demo", prepared, str(out), **asked))
    found = storage.read_json(f"{out}/sweep.json")
    trials = found["trials"]
    assert found["figure"] == "val_mae_months"
    assert [trial["best"] for trial in trials] == sorted(trial["best"] for trial in trials)
    assert {trial["settings"]["stage.lr"] for trial in trials} == {1e-6, 1e-4, 3e-3}
    assert [(trial["status"], trial["epochs"]) for trial in trials] == [("finished", 3)] * 3
    assert trials[0]["settings"]["stage.lr"] == 3e-3  # the others hardly move in so few steps
    page = (out / "report.html").read_text()
    assert f"Trial {trials[0]['number']} is the best of 3" in page
    assert page.count("<svg") == 1
    with pytest.raises(MismatchError, match="--resume continues it"):
        run(sweep, pipeline.TrainArguments("demo", prepared, str(out), **asked))
    # As if it had been killed in its last trial.
    (out / "sweep.json").unlink()
    shutil.rmtree(out / "trials" / f"{trials[-1]['number']:03d}")
    kept = sorted((out / "trials").rglob("epoch-*.safetensors"))
    before = [path.stat().st_mtime_ns for path in kept]
    run(sweep, pipeline.TrainArguments("demo", prepared, str(out), resume=True, **asked))
    assert storage.read_json(f"{out}/sweep.json") == found
    assert [path.stat().st_mtime_ns for path in kept] == before
    with pytest.raises(UsageError, match="leave --workers and --min-workers out"):
        run(sweep, pipeline.TrainArguments("demo", prepared, str(out), workers=2, **asked))
