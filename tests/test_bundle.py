"""The model bundle: whole, verified, never a pickle."""

from __future__ import annotations

import hashlib
import json
import pickle

import pytest
import torch

from boneage_ray import bundle
from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.models.regressor import Regressor
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override

RECIPE = override(find_recipe("demo"), ["image.size=64", "name=tiny", "model.backbone.name=test_resnet"])
METRICS = {"val_mae_months": 12.5, "history": [{"epoch": 1, "val_loss": None}]}


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return Regressor(RECIPE.model).state_dict()


@pytest.fixture
def saved(tmp_path, weights):
    """(folder, model_sha256) of a bundle."""
    return tmp_path / "model", bundle.save(str(tmp_path / "model"), RECIPE, weights, METRICS)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_bundle_comes_back_as_it_was_saved(saved, weights):
    folder, sha256 = saved
    loaded = bundle.load(str(folder))
    assert (loaded.recipe, loaded.metrics, loaded.sha256) == (RECIPE, METRICS, sha256)
    assert loaded.calibration == {"calibrated": False}
    assert same(loaded.weights, weights)


def test_a_bundle_comes_back_from_s3(s3_bucket, weights):
    sha256 = bundle.save(f"{s3_bucket}/model", RECIPE, weights, METRICS)
    loaded = bundle.load(f"{s3_bucket}/model")
    assert (loaded.sha256, loaded.recipe) == (sha256, RECIPE)
    assert same(loaded.weights, weights)


def test_its_files_are_those_of_the_interface_with_their_hashes(saved):
    folder, sha256 = saved
    names = ["MODEL_CARD.md", "calibration.json", "manifest.json", "metrics.json", "recipe.json", "weights.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names
    manifest = json.loads((folder / "manifest.json").read_text())
    hashes = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names if n != "manifest.json"}
    assert manifest["sha256"] == hashes
    assert sha256 == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert bundle.read_manifest(str(folder)) == (manifest, sha256)


def test_equal_content_has_equal_hashes(saved, tmp_path, weights):
    assert bundle.save(str(tmp_path / "again"), RECIPE, weights, METRICS) == saved[1]
    assert bundle.save(str(tmp_path / "other"), RECIPE, weights, {"val_mae_months": 12.6}) != saved[1]


def test_the_card_describes_the_model(saved):
    text = (saved[0] / "MODEL_CARD.md").read_text()
    assert text.startswith("# tiny\n")
    for line in ("For research, not a medical device.", "| mean absolute error | 12.5 months |", "size = 64"):
        assert line in text


@pytest.mark.parametrize("name", bundle.FILES)
def test_a_damaged_or_replaced_file_is_refused(saved, name):
    folder, _ = saved
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(MismatchError, match=f"{name} has SHA-256 .*: damaged or replaced"):
        bundle.load(str(folder))


@pytest.mark.parametrize("name", bundle.FILES)
def test_a_lost_file_is_named(saved, name):
    folder, _ = saved
    (folder / name).unlink()
    with pytest.raises(UsageError, match=name):
        bundle.load(str(folder))


def test_a_bundle_without_its_manifest_is_none(saved):
    folder, _ = saved
    (folder / "manifest.json").unlink()
    with pytest.raises(
        UsageError, match=r"holds no model bundle \(manifest.json is missing\); `boneage train` writes one"
    ):
        bundle.load(str(folder))


@pytest.mark.parametrize("digests", ["3", "null", '["weights.safetensors"]'])
def test_a_manifest_without_named_hashes_is_none_of_a_bundle(saved, digests):
    (saved[0] / "manifest.json").write_text(f'{{"sha256": {digests}}}')
    with pytest.raises(UsageError, match=r"manifest.json is not the manifest of a model bundle"):
        bundle.load(str(saved[0]))


@pytest.mark.parametrize("text", ["", "[]", "{}", "not json", '{"sha256": 3}', '{"kind": "boneage-ray data"}'])
def test_another_manifest_is_not_taken_for_a_bundles(saved, text):
    folder, _ = saved
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UsageError, match=r"manifest.json is not the manifest of a model bundle"):
        bundle.load(str(folder))


