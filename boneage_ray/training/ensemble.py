"""The members of a deep ensemble: the same recipe with other seeds, trained one after the other.

`OUT/members/0`, `/1` ... are bundles with their own checkpoints. A killed training keeps finished members and continues the
current one from its last epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from boneage_ray import bundle, storage
from boneage_ray.datasets.load import PreparedData
from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.recipes.recipe import Recipe, build_recipe
from boneage_ray.runtime.runs import say
from boneage_ray.training.driver import TrainOptions, run_training

Train = Callable[[Recipe, PreparedData, TrainOptions], Any]


@dataclass(frozen=True)
class TrainedMember:
    """A finished member: its path below OUT, its seed, and the metrics of its best epoch."""

    folder: str
    seed: int
    metrics: dict[str, Any]


def member_recipe(recipe: Recipe, number: int) -> Recipe:
    """The recipe of member `number`, with its own seed and name."""
    seed = recipe.seed + number
    return recipe.derive(name=f"{recipe.name}-seed{seed}", members=1, seed=seed)


def train_members(
    recipe: Recipe, prepared: PreparedData, options: TrainOptions, train: Train = run_training
) -> list[TrainedMember]:
    """Train the members that are not finished, by calling `train`.

    Raises `MismatchError` if a member's folder holds another recipe, `UsageError` for a recipe without an age.
    """
    if not recipe.task_kind.joins:
        raise UsageError(
            f"recipe {recipe.name} is a {recipe.model.kind}: only age regressors form an ensemble; give members=1"
        )
    trained = []
    for number in range(recipe.members):
        one, folder = member_recipe(recipe, number), f"members/{number}"
        out = storage.join(options.out, folder)
        said = f"member {number + 1} of {recipe.members}, seed {one.seed}"
        if _finished(out, one):
            say(f"{said}: trained already")
        else:
            say(said)
            train(one, prepared, replace(options, out=out))
        metrics = storage.read_json(storage.join(out, bundle.METRICS))
        trained.append(TrainedMember(folder, one.seed, metrics))
    return trained


def _finished(out: str, recipe: Recipe) -> bool:
    if not storage.exists(storage.join(out, bundle.MANIFEST)):
        return False
    place = storage.join(out, bundle.RECIPE)
    held = build_recipe(storage.read_json(place), place)
    if held.model_copy(update={"summary": recipe.summary}) != recipe:
        raise MismatchError(f"{out} holds a member of another recipe or seed; start again with --overwrite")
    return True
