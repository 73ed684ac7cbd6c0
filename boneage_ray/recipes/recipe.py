"""A recipe: one run completely described, immutable, JSON and TOML round trip.

A variant is a short derivation: `RESNET18.derive(name="...", summary="...", model={"backbone": {"name": "resnet50"}})`.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from boneage_ray.augment.config import AugmentConfig
from boneage_ray.errors import UsageError
from boneage_ray.models.config import BlendConfig, ModelConfig, RegressorConfig
from boneage_ray.optimization import Stage
from boneage_ray.records.prepare import ImageConfig
from boneage_ray.records.split import SplitConfig
from boneage_ray.tasks.config import AgeTaskConfig, TaskConfig

_TAGS = ("regressor", "hand-mask", "age", "mask")  # pydantic names the member of a union inside a key


class Recipe(BaseModel):
    """What `train` runs, and what `score` and `serve` later read from the bundle. Ages in months, losses in years."""

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
    best_by: Literal["val_mae_months", "val_loss"] = "val_mae_months"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    balance: Literal["none", "three", "four", "sex", "sex_four"] = Field(
        default="none", description="draw training cases by inverse frequency of this stage scheme, sex, or both"
    )
    compile: bool = Field(default=False, description="torch.compile the network for training")
    deterministic: bool = Field(default=False, description="only algorithms that repeat to the last bit")
    split: SplitConfig = SplitConfig()
    seed: int = 0
    members: int = Field(default=1, ge=1, le=100, description="trained from seeds seed, seed + 1 ... and scored as one")

    @field_validator("blend")
    @classmethod
    def _trees_need_an_age(cls, blend: BlendConfig | None, told: ValidationInfo) -> BlendConfig | None:
        if blend is not None and not isinstance(told.data.get("model", RegressorConfig()), RegressorConfig):
            raise ValueError("only a regressor's age can be blended with trees")
        return blend

    def derive(self, **changes: Any) -> Recipe:  # noqa: ANN401  any field of any config below
        """Another recipe that differs in the given fields; nested dicts change nested fields only."""
        return build(_merged(self.model_dump(), changes), self.name)

    def to_toml(self) -> str:
        """The whole recipe as TOML; unset optional fields are left out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def build(values: Mapping[str, Any], origin: str) -> Recipe:
    """Validate values into a recipe. Raises `UsageError` naming the field, what was given and the nearest known field."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(part) for k, part in enumerate(first["loc"]) if k != 1 or str(part) not in _TAGS]
        key = ".".join(place)
        if first["type"] == "extra_forbidden":
            near = _nearest(place[:-1], place[-1])
            raise UsageError(f"recipe {origin}: unknown key {key}{near}") from None
        raise UsageError(f"recipe {origin}: {key} = {first['input']!r}: {first['msg']}") from None


def override(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Apply `--set key=value` settings. `stages.0.lr` names one stage, `stage.lr` all of them."""
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: give key=value, for example stage.epochs=3")
        recipe = _override_one(recipe, key.strip(), _value(text.strip()))
    return recipe


def _override_one(recipe: Recipe, key: str, value: object) -> Recipe:
    parts = key.split(".")
    values = recipe.model_dump()
    if parts[0] == "stage":
        for stage in values["stages"]:
            _assign(stage, parts[1:], value, key)
    else:
        _assign(values, parts, value, key)
    return build(values, recipe.name)


def _assign(values: Any, parts: list[str], value: object, key: str) -> None:  # noqa: ANN401  dicts and lists nested
    if len(parts) > 1 and isinstance(values, dict) and parts[0] in values and values[parts[0]] is None:
        raise UsageError(f"--set {key}: this recipe has no {parts[0]}; give --set {parts[0]}={{}} before it to add one")
    if not parts or (len(parts) > 1 and not isinstance(_child(values, parts[0]), dict | list | tuple)):
        near = _nearest([], parts[0]) if parts else ""
        raise UsageError(f"--set {key}: no such field{near}")
    if len(parts) > 1:
        _assign(_child(values, parts[0]), parts[1:], value, key)
    elif isinstance(values, dict):
        values[parts[0]] = value
    else:
        raise UsageError(f"--set {key}: name a field of one entry, for example stages.0.lr")


def _child(values: Any, part: str) -> Any:  # noqa: ANN401
    if isinstance(values, dict):
        return values.get(part)
    return values[int(part)] if part.isdigit() and int(part) < len(values) else None


def _value(text: str) -> object:
    """A TOML value if it reads as one (3, 1e-3, true, [1, 2]), else the text itself."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _nearest(place: Sequence[str], key: str) -> str:
    """The known field that looks most like `key`, searched where it was given and then everywhere."""
    known = known_keys()
    inside = [k for k in known if k.split(".")[:-1] == [p for p in place if not p.isdigit()]]
    near = difflib.get_close_matches(key, [k.rsplit(".", 1)[-1] for k in inside or known], n=1, cutoff=0.5)
    return f"; nearest known: {near[0]}" if near else ""


def known_keys() -> list[str]:
    """Every settable key in dotted form, with `stages` for each stage's fields."""
    found: list[str] = []

    def walk(model: type[BaseModel], prefix: str) -> None:
        for name, info in model.model_fields.items():
            found.append(prefix + name)
            for inner in _configs(info.annotation):
                walk(inner, f"{prefix}{name}.")

    walk(Recipe, "")
    return list(dict.fromkeys(found))


def _configs(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401
    """The configs that a field may hold: itself, the members of a union, the entries of a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [config for inner in get_args(annotation) for config in _configs(inner)]


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged
