"""Models that come with the package: bare names, where they are found, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
from builtin_models import HEAD, install

from boneage_ray import builtin, bundle, storage
from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.prediction import members


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The folder of built-in models: hand alone; the command is given in an empty folder."""
    root = install(tmp_path)
    monkeypatch.setattr(builtin, "ROOT", root)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return root


def test_a_bare_name_is_the_built_in_model(installed):
    assert builtin.names() == ["hand"]
    assert builtin.place_of("hand") == "builtin:hand"
    assert builtin.place_of("builtin:hand") == "builtin:hand"
    assert builtin.folder_of("builtin:hand") == str(installed / "hand")
    assert builtin.folder_of("builtin:hand/members/0") == str(installed / "hand/members/0")
    found, copy = members.resolve(["builtin:hand"]), members.resolve([str(installed / "hand")])
    assert (found.name, found.sha256) == (copy.name, copy.sha256)
    assert found.members[0].uri == "builtin:hand"
    assert bundle.load("builtin:hand").sha256 == found.sha256


@pytest.mark.parametrize("place", ["./hand", "hand/", "models/hand", "/models/hand", "s3://models/hand"])
def test_a_path_is_a_path(installed, place):
    assert builtin.place_of(place) == storage.absolute(place)
    assert builtin.folder_of(storage.absolute(place)) == storage.absolute(place)


def test_a_folder_of_that_name_is_told_how_it_is_named(installed, tmp_path, capsys):
    (tmp_path / "here" / "hand").mkdir()
    assert builtin.place_of("hand") == "builtin:hand"
    assert (
        capsys.readouterr().err == "--model hand is the built-in model; to use the folder hand, give --model ./hand\n"
    )
    assert builtin.place_of("./hand") == str(tmp_path / "here" / "hand")
    assert capsys.readouterr().err == ""


def test_a_bare_name_of_a_folder_here_is_that_folder(installed, tmp_path):
    (tmp_path / "here" / "model").mkdir()
    assert builtin.place_of("model") == str(tmp_path / "here" / "model")


@pytest.mark.parametrize(
    ("name", "hint"), [("hnad", "did you mean hand?"), ("HAND1", "built in: hand"), ("s3", "built in: hand")]
)
def test_an_unknown_bare_name_is_answered_with_the_nearest(installed, name, hint):
    with pytest.raises(UsageError) as caught:
        builtin.place_of(name)
    assert str(caught.value) == (
        f"--model {name} is neither a folder here nor a built-in model; {hint}; `boneage train` writes a bundle"
    )


def test_without_any_built_in_model_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(builtin, "ROOT", tmp_path)
    with pytest.raises(UsageError, match="neither a folder here nor a built-in model; built in: none"):
        builtin.place_of("hand")


def test_another_file_in_the_place_of_a_weights_file_is_refused(installed):
    data = bytearray((installed / "hand" / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (installed / "hand" / "weights.safetensors").write_bytes(data)
    with pytest.raises(MismatchError, match=r"builtin:hand/weights\.safetensors has SHA-256 .*damaged or replaced"):
        bundle.load("builtin:hand")


def test_another_manifest_is_refused_though_it_is_whole(installed, tmp_path):
    other = install(tmp_path / "here", recipe=HEAD) / "hand"
    for path in other.iterdir():
        if path.name != builtin.ABOUT:
            shutil.copy(path, installed / "hand")
    with pytest.raises(
        MismatchError, match=r"manifest\.json of the built-in model hand has SHA-256 .*install it again: pip"
    ):
        builtin.place_of("hand")
    (installed / "hand" / "manifest.json").unlink()
    with pytest.raises(MismatchError, match=r"the built-in model hand has lost its manifest\.json: install it again"):
        bundle.load("builtin:hand")


def test_a_model_of_an_older_format_is_a_clear_error(installed):
    path = installed / "hand" / builtin.ABOUT
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"format": 0}))
    with pytest.raises(
        UsageError, match=r"the built-in model hand is of format 0, boneage-ray .* reads format 1: .*install"
    ):
        builtin.place_of("hand")
    path.write_text(json.dumps({"format": 2, "title": "hand"}))
    with pytest.raises(UsageError, match="is of format 2, "):
        members.resolve(["builtin:hand"])
    path.unlink()
    with pytest.raises(UsageError, match="is of format unknown, "):
        builtin.find("hand")


def test_a_worker_with_another_version_installed_refuses(installed, tmp_path, monkeypatch):
    expected = members.resolve(["builtin:hand"]).sha256
    assert members.resolve(["builtin:hand"], expected).sha256 == expected
    other = install(tmp_path / "here", recipe=HEAD)
    monkeypatch.setattr(builtin, "ROOT", other)
    with pytest.raises(
        MismatchError, match=r"the built-in model hand of this node .*install the same version on every node"
    ):
        members.resolve(["builtin:hand"], expected)
    shutil.rmtree(other / "hand")
    with pytest.raises(
        UsageError, match=r"builtin:hand is no built-in model of boneage-ray .*, which is installed here"
    ):
        members.resolve(["builtin:hand"], expected)


def test_about_says_what_the_files_are(installed):
    told = builtin.about("hand")
    manifest = (installed / "hand" / "manifest.json").read_bytes()
    assert told.manifest_sha256 == hashlib.sha256(manifest).hexdigest()
    assert (told.name, told.version, told.figures[0].value) == ("hand", "3", "8.1 months (7.7 to 8.6)")
    assert builtin.size("hand") == sum(path.stat().st_size for path in (installed / "hand").iterdir())


def test_the_installed_models_are_whole():
    """Those that really come with the package."""
    for name in builtin.names():
        assert len(members.resolve([f"builtin:{name}"]).members) >= 1
        assert builtin.about(name).name == name
        assert (builtin.ROOT / name / builtin.TERMS).exists()
    assert sum(map(builtin.size, builtin.names())) < 30e6
