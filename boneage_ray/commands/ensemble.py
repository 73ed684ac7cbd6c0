"""Ensemble bundles: trained member by member, or joined from bundles that are there."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from boneage_ray import storage
from boneage_ray.commands.words import model_places, refuse_overlap
from boneage_ray.errors import UsageError
from boneage_ray.prediction import members
from boneage_ray.runtime import parts
from boneage_ray.runtime.runs import Run, timed

if TYPE_CHECKING:
    from boneage_ray.datasets.load import PreparedData
    from boneage_ray.recipes.recipe import Recipe
    from boneage_ray.training.driver import TrainOptions


def train_ensemble(run: Run, recipe: Recipe, prepared: PreparedData, options: TrainOptions) -> None:
    """Prepared data -> an ensemble bundle; the claimed OUT and the connected cluster are the caller's."""
    from boneage_ray.training import ensemble

    with timed(run, "train"):
        trained = ensemble.train_members(recipe, prepared, options)
    models = members.save_ensemble(options.out, recipe.name, recipe.summary, [member.folder for member in trained])
    run.note(
        model_sha256=models.sha256,
        data_fingerprint=prepared.manifest["fingerprint"],
        seeds=[member.seed for member in trained],
        members={member.name: member.sha256 for member in models.members},
    )
    # A best epoch may be chosen by the loss alone: a figure that is not finite is not in the metrics.
    figure = recipe.task_kind.figure
    errors = [member.metrics.get(figure.key) for member in trained]
    finite = [error for error in errors if error is not None]
    run.finish(
        {
            "members": len(trained),
            f"{figure.key} of the members": ", ".join(
                "not finite" if error is None else f"{error:.2f}" for error in errors
            ),
            "their mean": fmean(finite) if len(finite) == len(errors) else "not finite",
            "model_sha256": models.sha256,
        },
        f"Model: {options.out}  (the {figure.name} of all together is reported by `boneage evaluate`)",
        f"Next: boneage evaluate --model {shlex.quote(options.out)} --data {shlex.quote(options.data)} --split test "
        "--out EVALUATION",
    )


@dataclass(frozen=True)
class EnsembleArguments:
    """Flags of `boneage ensemble`."""

    models: list[str]
    out: str
    name: str = "ensemble"
    overwrite: bool = False


def join_models(run: Run, arguments: EnsembleArguments) -> None:
    """Bundles that are there -> one bundle with a copy of each; it needs them no longer."""
    if not arguments.name.strip():
        raise UsageError("--name: a name is needed, it stands in every result row")
    places, out = model_places(arguments.models), storage.absolute(arguments.out)
    refuse_overlap(out, "--model", places)
    found = members.resolve(places)
    if len(found.members) < 2:
        raise UsageError("an ensemble needs two models or more: repeat --model")
    parts.claim(out, parts.fingerprint(found.sha256, arguments.name), arguments.overwrite, "ensemble")
    run.out = out
    folders = members.copy_members(found, out)
    summary = f"the mean of {', '.join(member.name for member in found.members)}"
    models = members.save_ensemble(out, arguments.name, summary, folders)
    run.note(model_sha256=models.sha256, members={member.name: member.sha256 for member in models.members})
    run.finish(
        {
            "name": models.name,
            "members": {member.name: member.sha256[:12] for member in models.members},
            "images": len(models.images),
            "model_sha256": models.sha256,
        },
        f"Model: {out}",
        f"Next: boneage score ARCHIVE --model {shlex.quote(out)} --out SCORES",
    )
