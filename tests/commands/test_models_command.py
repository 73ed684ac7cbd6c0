"""`boneage models`, and commands that are given the name of a built-in model."""

from __future__ import annotations

import json

import pytest
from builtin_models import FIGURE, HAND, install

from boneage_ray import builtin
from boneage_ray.cli import main
from boneage_ray.commands.words import line, quoted, refuse_overlap
from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.phantoms.archive import write_hand_archive
from boneage_ray.prediction import members
from boneage_ray.prediction.runtimes import Compute
from boneage_ray.preparation.prepare import Reading
from boneage_ray.runtime import runs
from boneage_ray.scoring.score import ScorePlaces, ScoreWorker
from boneage_ray.serving.placement import inspect_models


@pytest.fixture(autouse=True)
def keep_ray(monkeypatch):
    """The session's Ray outlives these commands."""
    monkeypatch.setattr(runs, "disconnect", lambda: None)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    root = install(tmp_path)
    monkeypatch.setattr(builtin, "ROOT", root)
    monkeypatch.chdir(tmp_path)
    return root


def test_models_lists_them(installed, capsys):
    assert main(["models"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("hand  bone age from a radiograph of the hand; MAE of 9 phantoms 8.1 months (7.7 to 8.6); ")
    assert "boneage score FOLDER --model NAME --out SCORES" in told


def test_models_tells_all_of_one(installed, capsys):
    assert main(["models", "hand"]) == 0
    told = capsys.readouterr().out
    sha256 = members.resolve(["builtin:hand"]).sha256
    for text in ("8.1 months (7.7 to 8.6)  (by: python measure.py --folds 5)", sha256, "non-commercial", " MB"):
        assert text in told
    assert f"Card: {installed}/hand/MODEL_CARD.md  Terms: {installed}/hand/LICENCE.md" in told
    assert "Next: boneage score FOLDER --model hand --out SCORES" in told


def test_models_as_json(installed, capsys):
    assert main(["models", "--json"]) == 0
    hand = json.loads(capsys.readouterr().out)["models"]["hand"]
    assert (hand["version"], hand["figures"], hand["members"]) == ("3", [FIGURE], 1)
    assert hand["size_bytes"] == builtin.size("hand")
    assert hand["model_sha256"] == members.resolve(["builtin:hand"]).sha256
    assert main(["models", "hand", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == hand


def test_an_unknown_one_is_answered_with_the_nearest(installed, capsys):
    assert main(["models", "hands"]) == 2
    assert "hands is no built-in model; did you mean hand?" in capsys.readouterr().err


def test_an_installation_without_models_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(builtin, "ROOT", tmp_path)
    assert main(["models"]) == 0
    assert capsys.readouterr().out.startswith("This installation has no built-in model")
    assert main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"models": {}}


@pytest.mark.parametrize(
    "command",
    [
        ["score", ".", "--model", "hend", "--out", "scores"],
        ["evaluate", "--model", "hend", "--data", "data", "--out", "o"],
        ["explain", "x.png", "--model", "hend", "--out", "o.png"],
        ["serve", "--model", "hend"],
        ["ensemble", "--model", "hend", "--model", "hand", "--out", "e"],
        ["doctor", "--model", "hend"],
    ],
)
def test_every_command_with_a_model_knows_the_names(installed, command, capsys, monkeypatch):
    monkeypatch.setattr("boneage_ray.commands.tools._ray", lambda: "not asked")
    assert main(command) == 2
    assert "--model hend is neither a folder here nor a built-in model; did you mean hand?" in capsys.readouterr().err


def test_explain_and_doctor_take_the_name(installed, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("boneage_ray.commands.tools._ray", lambda: "not asked")
    write_hand_archive(str(tmp_path / "hands"), 1, 0, 128)
    image = next((tmp_path / "hands").rglob("*.png"))
    assert main(["explain", str(image), "--model", "hand", "--out", "why.png"]) == 0
    assert (tmp_path / "why.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["doctor", "--model", "hand"]) == 0
    assert f"demo {members.resolve(['builtin:hand']).sha256[:12]}, hashes verified" in capsys.readouterr().out


def test_an_ensemble_holds_a_copy_of_the_built_in_model(installed, tmp_path):
    from builtin_models import trained

    other = trained(tmp_path / "other", HAND, seed=5)
    assert main(["ensemble", "--model", "hand", "--model", other, "--out", "both"]) == 0
    copied = {member.sha256 for member in members.resolve([str(tmp_path / "both")]).members}
    assert copied == {members.resolve([place]).sha256 for place in ("builtin:hand", other)}


def test_a_worker_of_score_finds_the_model_in_its_own_installation(installed, tmp_path, monkeypatch):
    write_hand_archive(str(tmp_path / "hands"), 2, 0, 128)
    sha256 = members.resolve(["builtin:hand"]).sha256
    monkeypatch.chdir("/")
    places = ScorePlaces(str(tmp_path / "hands"), str(tmp_path / "out"), "uri")
    worker = ScoreWorker(["builtin:hand"], sha256, places, Reading(), Compute())
    assert [(reader.predictor.name, reader.predictor.sha256) for reader in worker.readers] == [("demo", sha256)]
    with pytest.raises(MismatchError, match="install the same version on every node"):
        ScoreWorker(["builtin:hand"], "0" * 64, places, Reading(), Compute())


def test_a_service_is_given_the_name_and_not_a_path(installed):
    (place,) = inspect_models(["builtin:hand"])
    assert (place.uri, place.info.name) == ("builtin:hand", "demo")


def test_commands_to_paste_have_the_bare_name(installed):
    assert (
        line("boneage score", "A", model=["builtin:hand", "/m"], out="O")
        == "boneage score A --model hand --model /m --out O"
    )
    assert quoted("builtin:hand") == "hand"


def test_out_may_be_here_but_not_in_the_model(installed, tmp_path):
    refuse_overlap(str(tmp_path / "out"), "--model", ["builtin:hand"])
    with pytest.raises(UsageError, match="one place"):
        refuse_overlap(str(installed / "hand" / "x"), "--model", ["builtin:hand"])
