"""Models that come with the package: which there are, and where a command finds the one that `--model NAME` names.

A folder of this one holds a model bundle as a training leaves it, its weights in half precision, and two files beside it::

    hand/manifest.json ...      the bundle
    hand/about.json             what `boneage models` says, and the SHA-256 of the manifest
    hand/LICENCE.md             whose data it learnt from, and on which terms it may be used

Commands hand `builtin:hand` on, never a path: every node finds the model in its own installation, and verifies it there.
"""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from boneage_ray import __version__, artifacts, storage
from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.runtime.runs import say

SCHEME = "builtin:"
FORMAT = 1
ABOUT, TERMS, MANIFEST = "about.json", "LICENCE.md", "manifest.json"
ROOT = Path(__file__).parent
_REINSTALL = "install it again: pip install --force-reinstall boneage-ray"


class Figure(BaseModel):
    """One measured error: of what, how large (with its interval and number of cases), and the command that measured it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    value: str
    command: str


class About(BaseModel):
    """What `boneage models` says of one. `manifest_sha256` is that of the bundle's (or the ensemble's) manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    name: str
    version: str
    purpose: str
    licence: str
    figures: tuple[Figure, ...]
    manifest_sha256: str


def names() -> list[str]:
    """The built-in models of this installation."""
    return sorted(path.name for path in ROOT.glob("*/") if any((path / file).exists() for file in (ABOUT, MANIFEST)))


def place_of(text: str) -> str:
    """What `--model TEXT` means, wherever it is read: `builtin:NAME` for a bare name, a version in wandb, else an absolute place.

    A bare name is always the built-in model, also where a folder of that name lies; that is `./NAME`. Raises `UsageError` for
    one that is neither.
    """
    if text.startswith(SCHEME):
        folder_of(text)
        return text
    if text.startswith(artifacts.SCHEME):
        return artifacts.pinned(text)
    bare = text and "/" not in text
    if bare and text in names():
        if Path(text).exists():
            say(f"--model {text} is the built-in model; to use the folder {text}, give --model ./{text}")
        folder_of(SCHEME + text)
        return SCHEME + text
    if bare and not Path(text).exists():
        raise _unknown(f"--model {text}", text, "neither a folder here nor a built-in model")
    return storage.absolute(text)


def as_typed(place: str) -> str:
    """A place as a person would give it: the bare name of a built-in model."""
    name = place.removeprefix(SCHEME)
    return name if name in names() else place


def is_kept(uri: str) -> bool:
    """Whether a place is a built-in model or a version in wandb, which are read and never written to."""
    return uri.startswith((SCHEME, artifacts.SCHEME))


def folder_of(uri: str) -> str:
    """Where this machine keeps what `builtin:NAME`, a version in wandb or a part of them names; any other place is itself.

    Raises `UsageError` for a model that it lacks or of another format, `MismatchError` for one that is not what it was.
    """
    if uri.startswith(artifacts.SCHEME):
        return artifacts.fetched(uri)
    if not uri.startswith(SCHEME):
        return uri
    name, _, rest = uri.removeprefix(SCHEME).partition("/")
    if name not in names():
        raise _unknown(uri, name, f"no built-in model of boneage-ray {__version__}, which is installed here")
    about(name)
    return storage.join(str(ROOT / name), rest)


def about(name: str) -> About:
    """What is said of a built-in model, once its manifest is verified. Raises as `folder_of` does."""
    try:
        found = About.model_validate_json((ROOT / name / ABOUT).read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        raise _of_another_format(name, _format_in(name)) from error
    if found.format != FORMAT:
        raise _of_another_format(name, found.format)
    try:
        digest = hashlib.sha256((ROOT / name / MANIFEST).read_bytes()).hexdigest()
    except FileNotFoundError:
        raise MismatchError(f"the built-in model {name} has lost its {MANIFEST}: {_REINSTALL}") from None
    if digest != found.manifest_sha256:
        raise MismatchError(
            f"{MANIFEST} of the built-in model {name} has SHA-256 {digest[:12]}..., its {ABOUT} says "
            f"{found.manifest_sha256[:12]}...: damaged or replaced; {_REINSTALL}"
        )
    return found


def find(name: str) -> About:
    """As `about`, for a name that a person typed. Raises `UsageError` with the nearest known one."""
    if name not in names():
        raise _unknown(name, name, "no built-in model")
    return about(name)


def size(name: str) -> int:
    """Bytes of a built-in model, with everything that belongs to it."""
    return sum(path.stat().st_size for path in (ROOT / name).rglob("*") if path.is_file())


def _unknown(shown: str, name: str, what: str) -> UsageError:
    known = names()
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"built in: {', '.join(known) or 'none'}"
    return UsageError(f"{shown} is {what}; {hint}; `boneage train` writes a bundle")


def _of_another_format(name: str, found: object) -> UsageError:
    return UsageError(
        f"the built-in model {name} is of format {found}, boneage-ray {__version__} reads format {FORMAT}: "
        "files of two versions are mixed; " + _REINSTALL
    )


def _format_in(name: str) -> object:
    """The format that an about.json says that is none of this version's."""
    try:
        found = storage.read_json(str(ROOT / name / ABOUT))
    except (UsageError, ValueError):
        return "unknown"
    return found.get("format", "unknown") if isinstance(found, dict) else "unknown"
