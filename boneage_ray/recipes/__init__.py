"""The recipes and the search for one by name. A new recipe is a short file here and its name in RECIPES."""

from __future__ import annotations

import difflib
import tomllib

from boneage_ray import storage
from boneage_ray.errors import UsageError
from boneage_ray.recipes.cephalogram import (
    CEPHALOGRAM,
    CEPHALOGRAM_512,
    CEPHALOGRAM_EDGES,
    CEPHALOGRAM_LIGHT,
    CEPHALOGRAM_LITE,
    CEPHALOGRAM_NECK,
    CEPHALOGRAM_PHANTOMS,
)
from boneage_ray.recipes.deep_ensemble import DEEP_ENSEMBLE
from boneage_ray.recipes.demo import DEMO
from boneage_ray.recipes.densenet121 import DENSENET121
from boneage_ray.recipes.efficientnet_b0_sex import EFFICIENTNET_B0_SEX
from boneage_ray.recipes.efficientnet_lite_hand import EFFICIENTNET_LITE_HAND
from boneage_ray.recipes.hand_mask import HAND_MASK
from boneage_ray.recipes.recipe import Recipe, build_recipe
from boneage_ray.recipes.resnet18_hand import RESNET18_HAND, RESNET18_PHANTOMS
from boneage_ray.recipes.resnet34_cbam import RESNET34_CBAM
from boneage_ray.recipes.resnet34_masked import RESNET34_MASKED
from boneage_ray.recipes.resnet_multitask import RESNET18_MULTITASK, RESNET50_MULTITASK
from boneage_ray.recipes.timm_regressor import TIMM_REGRESSOR
from boneage_ray.recipes.two_views import TWO_VIEWS_HAND

RECIPES: tuple[Recipe, ...] = (
    DENSENET121,
    RESNET34_CBAM,
    RESNET34_MASKED,
    RESNET18_MULTITASK,
    RESNET50_MULTITASK,
    EFFICIENTNET_B0_SEX,
    RESNET18_HAND,
    RESNET18_PHANTOMS,
    EFFICIENTNET_LITE_HAND,
    TWO_VIEWS_HAND,
    HAND_MASK,
    TIMM_REGRESSOR,
    DEEP_ENSEMBLE,
    CEPHALOGRAM,
    CEPHALOGRAM_EDGES,
    CEPHALOGRAM_LIGHT,
    CEPHALOGRAM_512,
    CEPHALOGRAM_NECK,
    CEPHALOGRAM_PHANTOMS,
    CEPHALOGRAM_LITE,
    DEMO,
)


def find_recipe(name: str) -> Recipe:
    """A recipe by name, or from a TOML file with a `base` and the fields that differ."""
    if name.endswith(".toml"):
        return _from_toml(name, seen=())
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    names = [recipe.name for recipe in RECIPES]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
    raise UsageError(f"no recipe {name!r}; {hint} (or give a TOML file)")


def _from_toml(uri: str, seen: tuple[str, ...]) -> Recipe:
    if uri in seen:
        raise UsageError(f"{uri}: circular bases ({' -> '.join((*seen, uri))})")
    try:
        values = tomllib.loads(storage.read_bytes(uri).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{uri} is not TOML: {error}") from None
    base = values.pop("base", None)
    if base is None:
        return build_recipe(values, uri)
    if not isinstance(base, str):
        raise UsageError(f"{uri}: base = {base!r}: the name of a recipe or of a TOML file is needed")
    parent = _from_toml(base, (*seen, uri)) if base.endswith(".toml") else find_recipe(base)
    return parent.derive(**values)
