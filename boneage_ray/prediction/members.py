"""What `--model` names: one bundle, several bundles, or an ensemble bundle. No torch: commands that only compare hashes ask here.

An ensemble bundle is a folder of whole bundles and a manifest, written last, that lists their hashes::

    MODEL/members/0/...   MODEL/members/1/...   MODEL/manifest.json
    {"kind": "boneage-ray ensemble", "name": "deep-ensemble", "summary": "...",
     "members": [{"folder": "members/0", "model_sha256": "9f0c..."}, ...],
     "calibration": {...}}    where `boneage calibrate` has made one, as calibration.json of a single bundle

The order in which members are named never matters: they are put into an order of their own (recipe name, then hash), and the
`model_sha256` of several is the hash of their sorted hashes, whether they came by flags or as an ensemble bundle.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from boneage_ray import __version__, artifacts, builtin, bundle, storage
from boneage_ray.errors import MismatchError, StorageError, UsageError
from boneage_ray.preparation.prepare import AS_THE_RECIPE_SAYS, ImageConfig, Reading
from boneage_ray.recipes.recipe import Recipe, build_recipe

KIND = "boneage-ray ensemble"
_FOLDER = re.compile(r"members/\d+")


@dataclass(frozen=True)
class Member:
    """One bundle: where it is, what it must be when it is loaded, and a name that no other member has."""

    uri: str
    name: str
    sha256: str
    recipe: Recipe
    metrics: dict[str, Any]
    calibration: dict[str, Any]


@dataclass(frozen=True)
class Models:
    """The members that are scored as one, in their own order; `name` and `sha256` are those of the result rows.

    `calibration`: that of the single member, or of the ensemble as a whole; {} where there is none.
    """

    name: str
    summary: str
    sha256: str
    members: tuple[Member, ...]
    calibration: dict[str, Any] = field(default_factory=dict)

    @property
    def images(self) -> tuple[ImageConfig, ...]:
        """The distinct image configs of the members, in their order."""
        return tuple(dict.fromkeys(member.recipe.image for member in self.members))

    @property
    def site(self) -> str | None:
        """The site that the model was calibrated for (`boneage calibrate`); of several, the sites of its members."""
        held = [self.calibration, *(member.calibration for member in self.members)]
        return ", ".join(dict.fromkeys(each["site"] for each in held if each.get("site"))) or None

    @property
    def recipe(self) -> Recipe:
        """The recipe that decides the task: of the first member, as all members have the same task."""
        return self.members[0].recipe

    def scored_images(self, reading: Reading = AS_THE_RECIPE_SAYS) -> tuple[ImageConfig, ...]:
        """`images` as files are scored: of the region of the task; a model that predicts masks needs none."""
        kind = self.recipe.task_kind
        images = (reading.of(image).expecting(kind.region) for image in self.images)
        return tuple(image.model_copy(update={"mask": "none"}) if kind.learns_masks else image for image in images)


def resolve(uris: Sequence[str], expected: str | None = None) -> Models:
    """The models behind one or several places. Reads manifests, recipes and metrics, and verifies these.

    `expected`: the `model_sha256` that a command began with, for a worker that resolves the same places again. Raises
    `UsageError` for a place that holds no bundle, a model given twice, and members that are no age regressors; `MismatchError`
    when a hash is wrong.
    """
    found = _resolve(uris)
    if expected not in (None, found.sha256):
        if any(uri.startswith(builtin.SCHEME) for uri in uris):
            raise MismatchError(
                f"the built-in model {' '.join(map(builtin.as_typed, uris))} of this node (boneage-ray {__version__}) is another "
                "than the one that the command began with: install the same version on every node"
            )
        raise MismatchError(f"{' '.join(uris)} was replaced while it was in use; give the command again")
    return found


def _resolve(uris: Sequence[str]) -> Models:
    if len(uris) == 1:
        (uri,) = uris
        manifest = _ensemble_manifest(uri)
        if manifest is None:
            return _one(_member(uri))
        found = [_listed(uri, entry) for entry in manifest["members"]]
        return several(found, manifest["name"], manifest["summary"], manifest.get("calibration"))
    for uri in uris:
        if _ensemble_manifest(uri) is not None:
            raise UsageError(
                f"--model {uri} is an ensemble, which cannot be a member of another: name its members singly"
            )
    return several([_member(uri) for uri in uris])


def several(
    members: Sequence[Member], name: str = "", summary: str = "", calibration: dict[str, Any] | None = None
) -> Models:
    """Two or more members as one, in canonical order; `name`: theirs, joined by +, unless given. Raises `UsageError`."""
    _check(members)
    recipes = [member.recipe.name for member in members]
    named = [
        member if recipes.count(member.recipe.name) == 1 else replace(member, name=f"{member.name}-{member.sha256[:8]}")
        for member in sorted(members, key=lambda member: (member.recipe.name, member.sha256))
    ]
    names = "+".join(member.name for member in named)
    digest = hashlib.sha256("\n".join(sorted(member.sha256 for member in named)).encode()).hexdigest()
    if calibration:
        digest = hashlib.sha256(f"{digest}\n{json.dumps(calibration, sort_keys=True)}".encode()).hexdigest()
    return Models(name or names, summary or f"the mean of {names}", digest, tuple(named), calibration or {})


def read_places(models: Models) -> list[tuple[str, str]]:
    """(flag, URI) of the members that every node reads from storage.

    Built-in ones come with its installation, and those in wandb each node fetches for itself; both are verified by their hash.
    """
    own = (builtin.SCHEME, artifacts.SCHEME)
    return [("--model", member.uri) for member in models.members if not member.uri.startswith(own)]


def save_ensemble(
    out: str, name: str, summary: str, folders: Sequence[str], calibration: dict[str, Any] | None = None
) -> Models:
    """Write OUT/manifest.json over members that stand below OUT already. Raises as `resolve` does."""
    members = [_member(storage.join(out, folder)) for folder in folders]
    models = several(members, name, summary, calibration)
    entries = [
        {"folder": folder, "model_sha256": member.sha256} for folder, member in zip(folders, members, strict=True)
    ]
    manifest = {"kind": KIND, "package_version": __version__, "name": name, "summary": summary, "members": entries}
    storage.write_json(
        storage.join(out, bundle.MANIFEST), manifest | ({"calibration": calibration} if calibration else {})
    )
    return models


def copy_members(models: Models, out: str) -> list[str]:
    """Copy every member whole to OUT/members/0, /1 ..., its manifest last; returns the folders. Raises `MismatchError`."""
    folders = [member_folder(k) for k in range(len(models.members))]
    for folder, member in zip(folders, models.members, strict=True):
        manifest, _ = bundle.read_manifest(member.uri)
        held = manifest["sha256"]
        for file in (name for name in (*bundle.FILES, *bundle.OPTIONAL) if name in held):  # no name that is not ours
            storage.write_bytes(storage.join(out, folder, file), bundle.verified(member.uri, file, held[file]))
        data = bundle.verified(member.uri, bundle.MANIFEST, member.sha256)
        storage.write_bytes(storage.join(out, folder, bundle.MANIFEST), data)
    return folders


def member_folder(number: int) -> str:
    """Where member `number` of an ensemble bundle stands, below it."""
    return f"members/{number}"


def _one(member: Member) -> Models:
    return Models(member.name, member.recipe.summary, member.sha256, (member,), member.calibration)


def _member(uri: str) -> Member:
    manifest, sha256 = bundle.read_manifest(uri)
    recipe, metrics, calibration = (
        bundle.read_object(uri, file, bundle.verified(uri, file, manifest["sha256"][file]))
        for file in (bundle.RECIPE, bundle.METRICS, bundle.CALIBRATION)
    )
    built = build_recipe(recipe, f"{uri}/{bundle.RECIPE}")
    return Member(uri, built.name, sha256, built, metrics, calibration)


def _listed(uri: str, entry: dict[str, str]) -> Member:
    """A member of an ensemble bundle, if it is still the one that was put there."""
    member = _member(storage.join(uri, entry["folder"]))
    if member.sha256 != entry["model_sha256"]:
        raise MismatchError(
            f"{member.uri} is model {member.sha256[:12]}..., the manifest of the ensemble {uri} says "
            f"{entry['model_sha256'][:12]}...: damaged or replaced"
        )
    return member


def _check(members: Sequence[Member]) -> None:
    seen: dict[str, str] = {}
    for member in members:
        if not member.recipe.task_kind.joins:
            raise UsageError(
                f"--model {member.uri} is a {member.recipe.model.kind} ({member.recipe.name}); "
                "only age regressors are scored together: give it alone"
            )
        if member.sha256 in seen:
            raise UsageError(f"--model {member.uri} is the same model as {seen[member.sha256]}; give each once")
        seen[member.sha256] = member.uri
    if len(members) < 2:
        raise UsageError("an ensemble needs two models or more")


def _ensemble_manifest(uri: str) -> dict[str, Any] | None:
    """The manifest of an ensemble bundle; None where there is another one or none, which bundle.read_manifest reports."""
    try:
        manifest = json.loads(storage.read_bytes(storage.join(builtin.folder_of(uri), bundle.MANIFEST)))
    except (StorageError, ValueError, RecursionError):
        return None
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        return None
    try:
        whole = bool(manifest["name"]) and all(isinstance(manifest[key], str) for key in ("name", "summary"))
        whole &= all(
            _FOLDER.fullmatch(entry["folder"]) and bundle.HASH.fullmatch(entry["model_sha256"])
            for entry in manifest["members"]
        )
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise MismatchError(f"{uri}/{bundle.MANIFEST} is not a whole manifest of an ensemble")
    return manifest
