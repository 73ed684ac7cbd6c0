"""Model bundles that wandb keeps: `--model wandb://ENTITY/PROJECT/NAME:ALIAS`, wherever a bundle is named.

A command pins the alias to a version once and hands that on; every node fetches the version for itself, into a cache of its own.
Only files of a bundle are taken, by their names, and none that lies elsewhere; their hashes are verified as those of any bundle.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from boneage_ray.errors import StorageError, UsageError

SCHEME = "wandb://"
_PLACE = re.compile(r"wandb://([\w-][\w.-]*)/([\w-][\w.-]*)/([\w-][\w.-]*):([\w-][\w.-]*)(?:/(.*))?", re.ASCII)
_OF_A_BUNDLE = re.compile(
    r"(members/\d+/)?(manifest\.json|weights\.safetensors|recipe\.json|calibration\.json|metrics\.json|MODEL_CARD\.md|trees\.json)"
)


class ArtifactName(NamedTuple):
    """The parts of a place; `rest` is what follows the version, such as members/0."""

    entity: str
    project: str
    name: str
    alias: str
    rest: str

    @property
    def path(self) -> str:
        """As wandb writes it."""
        return f"{self.entity}/{self.project}/{self.name}:{self.alias}"


def parse_artifact(place: str) -> ArtifactName:
    """The parts of `wandb://ENTITY/PROJECT/NAME:ALIAS`. Raises `UsageError` for anything else."""
    match = _PLACE.fullmatch(place)
    if match is None:
        raise UsageError(
            f"--model {place}: wandb://ENTITY/PROJECT/NAME:ALIAS is needed, such as wandb://ward/bones/hand:latest"
        )
    return ArtifactName(*match.groups(default=""))


def pinned(place: str) -> str:
    """The same with the version that the alias means now: every node then takes this one."""
    name = parse_artifact(place)
    version = str(_artifact(name).version)
    return f"{SCHEME}{name.entity}/{name.project}/{name.name}:{version}"


def fetched(place: str) -> str:
    """The folder of this machine where a version stands, or a part of it, once it is fetched. Raises `StorageError`."""
    name = parse_artifact(place)
    folder = _cache() / name.entity / name.project / name.name / name.alias
    if not folder.exists():
        _fetch(name, folder)
    return str(folder / name.rest) if name.rest else str(folder)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "boneage-ray" / "wandb"


def _fetch(name: ArtifactName, folder: Path) -> None:
    """Fetch beside the folder, then rename: other processes see the whole or nothing."""
    artifact = _artifact(name)
    wanted = {path: entry for path, entry in artifact.manifest.entries.items() if _OF_A_BUNDLE.fullmatch(path)}
    if outside := [path for path, entry in wanted.items() if entry.ref is not None]:
        raise UsageError(f"{SCHEME}{name.path}: {outside[0]} is a reference to another place: log the files themselves")
    if not wanted:
        raise UsageError(f"{SCHEME}{name.path} holds no file of a model bundle; `boneage train --wandb` logs one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as part:
        whole = Path(part, "bundle")
        with _translated(name):
            for path, entry in wanted.items():
                target = whole / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(Path(entry.download(root=str(Path(part, "raw")), skip_cache=True)).read_bytes())
        try:
            whole.rename(folder)
        except OSError:  # another process was first
            if not folder.exists():
                raise


def _artifact(name: ArtifactName) -> Any:  # noqa: ANN401  wandb's Artifact
    with _translated(name):
        return _api().artifact(name.path)


@cache
def _api() -> Any:  # noqa: ANN401  wandb's public API
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read at the import
    import wandb

    return wandb.Api(timeout=30)


@contextmanager
def _translated(name: ArtifactName) -> Iterator[None]:
    """Errors of wandb as `StorageError`s that name the place and the fix."""
    import wandb

    try:
        yield
    except (wandb.Error, OSError, ValueError) as error:
        text = " ".join(str(error).split())[:300]
        hint = "is WANDB_API_KEY set, here and on the nodes, and the name right?"
        raise StorageError("not_found", f"{SCHEME}{name.path} was not fetched: {text}; {hint}") from error
