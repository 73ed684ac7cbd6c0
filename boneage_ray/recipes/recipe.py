"""A recipe: the complete, immutable description of a run, as JSON or TOML.

A variant is a short derivation: `RESNET18.derive(name="...", summary="...", model={"backbone": {"name": "resnet50"}})`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from boneage_ray.augment.config import AugmentConfig
from boneage_ray.errors import UsageError
from boneage_ray.models.config import BlendConfig, RegressorConfig
from boneage_ray.preparation.prepare import ImageConfig
from boneage_ray.preparation.split import SplitConfig
from boneage_ray.recipes import wording
from boneage_ray.recipes.stage import CheckpointConfig, Stage
from boneage_ray.tasks.age.config import AgeTaskConfig
from boneage_ray.tasks.kind import TaskKind
from boneage_ray.tasks.known import LAST_EPOCH, BestBy, ModelConfig, TaskConfig, kind_chosen_by, kind_of_model

_MAX_SEED = 2**31 - 1  # seeds of epochs and workers are made by multiplying, and have to stay within 64 bits


class Recipe(BaseModel):
    """The settings of `train`, which `score` and `serve` read from the bundle. Ages in months, losses in years."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    summary: str
    image: ImageConfig = ImageConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = RegressorConfig()
    task: TaskConfig = AgeTaskConfig()
    blend: BlendConfig | None = None
    stages: tuple[Stage, ...] = Field(default=(Stage(),), min_length=1)
    batch_size: int = Field(default=32, ge=1, description="over all workers together")
    best_by: BestBy = Field(
        default="val_mae_months", description="the validation figure whose best epoch is kept, or last_epoch"
    )
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    balance: Literal["none", "three", "four", "sex", "sex_four", "vertebral"] = Field(
        default="none",
        description="draw training cases by inverse frequency of this stage scheme, sex or both, or of vertebral landmarks",
    )
    compile: bool = Field(default=False, description="torch.compile the network for training")
    deterministic: bool = Field(default=False, description="only algorithms that repeat to the last bit")
    checkpoint: CheckpointConfig = CheckpointConfig()
    split: SplitConfig = SplitConfig()
    seed: int = Field(default=0, ge=0, le=_MAX_SEED)
    members: int = Field(default=1, ge=1, le=100, description="trained from seeds seed, seed + 1 ... and scored as one")

    @field_validator("name")
    @classmethod
    def _fit_for_a_file(cls, name: str) -> str:
        if not re.fullmatch(r"[\w.+-]*[A-Za-z0-9][\w.+-]*", name, re.ASCII):
            raise ValueError("it becomes part of file names: letters, digits and . _ + - only")
        return name

    @field_validator("blend")
    @classmethod
    def _trees_need_an_age(cls, blend: BlendConfig | None, info: ValidationInfo) -> BlendConfig | None:
        if blend is not None and not kind_of_model(info.data.get("model", RegressorConfig())).blends:
            raise ValueError("only a regressor's age can be blended with trees")
        return blend

    @model_validator(mode="after")
    def _parts_go_together(self) -> Recipe:
        model, kind = self.model.kind, self.task_kind
        if self.task.kind != kind.name:
            wanted = f'give task={{kind = "{kind.name}"}}'
            raise ValueError(f"a {model} learns the task {kind.name}, not {self.task.kind}: {wanted}")
        best = kind.figure.key if kind.figure_chooses else "val_loss"
        if self.best_by not in ("val_loss", LAST_EPOCH, best):
            what = kind_chosen_by(self.best_by).figure.of
            raise ValueError(f"the task {kind.name} has no {what} to go by: give best_by={best}")
        if self.members > 1 and not kind.joins:
            raise ValueError(f"only age regressors are scored together, this is a {model}: give members=1")
        if kind.learns_masks and self.image.mask == "none":
            raise ValueError(f"a {model} learns from masks: give image.mask=file (drawn ones) or image.mask=hand")
        if kind.learns_masks and self.image.mask_overlay:
            raise ValueError(f"a {model} would be shown the answer: give image.mask_overlay=false")
        if self.seed + self.members - 1 > _MAX_SEED:
            raise ValueError(f"the members' seeds go up from {self.seed} and would pass {_MAX_SEED}: give a lower seed")
        return self

    @property
    def task_kind(self) -> TaskKind:
        """The task that the model learns, and the facts that differ between tasks."""
        return kind_of_model(self.model)

    def derive(self, /, **changes: Any) -> Recipe:  # noqa: ANN401  any field of any config below
        """Another recipe that differs in the given fields; nested dicts change nested fields only."""
        return build_recipe(_merged(self.model_dump(), changes), self.name)

    def to_toml(self) -> str:
        """The whole recipe as TOML; unset optional fields are left out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def build_recipe(values: Mapping[str, Any], origin: str) -> Recipe:
    """Validate values into a recipe. Raises `UsageError` naming the field, what was given and the nearest known field."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"recipe {origin}: {wording.explain_error(error, Recipe)}") from None


def override(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Apply `--set key=value` settings and validate them together. `stages.0.lr` is one stage, `stage.lr` all of them."""
    values = recipe.model_dump()
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: give key=value, for example stage.epochs=3")
        _override_one(values, key.strip(), _value(text.strip()))
    return build_recipe(values, recipe.name)


def _override_one(values: dict[str, Any], key: str, value: object) -> None:
    parts = key.split(".")
    if parts[0] != "stage":
        _assign(values, parts, value, key)
        return
    for stage in values["stages"] if isinstance(values["stages"], list | tuple) else ():
        _assign(stage, parts[1:], value, key)


def _assign(values: Any, parts: list[str], value: object, key: str) -> None:  # noqa: ANN401  dicts and lists nested
    place = ["stages" if part == "stage" else part for part in key.split(".")[: len(key.split(".")) - len(parts)]]
    if len(parts) > 1 and isinstance(values, dict) and ".".join([*place, parts[0]]) in wording.known_keys(Recipe):
        values.setdefault(parts[0], {})  # the table lacks it, or is of another kind, which validation reports
        if values[parts[0]] is None:
            raise UsageError(
                f"--set {key}: this recipe has no {parts[0]}; give --set {parts[0]}={{}} before it to add one"
            )
    if not parts or (len(parts) > 1 and not isinstance(_child(values, parts[0]), dict | list | tuple)):
        raise UsageError(f"--set {key}: no such field{_hint(values, place, parts)}")
    if len(parts) > 1:
        _assign(_child(values, parts[0]), parts[1:], value, key)
    elif isinstance(values, dict):
        values[parts[0]] = value
    else:
        raise UsageError(f"--set {key}: name a field of one entry, for example stages.0.lr")


def _hint(values: Any, place: list[str], parts: list[str]) -> str:  # noqa: ANN401
    if isinstance(values, list | tuple):
        return f"; number of {place[-1]}: {len(values)}, counted from 0"
    return wording.nearest(place, parts[0], Recipe) if parts else ""


def _child(values: Any, part: str) -> Any:  # noqa: ANN401
    if isinstance(values, dict):
        return values.get(part)
    known = isinstance(values, list | tuple) and part.isdigit() and int(part) < len(values)
    return values[int(part)] if known else None


def _value(text: str) -> object:
    """A TOML value if it reads as one (3, 1e-3, true, [1, 2]), else the text itself."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged
