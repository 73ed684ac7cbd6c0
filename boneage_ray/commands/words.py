"""What commands say of themselves and of their models: lines to paste, facts for pages, notes for run.json; and their places."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from boneage_ray import builtin, storage
from boneage_ray.anatomy.growth import Sex
from boneage_ray.commands.options import ReadingFlags
from boneage_ray.errors import UsageError
from boneage_ray.preparation.split import SPLITS, Split

if TYPE_CHECKING:
    from boneage_ray.prediction.members import Models
    from boneage_ray.preparation.prepare import Reading
    from boneage_ray.recipes.recipe import Recipe


def absolute_places(places: str | list[str]) -> list[str]:
    """One place or several, as they are meant from anywhere."""
    return [storage.absolute(place) for place in ([places] if isinstance(places, str) else places)]


def model_places(models: str | list[str]) -> list[str]:
    """Where one model or several are: built-in ones by their names, others as they are meant from anywhere."""
    return [builtin.place_of(model) for model in ([models] if isinstance(models, str) else models)]


def known_sex(text: str | None) -> Sex | None:
    """What --sex says. Raises `UsageError` for anything but F, M and nothing."""
    if text not in (None, "F", "M"):
        raise UsageError(f"--sex {text}: F or M is needed; leave it out where it is unknown")
    return cast("Sex | None", text)


def for_every_input(sex: Sex | None, pixel_spacing_mm: float | None) -> dict[str, str]:
    """The flags whose values hold for every input of an archive, with these values."""
    given = {"--sex": sex, "--pixel-spacing-mm": pixel_spacing_mm}
    return {flag: str(value) for flag, value in given.items() if value}


def check_update(update: bool, overwrite: bool) -> None:
    """Raise `UsageError` for the two flags that contradict each other."""
    if update and overwrite:
        raise UsageError("--update keeps what is in OUT, --overwrite deletes it: give one of them")


def known_reading(flags: ReadingFlags) -> Reading:
    """What the flags say. Raises `UsageError` for a value that is not known."""
    from boneage_ray.preparation.prepare import Reading

    voi, two_hands = flags.voi, flags.two_hands
    if voi not in (None, "file", "none"):
        raise UsageError(f"--voi {voi}: file (a DICOM file's window) or none (all of its gray levels) is needed")
    if two_hands not in (None, "reject", "left"):
        raise UsageError(f"--two-hands {two_hands}: reject, or left (score the left half) is needed")
    return Reading.model_validate(flags._asdict())


def reading_flags(reading: Reading) -> dict[str, object]:
    """The flags of `known_reading` for a command to paste."""
    flags: dict[str, object] = {"voi": reading.voi, "two_hands": reading.two_hands}
    for name, gate in (("header_gate", reading.header_gate), ("pixel_gate", reading.pixel_gate)):
        flags |= {name: gate or None, f"no_{name}": gate is False or None}
    return flags


def known_coverage(coverage: float | None) -> float | None:
    """What --coverage says. Raises `UsageError` for what is no share between 0 and 1."""
    from boneage_ray.tasks.age.intervals import check_level

    return None if coverage is None else check_level(coverage)


def known_split(name: str) -> Split:
    """What --split says. Raises `UsageError` for anything but train, val and test."""
    for split in SPLITS:
        if split == name:
            return split
    raise UsageError(f"--split {name}: one of {', '.join(SPLITS)} is needed")


def known_splits(name: str) -> list[Split]:
    """What --split says where several may be taken. Raises `UsageError` for anything but train, val, test and all."""
    if name == "all":
        return list(SPLITS)
    if name not in SPLITS:
        raise UsageError(f"--split {name}: one of {', '.join(SPLITS)} or all is needed")
    return [known_split(name)]


def after_prepare(recipe: str, settings: list[str], out: str, pretraining: bool, counts: Mapping[str, int]) -> str:
    """What to do with prepared data: train, or, where everything is test, evaluate a model that is there."""
    if counts["test"] and not counts["train"] + counts["val"]:
        return f"Next: {line('boneage evaluate', data=out)} --model MODEL --out EVALUATION"
    more = "PHANTOM_DATA" if pretraining else None
    return f"Next: {line('boneage train', recipe=recipe, set=settings, data=out, pretrain_data=more)} --out MODEL"


def after_training(recipe: Recipe, out: str, data: str) -> str:
    """What a new model is for: to be evaluated, or to begin another training."""
    if recipe.task_kind.findings:
        return f"Next: {line('boneage evaluate', model=out, data=data, split=recipe.task_kind.next_split)} --out EVALUATION"
    weights = f"model.backbone.weights={storage.join(out, 'weights.safetensors')}"
    return f"Next: {line('boneage train', set=weights)} --recipe RECIPE --data LABELLED --out MODEL"


def serve_next(model: list[str]) -> str:
    """The service answers with one model at a time: what was given by flags is served once it is one bundle."""
    if len(model) == 1:
        return f"Next: boneage serve --model {quoted(model[0])}"
    return "Next: " + line("boneage ensemble", model=model, out="MODEL") + " && boneage serve --model MODEL"


def refuse_overlap(out: str, flag: str, places: Iterable[str]) -> None:
    """Raise `UsageError` unless OUT stands apart: what a run writes is never its own input, and --overwrite deletes OUT."""
    own = _folder(out)
    for place in places:
        other = _folder(builtin.folder_of(place))
        if own.startswith(other) or other.startswith(own):
            raise UsageError(
                f"--out {out} and {flag} {place} are one place, or one lies inside the other: give --out a place of its own"
            )


def _folder(place: str) -> str:
    """A place by which another can be found to lie inside; links of this machine are followed, s3a:// is s3://."""
    whole = re.sub("^s3a://", "s3://", place) if "://" in place else os.path.realpath(place)
    return f"{whole.rstrip('/')}/"


def line(*words: str, **flags: object) -> str:
    """A command as it can be pasted; flags that are None are left out, True is one without a value, a list repeats it."""
    given = [word for word in words[1:] if word]
    for name, values in flags.items():
        for value in values if isinstance(values, list) else [values]:
            if value is not None:
                given += [f"--{name.replace('_', '-')}"] + ([] if value is True else [builtin.as_typed(str(value))])
    return " ".join([words[0], shlex.join(given)])


def quoted(text: str) -> str:
    """One word of a command."""
    return shlex.quote(builtin.as_typed(text))


def model_facts(models: Models) -> dict[str, str]:
    """What a page says of its models."""
    facts = {"Model": f"{models.name} {models.sha256[:12]}"}
    if len(models.members) > 1:
        facts["Members"] = ", ".join(f"{member.name} {member.sha256[:12]}" for member in models.members)
    if models.site:
        facts["Calibrated for"] = models.site
    return facts


def model_notes(models: Models) -> dict[str, Any]:
    """What run.json says of its models; `recipe` and `seed` are lists for several members."""
    recipes = [member.recipe.model_dump(mode="json") for member in models.members]
    seeds = [member.recipe.seed for member in models.members]
    if len(recipes) == 1:
        return {"model_sha256": models.sha256, "recipe": recipes[0], "seed": seeds[0]}
    hashes = {member.name: member.sha256 for member in models.members}
    return {"model_sha256": models.sha256, "members": hashes, "recipe": recipes, "seed": seeds}
