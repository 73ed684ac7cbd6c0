"""`--model wandb://ENTITY/PROJECT/NAME:ALIAS`, with a small stand-in for wandb's server: there is none here to ask."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb

from boneage_ray import artifacts, builtin, bundle
from boneage_ray.commands.words import model_places
from boneage_ray.errors import MismatchError, StorageError, UsageError
from boneage_ray.models.regressor import Regressor
from boneage_ray.prediction.members import read_places, resolve, save_ensemble
from boneage_ray.recipes import find_recipe

PLACE = "wandb://ward/bones/hand:latest"


class Server:
    """Versions of one artifact: folders; `latest` is the last one."""

    def __init__(self):
        self.folders, self.downloads, self.refs = [], 0, {}

    def artifact(self, path):
        name, _, alias = path.partition(":")
        if name != "ward/bones/hand":
            raise wandb.errors.CommError(f"artifact {path!r} not found")
        number = len(self.folders) - 1 if alias == "latest" else int(alias[1:])
        folder = self.folders[number]
        entries = {
            str(file.relative_to(folder)): self.entry(file, folder) for file in folder.rglob("*") if file.is_file()
        }
        return SimpleNamespace(version=f"v{number}", manifest=SimpleNamespace(entries=entries))

    def entry(self, file, folder):
        def download(root, skip_cache):
            self.downloads += 1
            target = Path(root) / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            return shutil.copy(file, target)

        return SimpleNamespace(ref=self.refs.get(file.name), download=download)


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server with nothing on it, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = Server()
    monkeypatch.setattr(artifacts, "_api", lambda: found)
    return found


def save(folder, seed=0):
    recipe = find_recipe("demo").derive(seed=seed)
    model = Regressor(recipe.model, with_weights=False)
    return bundle.save(str(folder), recipe, model.state_dict(), {"val_mae_months": 12.5, "seed": seed})


def test_an_alias_is_pinned_once_and_the_version_loaded_and_cached(server, tmp_path):
    first = save(tmp_path / "v0")
    (tmp_path / "v0" / "evil.pkl").write_bytes(b"cos\nsystem\n")
    server.folders.append(tmp_path / "v0")
    (place,) = model_places(PLACE)
    assert place == "wandb://ward/bones/hand:v0"
    save(tmp_path / "v1", seed=1)
    server.folders.append(tmp_path / "v1")  # `latest` moves on while the command runs
    assert resolve([place]).sha256 == first
    assert bundle.load(place).sha256 == first
    assert server.downloads == len(bundle.FILES) + 1
    held = sorted(path.name for path in Path(builtin.folder_of(place)).iterdir())
    assert held == sorted([*bundle.FILES, bundle.MANIFEST])


def test_an_ensemble_is_found_by_its_members(server, tmp_path):
    folders = ["members/0", "members/1"]
    for seed, folder in enumerate(folders):
        save(tmp_path / "v0" / folder, seed)
    expected = save_ensemble(str(tmp_path / "v0"), "two", "both", folders)
    server.folders.append(tmp_path / "v0")
    found = resolve(model_places(PLACE))
    assert found.sha256 == expected.sha256
    assert [bundle.load(member.uri).sha256 for member in found.members] == [
        member.sha256 for member in expected.members
    ]


def test_a_file_that_was_replaced_is_refused_like_any_bundles(server, tmp_path):
    save(tmp_path / "v0")
    (tmp_path / "v0" / bundle.WEIGHTS).write_bytes(b"others")
    server.folders.append(tmp_path / "v0")
    with pytest.raises(MismatchError, match=r"wandb://ward/bones/hand:v0/weights.safetensors has SHA-256"):
        bundle.load(model_places(PLACE)[0])


def test_a_reference_to_another_place_is_not_followed(server, tmp_path):
    save(tmp_path / "v0")
    server.folders.append(tmp_path / "v0")
    server.refs[bundle.WEIGHTS] = "file:///etc/passwd"
    with pytest.raises(UsageError, match=r"weights.safetensors is a reference to another place"):
        bundle.load(model_places(PLACE)[0])
    assert server.downloads == 0


@pytest.mark.parametrize(
    ("place", "error", "said"),
    [
        ("wandb://ward/bones/hand", UsageError, "wandb://ENTITY/PROJECT/NAME:ALIAS is needed"),
        ("wandb://ward/../hand:latest", UsageError, "wandb://ENTITY/PROJECT/NAME:ALIAS is needed"),
        ("wandb://ward/bones/foot:v0", StorageError, "was not fetched: .*not found.*is WANDB_API_KEY set"),
    ],
)
def test_a_place_that_is_none_is_refused_with_the_fix(server, place, error, said):
    with pytest.raises(error, match=said):
        model_places(place)


def test_nodes_fetch_it_for_themselves_and_are_asked_for_no_shared_place(server, tmp_path):
    save(tmp_path / "v0")
    server.folders.append(tmp_path / "v0")
    other = tmp_path / "other"
    save(other, seed=1)
    place = builtin.place_of("wandb://ward/bones/hand:latest")
    assert read_places(resolve([place, str(other)])) == [("--model", str(other))]
