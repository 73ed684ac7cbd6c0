"""Which models a command line names: in which order never matters, and a wrong one is told."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import torch

from boneage_ray import bundle, storage
from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.models.regressor import Regressor
from boneage_ray.prediction import members
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.tasks.age.ensemble import voted_schemes

TINY = ["image.size=64", "model.backbone.name=test_resnet"]
RECIPE = override(find_recipe("demo"), TINY)


def save(folder, recipe=RECIPE, seed=0):
    torch.manual_seed(seed)
    bundle.save(str(folder), recipe, Regressor(recipe.model).state_dict(), {"val_mae_months": 10.0 + seed})
    return str(folder)


def heads(models):
    return voted_schemes([member.recipe.model for member in models.members])


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Two demo bundles of other seeds, and one of another name, image config and without stage head."""
    root = tmp_path_factory.mktemp("models")
    other = RECIPE.derive(name="alone", image={"size": 48}, model={"stage_heads": ()})
    return [save(root / "a"), save(root / "b", seed=1), save(root / "c", other, 2)]


def hashes(uris):
    return sorted(bundle.read_manifest(uri)[1] for uri in uris)


def test_one_model_is_that_model(three):
    models = members.resolve(three[:1])
    assert (models.name, models.sha256) == ("demo", hashes(three[:1])[0])
    assert (models.images, heads(models)) == ((RECIPE.image,), ("three",))
    assert models.members[0].metrics == {"val_mae_months": 10.0}


def test_the_order_of_the_flags_does_not_matter(three):
    there, back = members.resolve(three), members.resolve(three[::-1])
    assert there == back
    assert there.sha256 == hashlib.sha256("\n".join(hashes(three)).encode()).hexdigest()
    assert there.sha256 != members.resolve(three[:2]).sha256


def test_members_of_one_recipe_are_told_apart_by_their_hash_and_names_are_joined(three):
    models = members.resolve(three)
    first, second = hashes(three[:2])
    assert [member.name for member in models.members] == ["alone", f"demo-{first[:8]}", f"demo-{second[:8]}"]
    assert models.name == f"alone+demo-{first[:8]}+demo-{second[:8]}"


def test_distinct_images_and_common_heads(three):
    models = members.resolve(three)
    assert [image.size for image in models.images] == [48, 64]
    assert heads(models) == ()
    assert heads(members.resolve(three[:2])) == ("three",)


def test_a_model_given_twice_is_refused_also_as_a_copy(three, tmp_path):
    copy = shutil.copytree(three[0], tmp_path / "copy")
    for again in (three[0], str(copy)):
        with pytest.raises(UsageError, match=r"is the same model as .*give each once"):
            members.resolve([three[0], three[1], again])


def test_members_agree_in_kind(three, tmp_path):
    folder = tmp_path / "mask"
    shutil.copytree(three[0], folder)
    recipe = find_recipe("hand-mask").derive(name="hands").model_dump(mode="json")
    rehash(folder, "recipe.json", json.dumps(recipe).encode())
    with pytest.raises(UsageError, match=r"is a hand-mask \(hands\); only age regressors are scored together"):
        members.resolve([three[0], str(folder)])


def rehash(folder, name, data):
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"][name] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_name_that_leads_out_of_a_bundle_is_refused_and_never_copied(three, tmp_path, monkeypatch):
    (tmp_path / "payload.txt").write_text("payload")
    folder = shutil.copytree(three[0], tmp_path / "a" / "b")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["../../payload.txt"] = hashlib.sha256(b"payload").hexdigest()
    alone = members.resolve([str(folder)])
    with monkeypatch.context() as patched:
        patched.setattr(bundle, "read_manifest", lambda uri: (manifest, alone.sha256))
        members.copy_members(alone, str(tmp_path / "out" / "e"))
    copied = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert copied == {*bundle.FILES, bundle.MANIFEST}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(MismatchError, match=r"payload.txt', which is not a file of a bundle"):
        members.resolve([three[1], str(folder)])


def test_what_is_no_bundle_is_told(tmp_path, three):
    with pytest.raises(UsageError, match="holds no model bundle"):
        members.resolve([str(tmp_path)])
    with pytest.raises(UsageError, match="holds no model bundle"):
        members.resolve([three[0], str(tmp_path)])


@pytest.fixture
def joined(three, tmp_path):
    """An ensemble bundle of all three."""
    out = str(tmp_path / "joined")
    folders = members.copy_members(members.resolve(three), out)
    members.save_ensemble(out, "mine", "three of them", folders)
    return out


def test_an_ensemble_bundle_is_the_same_model_as_its_members_by_flags(joined, three):
    models, flags = members.resolve([joined]), members.resolve(three)
    assert (models.name, models.summary, models.sha256) == ("mine", "three of them", flags.sha256)
    assert [member.name for member in models.members] == [member.name for member in flags.members]
    assert all(member.uri.startswith(joined) for member in models.members)
    assert [bundle.load(member.uri).sha256 for member in models.members] == [m.sha256 for m in flags.members]


def test_an_exchanged_member_is_refused(joined, three):
    place = f"{joined}/members/1"
    shutil.rmtree(place)
    taken = next(uri for uri in three if bundle.read_manifest(uri)[1] == members.resolve(three).members[0].sha256)
    shutil.copytree(taken, place)
    with pytest.raises(MismatchError, match=r"members/1 is model .* the manifest of the ensemble .*replaced"):
        members.resolve([joined])


def test_a_lost_or_damaged_member_is_refused(joined):
    storage.write_text(f"{joined}/members/0/recipe.json", "{}")
    with pytest.raises(MismatchError, match=r"members/0/recipe.json has SHA-256"):
        members.resolve([joined])
    shutil.rmtree(f"{joined}/members/2")
    with pytest.raises((UsageError, MismatchError), match=r"members/[02]"):
        members.resolve([joined])


@pytest.mark.parametrize(
    "change",
    [
        {"members": 3},
        {"members": [{"folder": "../a", "model_sha256": "1" * 64}]},
        {"members": [{"folder": "members/0", "model_sha256": 5}]},
        {"name": ""},
        {"name": ["a"]},
    ],
)
def test_a_manifest_that_is_not_whole_is_refused(joined, change):
    manifest = storage.read_json(f"{joined}/manifest.json") | change
    storage.write_json(f"{joined}/manifest.json", manifest)
    with pytest.raises(MismatchError, match="not a whole manifest of an ensemble"):
        members.resolve([joined])


def test_an_ensemble_is_no_member_of_another(joined, three):
    with pytest.raises(UsageError, match="name its members singly"):
        members.resolve([joined, three[0]])


def test_a_damaged_file_is_not_copied(three, tmp_path):
    damaged = shutil.copytree(three[0], tmp_path / "damaged")
    (damaged / "weights.safetensors").write_bytes(b"x")
    models = members.resolve([str(damaged), three[1]])
    with pytest.raises(MismatchError, match=r"weights.safetensors has SHA-256"):
        members.copy_members(models, str(tmp_path / "out"))
    assert not (tmp_path / "out" / "manifest.json").exists()
