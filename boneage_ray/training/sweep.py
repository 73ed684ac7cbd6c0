"""What a sweep tries: a TOML file of settings and their ranges, and the trials that are drawn from it. No Ray here.

trials = 12
grace_epochs = 3            # before a trial may be stopped
[settings]
"stage.lr" = { low = 1e-4, high = 3e-3, log = true }
"model.dropout" = [0.0, 0.2, 0.4]
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from boneage_ray import storage
from boneage_ray.errors import UsageError
from boneage_ray.keys import first_wrong
from boneage_ray.recipes.recipe import Recipe, override
from boneage_ray.tasks.known import LAST_EPOCH

Value = bool | int | float | str


class Range(BaseModel):
    """A number from `low` to `high`, evenly or evenly on a logarithmic scale."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low={self.low:g} must be below high={self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range begins above 0")
        return self

    def drawn(self, chance: np.random.Generator) -> float:
        """Four significant digits, so that a trial can be given again in a command."""
        if self.log:
            number = math.exp(chance.uniform(math.log(self.low), math.log(self.high)))
        else:
            number = chance.uniform(self.low, self.high)
        return float(f"{min(max(number, self.low), self.high):.4g}")


def _kind(given: object) -> str:
    return "range" if isinstance(given, dict | Range) else "values"


Tried = Annotated[Annotated[Range, Tag("range")] | Annotated[tuple[Value, ...], Tag("values")], Discriminator(_kind)]


class SweepFile(BaseModel):
    """The file. `settings`: as the keys of `--set`, each a list of values or a range. Equal seeds draw equal trials."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trials: int = Field(ge=1, le=1000)
    grace_epochs: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)
    settings: dict[str, Tried] = Field(min_length=1)

    @model_validator(mode="after")
    def _values(self) -> Self:
        if empty := [key for key, values in self.settings.items() if values == ()]:
            raise ValueError(f"{empty[0]} has no value to try")
        return self


@dataclass(frozen=True)
class Trial:
    """One recipe of a sweep: its number, what is set, and the recipe with it."""

    number: int
    settings: dict[str, Value]
    recipe: Recipe

    @property
    def name(self) -> str:
        """Its folder below OUT/trials."""
        return f"{self.number:03d}"

    @property
    def epochs(self) -> int:
        """Of all stages."""
        return sum(stage.epochs for stage in self.recipe.stages)


def read_sweep(uri: str) -> SweepFile:
    """Raises `UsageError` that names the wrong key."""
    try:
        return SweepFile.model_validate(tomllib.loads(storage.read_text(uri)))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{uri} is not TOML: {error}") from None
    except ValidationError as error:
        raise UsageError(f"{uri}: {first_wrong(error, list(SweepFile.model_fields))}") from None


def drawn_trials(file: SweepFile, recipe: Recipe) -> list[Trial]:
    """The trials, each different: fewer than were asked for where the lists hold no more.

    Raises `UsageError` for a setting that no recipe has, or a value that it cannot take.
    """
    chance = np.random.default_rng(file.seed)
    found: dict[str, Trial] = {}
    for _ in range(20 * file.trials):
        if len(found) == file.trials:
            break
        settings = {key: _drawn(values, chance) for key, values in file.settings.items()}
        words = [f"{key}={value_in_words(value)}" for key, value in settings.items()]
        if " ".join(words) not in found:
            found[" ".join(words)] = Trial(len(found), settings, override(recipe, words))
    return list(found.values())


def set_flags(settings: dict[str, Value]) -> str:
    """The settings as flags of `boneage train`.

    >>> set_flags({"stage.lr": 0.001, "model.mirror": True})
    '--set stage.lr=0.001 --set model.mirror=true'
    """
    return " ".join(f"--set {key}={value_in_words(value)}" for key, value in settings.items())


def figure_of(recipe: Recipe) -> str:
    """The figure of the validation split that trials are compared by; the lower the better."""
    if recipe.best_by != LAST_EPOCH:
        return recipe.best_by
    kind = recipe.task_kind
    return kind.figure.key if kind.figure_chooses else "val_loss"


def best_figure(history: Sequence[dict[str, Any]], figure: str) -> float:
    """The lowest of the epochs; infinite without one."""
    return min((line[figure] for line in history if line.get(figure) is not None), default=math.inf)


def _drawn(values: tuple[Value, ...] | Range, chance: np.random.Generator) -> Value:
    return values.drawn(chance) if isinstance(values, Range) else values[int(chance.integers(len(values)))]


def value_in_words(value: Value) -> str:
    """As `--set` takes it."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
