"""`boneage train --sweep FILE`: trainings with drawn settings, the poor ones stopped early, to a table, a page and the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from boneage_ray import storage
from boneage_ray.commands.pipeline import TrainArguments
from boneage_ray.commands.starting import join_ray, say_cautions
from boneage_ray.commands.words import line, refuse_overlap
from boneage_ray.errors import UsageError
from boneage_ray.runtime import lease, nodes, parts
from boneage_ray.runtime.runs import Run, timed

if TYPE_CHECKING:
    from boneage_ray.recipes.recipe import Recipe
    from boneage_ray.training.sweep_run import TrialResult


def sweep(run: Run, arguments: TrainArguments) -> None:
    """Prepared data and a sweep file -> OUT/sweep.json and OUT/report.html; `arguments.sweep` is the file."""
    run.to_continue = "give the command again with --resume"
    from boneage_ray.datasets.load import open_prepared
    from boneage_ray.recipes import find_recipe
    from boneage_ray.recipes.recipe import override
    from boneage_ray.training import checkpoint, driver
    from boneage_ray.training.sweep import drawn_trials, read_sweep
    from boneage_ray.training.sweep_run import run_trials

    assert arguments.sweep is not None
    recipe = override(find_recipe(arguments.recipe), arguments.settings)
    _refuse_others(arguments, recipe)
    file = read_sweep(storage.absolute(arguments.sweep))
    trials = drawn_trials(file, recipe)
    data, out = storage.absolute(arguments.data), storage.absolute(arguments.out)
    pretrain = storage.absolute(arguments.pretrain_data) if arguments.pretrain_data else None
    refuse_overlap(out, "--data", [data])
    refuse_overlap(out, "--pretrain-data", [pretrain] if pretrain else [])
    prepared = open_prepared(data)
    for trial in trials:
        prepared.check_image(trial.recipe.image)
        driver.check_labels(trial.recipe, prepared)
        driver.check_pretraining(trial.recipe, prepared, pretrain)
    say_cautions(prepared.manifest)
    options = driver.TrainOptions(data, out, pretrain, gpu=arguments.gpu)
    mark = checkpoint.fingerprint_of(
        driver.training_fingerprint(recipe, prepared, options), file.model_dump(mode="json")
    )
    if parts.claim(out, mark, arguments.overwrite, "train") and not arguments.resume:
        raise parts.held_by_same_run(out)
    run.out = out
    join_ray(run)
    if arguments.gpu:
        nodes.wait_for("GPU", 1, "--gpu")
    hold, compute = lease.holding(out), nodes.device_of_run(out, arguments.gpu)
    nodes.check_places(hold, [("--data", data), *([("--pretrain-data", pretrain)] if pretrain else [])])
    run.note(
        recipe=recipe.model_dump(mode="json"), data=data, sweep=file.model_dump(mode="json"), compute=compute.as_json()
    )
    with timed(run, "sweep"):
        found = run_trials(file, trials, replace(options, hold=hold, compute=compute))
    _finish(run, arguments, recipe, found)


def _refuse_others(arguments: TrainArguments, recipe: Recipe) -> None:
    if recipe.members > 1:
        raise UsageError(
            f"--sweep: {recipe.name} is an ensemble of {recipe.members}; add --set members=1, and train all with what is found"
        )
    if arguments.workers > 1 or arguments.min_workers:
        raise UsageError(
            "--sweep: a trial is one process, and several trials run at once; leave --workers and --min-workers out"
        )
    if arguments.cache_on_gpu:
        raise UsageError("--sweep: trials share a GPU's memory; leave --cache-on-gpu out")
    if arguments.track:
        raise UsageError("--sweep: trials are not tracked; leave --track and --wandb out")


def _finish(run: Run, arguments: TrainArguments, recipe: Recipe, found: Sequence[TrialResult]) -> None:
    from boneage_ray.evaluation.sweep_page import sweep_page
    from boneage_ray.training.sweep import figure_of, set_flags

    figure, order = figure_of(recipe), sorted(found, key=lambda result: (result.best, result.trial.number))
    best, out = order[0], str(run.out)
    storage.write_json(
        storage.join(out, "sweep.json"), {"figure": figure, "trials": [_as_json(result) for result in order]}
    )
    asked = {"recipe": arguments.recipe, "set": arguments.settings or None, "data": arguments.data}
    command = line("boneage train", **asked, sweep=arguments.sweep, out=arguments.out)
    storage.write_text(storage.join(out, "report.html"), sweep_page(recipe, figure, order, command))
    counts = {status: sum(result.status == status for result in found) for status in ("finished", "stopped", "failed")}
    following = line("boneage train", **asked, out="MODEL")
    run.finish(
        {"trials": len(found), **counts, "best_trial": best.trial.number, figure: best.best},
        f"Report: {out}/report.html",
        f"Next: {following} {set_flags(dict(best.trial.settings))}",
    )


def _as_json(result: TrialResult) -> dict[str, Any]:
    return {
        "number": result.trial.number,
        "settings": result.trial.settings,
        "status": result.status,
        "epochs": result.epochs,
        "best": None if math.isinf(result.best) else result.best,
        **({"why": result.why} if result.why else {}),
    }
