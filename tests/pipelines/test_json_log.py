"""A whole scoring run with JSON lines: nothing of a file name or a metadata row is in them."""

from __future__ import annotations

import json

import pytest
import torch

from boneage_ray import bundle
from boneage_ray.commands import pipeline
from boneage_ray.models.regressor import Regressor
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.phantoms.png import encode_gray_png
from boneage_ray.recipes import find_recipe
from boneage_ray.runtime import log, runs

pytestmark = pytest.mark.ray


def test_no_name_of_a_file_or_of_a_row_of_metadata_is_logged(local_ray, tmp_path, monkeypatch, capsys):
    recipe, model, source = find_recipe("demo"), str(tmp_path / "model"), tmp_path / "hands"
    with torch.random.fork_rng():
        bundle.save(model, recipe, Regressor(recipe.model, with_weights=False).state_dict(), {"val_mae_months": 12.5})
    source.mkdir()
    (source / "Doe_Jane.png").write_bytes(encode_gray_png(hand_phantom(7, 120, "F", 128).image))
    (source / "Roe_Jim.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    metadata = tmp_path / "metadata.csv"
    metadata.write_text("id,sex\nDoe_Jane,F\nNobody_Nora,M\n")
    monkeypatch.setenv(log.FORMAT, "json")
    monkeypatch.setattr(runs, "disconnect", lambda: None)
    run = runs.Run("score", json_output=True)
    arguments = pipeline.ScoreArguments(str(source), model, str(tmp_path / "scores"), str(metadata))
    assert runs.execute(run, lambda run: pipeline.score(run, arguments)) == 0
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in err.splitlines()]
    assert json.loads(out)["inputs"] == 2
    assert {line["run"] for line in lines} == {run.id}
    messages = [line["message"] for line in lines]
    assert any(message.startswith("table rows: 2 = 1 used + 1 without a file") for message in messages)
    assert not any(name in err for name in ("Doe", "Roe", "Nora"))
    monkeypatch.setenv(log.FORMAT, "text")
    arguments = pipeline.ScoreArguments(str(source), model, str(tmp_path / "again"), str(metadata))
    assert runs.execute(runs.Run("score"), lambda run: pipeline.score(run, arguments)) == 0
    assert "Nobody_Nora" in capsys.readouterr().err, "plain lines are for the person at the terminal"
