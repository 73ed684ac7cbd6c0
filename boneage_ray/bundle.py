"""The model bundle on disk or S3: weights, recipe, metrics and a model card, all hashed, none pickled.

`MODEL/weights.safetensors recipe.json calibration.json metrics.json MODEL_CARD.md`, for a recipe with a blend also `trees.json`
(XGBoost's own format), for one with a gate by pixels `gate.json` (models/pixel_gate.py), of a training `learnt.json` (by what the
pictures that it learnt from are known again), and `manifest.json` with the SHA-256 of each. The manifest is written last; without
it a folder is not a bundle. `model_sha256` is the hash of the manifest.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from boneage_ray import __version__, builtin, storage
from boneage_ray.errors import MismatchError, StorageError, UsageError
from boneage_ray.model_card import trained_card

if TYPE_CHECKING:  # torch is imported with the weights: a driver that only compares hashes starts four seconds sooner
    from torch import Tensor

    from boneage_ray.recipes.recipe import Recipe

WEIGHTS, RECIPE, CALIBRATION, METRICS, CARD = (
    "weights.safetensors",
    "recipe.json",
    "calibration.json",
    "metrics.json",
    "MODEL_CARD.md",
)
FILES = (WEIGHTS, RECIPE, CALIBRATION, METRICS, CARD)
TREES, GATE, LEARNT = "trees.json", "gate.json", "learnt.json"
OPTIONAL = (TREES, GATE, LEARNT)
MANIFEST = "manifest.json"
HASH = re.compile("[0-9a-f]{64}")
_OF_WEIGHTS = "weights_sha256"  # of a calibration: of which weights it is


class Extras(NamedTuple):
    """Further contents: the text of the model card, the calibration (tasks/age/intervals.py), the gate by pixels.

    `learnt`: marks of the training pictures (datasets/balance.py).
    """

    card: str | None = None
    calibration: dict[str, Any] | None = None
    gate: dict[str, Any] | None = None
    learnt: list[str] | None = None


@dataclass(frozen=True)
class Bundle:
    """A loaded and verified bundle."""

    recipe: Recipe
    weights: dict[str, Tensor]
    metrics: dict[str, Any]
    calibration: dict[str, Any]
    sha256: str
    trees: bytes | None = None  # read by models/boosted_trees.py
    gate: dict[str, Any] | None = None  # read by models/pixel_gate.py


def save(
    uri: str,
    recipe: Recipe,
    weights: dict[str, Tensor],
    metrics: dict[str, Any],
    trees: bytes | None = None,
    extras: Extras = Extras(),
) -> str:
    """Write a bundle and return its `model_sha256`. Raises `UsageError` unless `trees` and the recipe's blend go together.

    `extras` replace the model card that a training writes, and its bundle's want of a calibration.
    """
    from safetensors.torch import save as save_safetensors

    if recipe.blend is None and trees is not None:
        raise UsageError(f"recipe {recipe.name} has no blend, but trees were given")
    if recipe.blend is not None and trees is None:
        raise UsageError(f"recipe {recipe.name} has a blend, but its trees are missing")
    state = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    data = save_safetensors(state)
    contents = {
        WEIGHTS: data,
        RECIPE: _json(recipe.model_dump(mode="json")),
        CALIBRATION: _calibration(extras.calibration, _sha256(data)),
        METRICS: _json(metrics),
        CARD: (extras.card or trained_card(recipe, metrics, extras.calibration or {}, extras.gate)).encode(),
    }
    if trees is not None:
        contents[TREES] = trees
    if extras.gate is not None:
        contents[GATE] = _json(extras.gate)
    if extras.learnt is not None:
        contents[LEARNT] = _json({"pixel_sha256_starts": extras.learnt})
    return _write(uri, contents, {})


def recalibrate(uri: str, out: str, calibration: dict[str, Any], chapter: str) -> str:
    """Write a copy of a bundle with another calibration and a further chapter of its model card; returns its `model_sha256`.

    Its manifest names the site of the calibration, and the bundle that it was made from.
    """
    manifest, sha256 = read_manifest(uri)
    hashes = manifest["sha256"]
    contents = {name: verified(uri, name, hashes[name]) for name in (*FILES, *OPTIONAL) if name in hashes}
    contents[CALIBRATION] = _calibration(calibration, hashes[WEIGHTS])
    contents[CARD] = contents[CARD].rstrip() + f"\n\n{chapter}".encode()
    return _write(out, contents, {"site": calibration["site"], "calibrated_from": sha256})


def replace_card(uri: str, manifest: dict[str, Any], card: str) -> str:
    """Exchange the model card of a bundle, and its hash in the manifest; returns the new `model_sha256`."""
    data = card.encode()
    storage.write_bytes(storage.join(uri, CARD), data)
    changed = _json(manifest | {"sha256": manifest["sha256"] | {CARD: _sha256(data)}})
    storage.write_bytes(storage.join(uri, MANIFEST), changed)
    return _sha256(changed)


def _write(uri: str, contents: dict[str, bytes], more: dict[str, Any]) -> str:
    """All files of a bundle, its manifest last."""
    for name, data in contents.items():
        storage.write_bytes(storage.join(uri, name), data)
    hashes = {name: _sha256(data) for name, data in contents.items()}
    manifest = _json({"kind": "boneage-ray model", "package_version": __version__, "sha256": hashes} | more)
    storage.write_bytes(storage.join(uri, MANIFEST), manifest)
    return _sha256(manifest)


def _calibration(values: dict[str, Any] | None, weights_sha256: str) -> bytes:
    if not values or not values["calibrated"]:
        return _json({"calibrated": False})
    return _json(values | {_OF_WEIGHTS: weights_sha256})


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def load(uri: str) -> Bundle:
    """Read and verify a bundle. Raises `UsageError` if it is not a bundle, `MismatchError` if a hash is wrong."""
    from safetensors import SafetensorError
    from safetensors.torch import load as load_safetensors

    from boneage_ray.recipes.recipe import build_recipe

    manifest, sha256 = read_manifest(uri)
    hashes = manifest["sha256"]
    contents = {name: verified(uri, name, hashes[name]) for name in FILES}
    try:
        weights = load_safetensors(contents[WEIGHTS])
    except SafetensorError as error:
        raise UsageError(f"{uri}/{WEIGHTS} is not a safetensors file: {error}") from None
    values = {name: read_object(uri, name, contents[name]) for name in (RECIPE, METRICS, CALIBRATION)}
    if values[CALIBRATION].get(_OF_WEIGHTS, hashes[WEIGHTS]) != hashes[WEIGHTS]:
        raise MismatchError(
            f"{uri}/{CALIBRATION} is of another model's weights; `boneage calibrate` makes one of these"
        )
    recipe = build_recipe(values[RECIPE], f"{uri}/{RECIPE}")
    trees = _trees(uri, hashes) if recipe.blend is not None else None
    gate = _gate(uri, hashes)
    return Bundle(recipe, _whole_precision(weights), values[METRICS], values[CALIBRATION], sha256, trees, gate)


def _whole_precision(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights that are stored in half precision, as built-in models' are, in single precision; all others as they are."""
    import torch

    return {name: value.float() if value.dtype == torch.float16 else value for name, value in weights.items()}


