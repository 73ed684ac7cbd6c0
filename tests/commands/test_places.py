"""OUT stands apart from all that a command reads: --overwrite deletes it."""

from __future__ import annotations

import pytest

from boneage_ray import storage
from boneage_ray.cli import main
from boneage_ray.commands.words import refuse_overlap
from boneage_ray.errors import UsageError
from boneage_ray.runtime import parts, runs


@pytest.fixture(autouse=True)
def keep_ray(monkeypatch):
    """The session's Ray outlives these commands."""
    monkeypatch.setattr(runs, "disconnect", lambda: None)


@pytest.fixture
def model(tmp_path):
    """A trained model's folder, as far as OUT knows it: another run, with a file that must stay."""
    place = tmp_path / "runs" / "model"
    parts.claim(str(place), "abc", overwrite=False, what="train")
    storage.write_text(f"{place}/weights.safetensors", "weeks of work")
    return place


READERS = {
    "ensemble": ["--model", "MODEL", "--model", "OTHER"],
    "score": ["OTHER", "--model", "MODEL"],
    "evaluate": ["--data", "OTHER", "--model", "MODEL"],
}
OWNERS = {
    "evaluate": ["--data", "MODEL", "--model", "OTHER"],
    "score": ["MODEL", "--model", "OTHER"],
    "train": ["--data", "MODEL", "--recipe", "demo"],
    "prepare": ["MODEL", "--recipe", "demo"],
}


@pytest.mark.parametrize("where", ["", "..", "inner", "../model/."])
@pytest.mark.parametrize("command", [*READERS.items(), *OWNERS.items()])
def test_what_is_read_is_never_overwritten(model, tmp_path, capsys, command, where):
    name, flags = command
    out = model / where
    parts.claim(str(model.parent / "x"), "abc", overwrite=False, what="train")
    places = {"MODEL": str(model), "OTHER": str(tmp_path / "other")}
    assert main([name, *(places.get(flag, flag) for flag in flags), "--out", str(out), "--overwrite"]) == 2
    assert "give --out a place of its own" in capsys.readouterr().err
    assert (model / "weights.safetensors").read_text() == "weeks of work"
    assert not (model / "inner").exists()


def test_links_are_followed(model, tmp_path):
    (tmp_path / "link").symlink_to(model)
    for out in (tmp_path / "link", tmp_path / "link" / "inner"):
        with pytest.raises(UsageError, match=r"--out .* and --model .* are one place, or one lies inside the other"):
            refuse_overlap(str(out), "--model", [str(model)])


@pytest.mark.parametrize("out", ["s3://site/models/a", "s3://site/models", "s3a://site/models/a/b", "s3://site"])
def test_prefixes_are_places_too(out):
    with pytest.raises(UsageError, match="one place"):
        refuse_overlap(out, "--model", ["s3://other/a", "s3://site/models/a"])


def test_neighbours_are_apart(tmp_path):
    refuse_overlap(str(tmp_path / "model2"), "--model", [str(tmp_path / "model"), f"s3:/{tmp_path}/model2"])
    refuse_overlap("s3://site/models/ab", "--model", ["s3://site/models/a"])
