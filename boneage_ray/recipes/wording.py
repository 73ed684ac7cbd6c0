"""Messages for errors of a recipe: the key, the given value, and the nearest known field."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def explain_error(error: ValidationError, root: type[BaseModel]) -> str:
    """The first error of a failed validation of `root`; for a union, all errors of the branch that matched furthest."""
    errors = error.errors()
    first, place = errors[0], _place(errors[0]["loc"], root)
    if first["type"] == "extra_forbidden":
        return _unknown(place, first["loc"], root)
    if first["type"] == "union_tag_invalid":
        return f"{place[0]}.kind = {first['ctx']['tag']!r}: known kinds: {', '.join(_kinds(root, place[0]))}"
    key = _cut(place, root)
    alike = [e for e in errors if _cut(_place(e["loc"], root), root) == key]
    depth = max(len(e["loc"]) for e in alike)
    furthest = [e for e in alike if len(e["loc"]) == depth]
    said = ", or ".join(dict.fromkeys(_said(e["type"], e["msg"]) for e in furthest))
    given = furthest[0]["input"]
    # A whole table adds nothing to the message.
    shown = key if isinstance(given, dict | BaseModel) else f"{key} = {given!r}"
    return f"{shown}: {said}" if shown else said


def nearest(place: Sequence[str], key: str, root: type[BaseModel]) -> str:
    """A hint at the known field most similar to `key`, searched in `place` first and then everywhere, or ""."""
    known = known_keys(root)
    inside = [k.rsplit(".", 1)[-1] for k in known if k.split(".")[:-1] == [p for p in place if not p.isdigit()]]
    elsewhere = [k for k in known if k.rsplit(".", 1)[-1] == key]
    others = [leaf for leaf in inside if leaf != key]
    near = difflib.get_close_matches(key, others, n=1, cutoff=0.7)
    if not near and not elsewhere:
        close = difflib.get_close_matches(key, [k.rsplit(".", 1)[-1] for k in known], n=1, cutoff=0.7)
        elsewhere = [k for k in known if close and k.rsplit(".", 1)[-1] == close[0]]
        near = difflib.get_close_matches(key, others, n=1, cutoff=0.5)
    given = ".".join(p for p in [*place, key] if not p.isdigit())
    found = [k.replace("stages.", "stage.") for k in elsewhere if k != given][:1] or near
    return f"; nearest known: {found[0]}" if found else ""


def known_keys(root: type[BaseModel]) -> list[str]:
    """Every settable key in dotted form, with `stages` for each stage's fields."""
    found: list[str] = []

    def walk(model: type[BaseModel], prefix: str) -> None:
        for name, info in model.model_fields.items():
            found.append(prefix + name)
            for inner in _configs(info.annotation):
                walk(inner, f"{prefix}{name}.")

    walk(root, "")
    return list(dict.fromkeys(found))


def _unknown(place: list[str], loc: tuple[int | str, ...], root: type[BaseModel]) -> str:
    key, kinds = ".".join(place), _kinds(root, place[0])
    others = [kind for kind, config in kinds.items() if len(place) > 1 and place[1] in config.model_fields]
    if len(loc) == len(place) + 1 and others and str(loc[1]) not in others:
        field, kind = place[0], loc[1]
        return (
            f"{key} is of the kind {others[0]}, but {field}.kind is {kind}; a kind is not switched field by field: "
            f"start from a recipe of that kind, or --set '{field}={{kind = \"{kind}\", ...}}' with the whole table"
        )
    return f"unknown key {key}{nearest(place[:-1], place[-1], root)}"


def _said(kind: str, message: str) -> str:
    return "a table of fields is needed" if kind == "model_type" else message.removeprefix("Value error, ")


def _place(loc: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """The path of an error, without the kind that pydantic adds after a union's name."""
    place = [str(part) for part in loc]
    return place[:1] + place[2:] if len(place) > 1 and place[1] in _kinds(root, place[0]) else place


def _cut(place: list[str], root: type[BaseModel]) -> str:
    """The key without the branches of a union that pydantic adds, as in trainable.constrained-int."""
    known = known_keys(root)
    kept: list[str] = []
    for part in place:
        if not part.isdigit() and ".".join([*(k for k in kept if not k.isdigit()), part]) not in known:
            break
        kept.append(part)
    return ".".join(kept)


def _kinds(root: type[BaseModel], field: str) -> dict[str, type[BaseModel]]:
    """The configs of a field by their `kind`."""
    info = root.model_fields.get(field)
    configs = _configs(info.annotation) if info else []
    return {config.model_fields["kind"].default: config for config in configs if "kind" in config.model_fields}


def _configs(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401
    """The configs that a field may hold: itself, the members of a union, the entries of a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [config for inner in get_args(annotation) for config in _configs(inner)]
