"""The console command: frozen flags, exit codes, streams."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib

import pytest

from boneage_ray import __version__
from boneage_ray.cli import main
from boneage_ray.runtime import runs


@pytest.fixture(autouse=True)
def keep_ray(monkeypatch):
    """The session's Ray outlives these commands."""
    monkeypatch.setattr(runs, "disconnect", lambda: None)


PROMISED = {
    "demo": ["--out"],
    "recipes": ["--json"],
    "models": ["--json"],
    "receive": [
        "--to",
        "--allow",
        "--aet",
        "--host",
        "--port",
        "--model",
        "--out",
        "--quiet-seconds",
        "--send",
        "--fetch",
    ],
    "prepare": ["--recipe", "--out", "--labels", "--set", "--overwrite", "--strict", "--update"],
    "train": ["--recipe", "--data", "--out", "--workers", "--gpu", "--set", "--resume", "--wandb", "--track"],
    "evaluate": ["--model", "--data", "--split", "--out", "--max-mae", "--open-test", "--coverage"],
    "calibrate": ["--model", "--data", "--out", "--site", "--split", "--coverage", "--max-mae"],
    "score": [
        "--model",
        "--out",
        "--metadata",
        "--sex",
        "--pixel-spacing-mm",
        "--strict",
        "--overwrite",
        "--update",
        "--max-failures",
        "--keep",
        "--shape",
    ],
    "ensemble": ["--model", "--out", "--name", "--overwrite"],
    "export": ["--format", "--to", "--overwrite", "--json"],
    "explain": [
        "--model",
        "--out",
        "--sex",
        "--pixel-spacing-mm",
        "--voi",
        "--no-header-gate",
        "--no-pixel-gate",
        "--two-hands",
    ],
    "serve": [
        *("--model", "--host", "--port", "--tokens", "--allow-uri", "--tls-cert", "--tls-key"),
        *("--check", "--update", "--min-replicas", "--max-replicas", "--target-requests"),
    ],
    "token": ["--per-minute", "--at-once", "--json"],
    "submit": ["--address", "--follow", "--pass-env", "--dry-run", "--kuberay"],
    "phantoms": ["--kind", "--count", "--out", "--bad", "--dicom", "--masks", "--seed", "--size"],
    "doctor": ["--model", "--storage"],
}


@pytest.mark.parametrize("command", PROMISED)
def test_flags_are_frozen(command, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert [flag for flag in PROMISED[command] if flag not in text] == []


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


BOTH = ["score", "x", "--model", "hand", "--out", "o", "--update", "--overwrite"]


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["score"], ["train", "--workers", "0"], ["recipes", "resnet"], BOTH]
)
def test_wrong_usage_is_two(arguments):
    assert main(arguments) == 2


def test_recipes_lists_and_prints(capsys):
    assert main(["recipes"]) == 0
    assert "resnet18-multitask" in capsys.readouterr().out
    assert main(["recipes", "resnet18-multitask"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["model"]["stage_heads"] == ["three"]
    assert main(["recipes", "resnet18-multitask", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["batch_size"] == 32


def test_misspelled_recipe_names_the_nearest(capsys):
    assert main(["recipes", "resnet18-multitsk"]) == 2
    assert "did you mean resnet18-multitask?" in capsys.readouterr().err


def test_misspelled_key_names_the_nearest(tmp_path, capsys):
    arguments = ["prepare", str(tmp_path), "--recipe", "demo", "--out", str(tmp_path / "o"), "--set", "image.siez=64"]
    assert main(arguments) == 2
    assert "size" in capsys.readouterr().err


def test_phantoms_writes_an_archive_and_refuses_a_full_folder(tmp_path, capsys):
    arguments = ["phantoms", "--out", str(tmp_path / "p"), "--count", "3", "--size", "96", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 3
    assert len(list((tmp_path / "p").rglob("*.png"))) == 3
    assert main(arguments) == 2
    assert "not empty" in capsys.readouterr().err


def test_module_runs_as_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "boneage_ray", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == __version__