def test_a_manifest_must_list_every_file(saved):
    folder, _ = saved
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]["weights.safetensors"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(MismatchError, match=r"does not list weights.safetensors"):
        bundle.load(str(folder))


def claims(folder, **hashes):
    """Change hashes in the manifest, or add some."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"] |= hashes
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["../../payload.txt", "/etc/passwd", "more.json", "manifest.json"])
def test_a_manifest_lists_no_other_file(saved, name):
    claims(saved[0], **{name: "0" * 64})
    with pytest.raises(MismatchError, match=f"lists '{name}', which is not a file of a bundle"):
        bundle.read_manifest(str(saved[0]))


@pytest.mark.parametrize("digest", [5, int("1" * 64), None, ["0" * 64], "0" * 63, "../x"])
def test_what_is_no_hash_is_refused(saved, digest):
    claims(saved[0], **{"recipe.json": digest})
    with pytest.raises(MismatchError, match=r"manifest.json has no SHA-256 for recipe.json"):
        bundle.load(str(saved[0]))


@pytest.mark.parametrize("name", ["recipe.json", "metrics.json", "calibration.json"])
@pytest.mark.parametrize("data", [b"[]", b"no json", b"[" * 100_000])
def test_a_listed_file_that_is_no_object_is_refused(saved, name, data):
    (saved[0] / name).write_bytes(data)
    claims(saved[0], **{name: hashlib.sha256(data).hexdigest()})
    with pytest.raises(UsageError, match=f"{name} does not hold a JSON object"):
        bundle.load(str(saved[0]))


BLENDED = RECIPE.derive(name="tiny-blend", blend={"rounds": 3})
TREES = b'{"learner": {}}'


def test_a_recipe_with_a_blend_has_its_trees_in_the_bundle_and_hashed(tmp_path, weights):
    sha256 = bundle.save(str(tmp_path), BLENDED, weights, METRICS, TREES)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert set(manifest["sha256"]) == {*bundle.FILES, "trees.json"}
    assert manifest["sha256"]["trees.json"] == hashlib.sha256(TREES).hexdigest()
    loaded = bundle.load(str(tmp_path))
    assert (loaded.recipe, loaded.trees, loaded.sha256) == (BLENDED, TREES, sha256)
    assert bundle.save(str(tmp_path), BLENDED, weights, METRICS, TREES + b" ") != sha256


def test_a_bundle_without_a_blend_has_no_trees(saved):
    assert bundle.load(str(saved[0])).trees is None


def test_trees_and_blend_go_together(tmp_path, weights):
    with pytest.raises(UsageError, match=r"recipe tiny-blend has a blend, but its trees are missing"):
        bundle.save(str(tmp_path / "a"), BLENDED, weights, METRICS)
    with pytest.raises(UsageError, match=r"recipe tiny has no blend, but trees were given"):
        bundle.save(str(tmp_path / "b"), RECIPE, weights, METRICS, TREES)
    assert not any(tmp_path.iterdir())


def test_a_manifest_must_list_the_trees(tmp_path, weights):
    bundle.save(str(tmp_path), BLENDED, weights, METRICS, TREES)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["sha256"]["trees.json"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(MismatchError, match=r"does not list trees.json"):
        bundle.load(str(tmp_path))


def test_damaged_or_lost_trees_are_named(tmp_path, weights):
    bundle.save(str(tmp_path), BLENDED, weights, METRICS, TREES)
    (tmp_path / "trees.json").write_bytes(TREES[:-1])
    with pytest.raises(MismatchError, match=r"trees.json has SHA-256 .*: damaged or replaced"):
        bundle.load(str(tmp_path))
    (tmp_path / "trees.json").unlink()
    with pytest.raises(UsageError, match=r"trees.json"):
        bundle.load(str(tmp_path))


def test_the_card_describes_the_blend(tmp_path, weights):
    blend = {"val_mae_months": {"cnn": 12.5, "trees": 13.25, "blend": 12.0}, "note": "Only the test split counts."}
    bundle.save(str(tmp_path), BLENDED, weights, METRICS | {"blend": blend}, TREES)
    text = (tmp_path / "MODEL_CARD.md").read_text()
    assert "Only the test split counts." in text
    assert "| cnn | 12.5 months |\n| trees | 13.2 months |\n| blend | 12.0 months |" in text


class Bomb:
    """Unpickling it would write a file."""

    def __reduce__(self):
        return exec, ("open('exploded', 'w').close()",)


def test_pickled_weights_are_never_unpickled(saved, tmp_path, monkeypatch):
    folder, _ = saved
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(Bomb())
    (folder / "weights.safetensors").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["weights.safetensors"] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match=r"weights.safetensors is not a safetensors file"):
        bundle.load(str(folder))
    assert not (tmp_path / "exploded").exists()


def test_a_recipe_of_another_version_names_the_field(saved):
    folder, _ = saved
    values = json.loads((folder / "recipe.json").read_text()) | {"ensemble": 3}
    data = json.dumps(values).encode()
    (folder / "recipe.json").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["recipe.json"] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match=r"recipe.json: unknown key ensemble"):
        bundle.load(str(folder))