def read_manifest(uri: str) -> tuple[dict[str, Any], str]:
    """The manifest and the `model_sha256` of a bundle, without reading its weights.

    Raises `UsageError` if it is not a manifest, `MismatchError` unless it lists exactly the files of a bundle with their hashes.
    """
    try:
        data = storage.read_bytes(storage.join(builtin.folder_of(uri), MANIFEST))
    except StorageError as error:
        if error.reason != "not_found":
            raise
        raise UsageError(f"{uri} holds no model bundle ({MANIFEST} is missing); `boneage train` writes one") from None
    try:
        manifest: dict[str, Any] = json.loads(data)
        hashes = dict(manifest["sha256"].items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"{uri}/{MANIFEST} is not the manifest of a model bundle") from None
    if missing := set(FILES) - set(hashes):
        raise MismatchError(f"{uri}/{MANIFEST} does not list {', '.join(sorted(missing))}")
    if foreign := sorted(set(hashes) - {*FILES, *OPTIONAL}):
        raise MismatchError(f"{uri}/{MANIFEST} lists {foreign[0]!r}, which is not a file of a bundle")
    if broken := [name for name, digest in hashes.items() if not (isinstance(digest, str) and HASH.fullmatch(digest))]:
        raise MismatchError(f"{uri}/{MANIFEST} has no SHA-256 for {', '.join(sorted(broken))}")
    return manifest, hashlib.sha256(data).hexdigest()


def read_object(uri: str, name: str, data: bytes) -> dict[str, Any]:
    """The JSON object in a bundle's file. Raises `UsageError` if it holds anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UsageError(f"{uri}/{name} does not hold a JSON object")
    return value


def _trees(uri: str, hashes: dict[str, str]) -> bytes:
    if TREES not in hashes:
        raise MismatchError(f"{uri}/{MANIFEST} does not list {TREES}")
    return verified(uri, TREES, hashes[TREES])


def _gate(uri: str, hashes: dict[str, str]) -> dict[str, Any] | None:
    return read_object(uri, GATE, verified(uri, GATE, hashes[GATE])) if GATE in hashes else None


def learnt_marks(uri: str) -> list[str] | None:
    """Marks of the pictures that a bundle learnt from (datasets/balance.py); None for one that does not tell."""
    hashes = read_manifest(uri)[0]["sha256"]
    if LEARNT not in hashes:
        return None
    marks = read_object(uri, LEARNT, verified(uri, LEARNT, hashes[LEARNT])).get("pixel_sha256_starts")
    if not isinstance(marks, list):
        raise UsageError(f"{uri}/{LEARNT} has no list `pixel_sha256_starts`")
    return marks


def verified(uri: str, name: str, expected: str) -> bytes:
    """The bytes of a bundle's file. Raises `MismatchError` unless they have the SHA-256 of the manifest."""
    data = storage.read_bytes(storage.join(builtin.folder_of(uri), name))
    digest = hashlib.sha256(data).hexdigest()
    if digest != expected:
        raise MismatchError(
            f"{uri}/{name} has SHA-256 {digest[:12]}..., its manifest says {expected[:12]}...: damaged or replaced"
        )
    return data


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()
