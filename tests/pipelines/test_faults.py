"""Workers that die, again and again: every file has its row all the same."""

from __future__ import annotations

import shutil

import pytest
from pipelines.killers import Mortal
from pipelines.steps import run

from boneage_ray.commands import pipeline
from boneage_ray.phantoms.archive import HAND_FOLDER, write_hand_archive
from boneage_ray.scoring import score

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_file_that_kills_its_worker_each_time_is_one_row(model, tmp_path, monkeypatch, result_rows, capsys):
    write_hand_archive(str(tmp_path / "hands"), 24, seed=5, size=96)
    source, out = tmp_path / "hands" / HAND_FOLDER, str(tmp_path / "scores")
    names = sorted(path.name for path in source.iterdir())
    shutil.copy2(source / names[0], source / f"{names[10][:-4]}-killer.png")
    (source / names[23]).rename(source / f"{names[23][:-4]}-once.png")
    monkeypatch.setattr(score, "ScoreWorker", Mortal)
    answer = run(pipeline.score, pipeline.ScoreArguments(str(source), model, out)).answer
    assert (answer["inputs"], answer["scored"], answer["failed"]) == (25, 24, 1)
    assert "their inputs are tried one by one" in capsys.readouterr().err
    rows = result_rows(out)
    assert set(rows) == {path.name for path in source.iterdir()}
    (killer,) = (row for name, row in rows.items() if "killer" in name)
    assert (killer["status"], killer["step"], killer["reason"]) == ("failed", "predict", "internal_error")
    assert "its worker was killed 2 times at this input" in killer["message"]
    assert not (tmp_path / "scores" / "retries").exists()
