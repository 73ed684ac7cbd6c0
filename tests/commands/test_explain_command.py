"""`boneage explain`: the picture and the answer, and every way of asking wrongly."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from pictures import encoded

from boneage_ray import bundle
from boneage_ray.cli import main
from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.prediction import members
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.runtime import runs
from boneage_ray.tasks.build import build_model


@pytest.fixture(autouse=True)
def keep_ray(monkeypatch):
    """The session's Ray outlives these commands."""
    monkeypatch.setattr(runs, "disconnect", lambda: None)


def save(place, name, *changes, seed=0):
    torch.manual_seed(seed)
    recipe = override(find_recipe(name), list(changes))
    weights = build_model(recipe.model, with_weights=False).state_dict()
    bundle.save(str(place), recipe, weights, {"val_mae_months": 10.0})
    return str(place)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a hand, a head, a text, an age model and an ensemble of two."""
    folder = tmp_path_factory.mktemp("explain")
    (folder / "hand.png").write_bytes(encoded(hand_phantom(1, 100, "F", 160).image))
    (folder / "head.png").write_bytes(encoded(cephalogram_phantom(1, 4, 160).image))
    (folder / "text.png").write_text("no picture")
    tiny = ("image.size=64", "model.backbone.name=test_resnet")
    models = [save(folder / f"age{k}", "demo", *tiny, seed=k) for k in (0, 1)]
    out = str(folder / "both")
    members.save_ensemble(out, "both", "two", members.copy_members(members.resolve(models), out))
    return folder


def run(files, image, model, *more):
    return main(["explain", str(files / image), "--model", str(files / model), *more])


def test_an_age_is_told_and_its_picture_written(files, tmp_path, capsys):
    out = tmp_path / "new" / "hand.PNG"
    assert run(files, "hand.png", "age0", "--sex", "F", "--out", str(out), "--json") == 0
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert {"age_months", "stages"} <= set(answer)
    assert answer["flags"] == ["spacing_unknown"]
    assert f"Picture: {out}" in said.err
    assert cv2.imdecode(np.frombuffer(out.read_bytes(), np.uint8), 1).shape == (900, 900, 3)


def test_landmarks_that_cannot_be_told_are_three_and_no_picture(files, tmp_path, capsys):
    place = tmp_path / "head"
    save(place, "cephalogram-light", "image.size=64", "model.encoder=tu-test_resnet", "task.min_confidence=1")
    assert main(["explain", str(files / "head.png"), "--model", str(place), "--out", str(tmp_path / "o.png")]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert "rejected (predict: out_of_distribution)" in said.err
    assert not (tmp_path / "o.png").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--sex", "f", "--out", "o.png"], "--sex f: F or M is needed"),
        (["--out", "o.jpg"], "--out o.jpg: a PNG is written"),
        (["--out", "o.png", "--pixel-spacing-mm", "0"], "--pixel-spacing-mm"),
        ([], "--out"),
    ],
)
def test_wrong_flags_are_two_before_any_model_is_read(files, more, said, capsys):
    assert run(files, "hand.png", "nowhere", *more) == 2
    assert said in capsys.readouterr().err


def test_a_model_that_is_none_or_several_is_two(files, tmp_path, capsys):
    out = tmp_path / "o.png"
    assert run(files, "hand.png", "nowhere", "--out", str(out)) == 2
    assert "holds no model bundle" in capsys.readouterr().err
    assert run(files, "hand.png", "both", "--out", str(out)) == 2
    said = capsys.readouterr().err
    assert "is an ensemble; explain one of its members" in said
    assert f"{files}/both/members/0" in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("image", "said"), [("absent.png", "there is no such file"), ("text.png", "failed (decode: unsupported_format)")]
)
def test_a_file_that_cannot_be_used_is_three(files, tmp_path, image, said, capsys):
    out = tmp_path / "o.png"
    assert run(files, image, "age0", "--out", str(out)) == 3
    error = capsys.readouterr().err
    assert said in error
    assert error.count(str(files / image)) == 1
    assert not out.exists()
