"""Gradient-boosted trees (XGBoost) on a regressor's features, and their blend with the regressor's own age.

Trees are kept as XGBoost's own JSON, never as a pickle; the weight of the blend stands inside it, as the attribute
`cnn_weight`. xgboost is imported where it is used: only a recipe with a blend needs it.

Axis letters: N cases, B batch, F features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from boneage_ray.errors import UsageError
from boneage_ray.models.config import BlendConfig

if TYPE_CHECKING:
    from xgboost import Booster

Array = np.ndarray[Any, Any]
# Weights of the CNN among which the validation split may choose.
WEIGHTS = tuple(k / 20 for k in range(21))
_WEIGHT = "cnn_weight"
# What our own trees have beside their nodes, by its place below `learner`; XGBoost writes numbers as text.
_OURS = {
    ("gradient_booster", "name"): "gbtree",
    ("objective", "name"): "reg:squarederror",
    ("learner_model_param", "num_class"): "0",
    ("learner_model_param", "num_target"): "1",
    ("gradient_booster", "model", "gbtree_model_param", "num_parallel_tree"): "1",
    ("feature_names",): [],
    ("feature_types",): [],
}
_NODES = ("split_conditions", "split_type", "default_left", "base_weights", "loss_changes", "sum_hessian", "parents")
_HIGHEST_YEARS = 20.0  # of an age that trees can start from


@dataclass(frozen=True)
class Cases:
    """Labelled cases: features_NF float32 of clean images, the CNN's ages and the true ones, float64 in years."""

    features_NF: Array
    cnn_N: Array
    true_N: Array


@final
class Trees:
    """Features to ages in years, with the weight that the CNN's own age has beside them."""

    def __init__(self, booster: Booster, cnn_weight: float) -> None:
        self.booster, self.cnn_weight = booster, cnn_weight

    @property
    def rounds(self) -> int:
        """How many trees there are."""
        return int(self.booster.num_boosted_rounds())

    def predict(self, features_NF: Array) -> Array:
        """Ages (N,) in years; NaN for a case whose features are not finite, which trees would take for missing ones."""
        years_N = self.booster.inplace_predict(features_NF.astype(np.float32)).astype(np.float64)
        return np.where(np.isfinite(features_NF).all(1), years_N, np.nan)

    def blend(self, features_BF: Tensor, outputs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(the outputs with the blended `age_years`, the two ages (B,) in years that were blended: cnn and trees)."""
        cnn_B = outputs["age_years"].float()
        trees_B = torch.from_numpy(self.predict(features_BF.float().cpu().numpy())).to(cnn_B)
        blended_B = self.cnn_weight * cnn_B + (1 - self.cnn_weight) * trees_B
        return {**outputs, "age_years": blended_B}, {"cnn": cnn_B, "trees": trees_B}

    def to_bytes(self) -> bytes:
        """XGBoost's JSON; equal trees are equal bytes."""
        self.booster.set_attr(**{_WEIGHT: repr(self.cnn_weight)})
        return bytes(self.booster.save_raw("json"))


def check_installed() -> None:
    """Raise `UsageError` where xgboost is absent."""
    try:
        import xgboost  # noqa: F401
    except ImportError:
        raise UsageError(
            "this recipe blends gradient-boosted trees and xgboost is not installed: pip install 'boneage-ray[blend]'"
        ) from None


def fit_trees(config: BlendConfig, train: Cases, val: Cases, seed: int, threads: int) -> Trees:
    """Trees for the ages of `train`, stopped early by their error on `val`, with the weight that the config says.

    The same data and seed give the same bytes. Figures on `val` are no measure of the result: it decided when to stop, and,
    if the config says so, the weight.
    """
    check_installed()
    import xgboost

    data, watched = (xgboost.DMatrix(c.features_NF, label=c.true_N, nthread=threads) for c in (train, val))
    booster = xgboost.train(
        _parameters(config, seed, threads),
        data,
        num_boost_round=config.rounds,
        evals=[(watched, "val")],
        early_stopping_rounds=config.early_stop,
        verbose_eval=False,
    )
    trees = Trees(booster[: booster.best_iteration + 1], cnn_weight=1.0)
    if config.cnn_weight == "validation":
        trees.cnn_weight = choose_weight(val.cnn_N, trees.predict(val.features_NF), val.true_N)
    else:
        trees.cnn_weight = config.cnn_weight
    return trees


def _parameters(config: BlendConfig, seed: int, threads: int) -> dict[str, Any]:
    return {
        "objective": "reg:squarederror",
        "eval_metric": "mae",
        # Cuts half-way between two values. XGBoost's usual "hist" cuts at a value itself: where the encoder rounds otherwise
        # (bfloat16 or float32, another batch), cases change sides, and with the sex embedding all of one sex (measured).
        "tree_method": "exact",
        "device": "cpu",
        "max_depth": config.depth,
        "eta": config.eta,
        "subsample": config.subsample,
        "colsample_bytree": config.colsample,
        "gamma": config.gamma,
        "alpha": config.alpha,
        "lambda": config.reg_lambda,
        "seed": seed,
        "nthread": threads,
    }


def choose_weight(cnn_N: Array, trees_N: Array, true_N: Array) -> float:
    """The CNN's weight with the smallest mean absolute error; of equals the one that trusts the CNN more."""
    # Rounded, so that equal is not a matter of the last bit.
    return min(reversed(WEIGHTS), key=lambda weight: round(blend_error(weight, cnn_N, trees_N, true_N), 9))


def blend_error(weight: float, cnn_N: Array, trees_N: Array, true_N: Array) -> float:
    """Mean absolute error of a blend, in the unit of the ages."""
    return float(np.abs(weight * cnn_N + (1 - weight) * trees_N - true_N).mean())


def read_trees(data: bytes, features: int, threads: int, origin: str) -> Trees:
    """Trees from their bytes. Raises `UsageError` for anything but whole trees on `features` features."""
    check_installed()
    import xgboost

    try:
        whole = json.loads(data)
        learner = whole["learner"]
        weight = float(learner["attributes"][_WEIGHT])
        held = int(learner["learner_model_param"]["num_feature"])
        _check_settings(learner)
        _check_trees(learner["gradient_booster"]["model"]["trees"], held)
        booster = xgboost.Booster({"nthread": threads})
        # Written anew, so that XGBoost reads what was checked: of a key given twice it might take the other value.
        booster.load_model(bytearray(json.dumps(whole).encode()))
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError, xgboost.core.XGBoostError):
        raise UsageError(f"{origin} does not hold boosted trees with a blend weight, or is damaged") from None
    if held != features or not 0 <= weight <= 1:
        raise UsageError(
            f"{origin} has trees on {held} features and weight {weight:g}; the model has {features} features"
        )
    return Trees(booster, weight)


def _check_settings(learner: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless these are trees for one age: of others XGBoost would crash, or answer in another shape."""
    for place, ours in _OURS.items():
        value: Any = learner
        for key in place:
            value = value[key]
        if value != ours:
            raise ValueError(f"{'.'.join(place)} is not as our trees have it")
    model = learner["gradient_booster"]["model"]
    count = len(model["trees"])
    numbered = (int(model["gbtree_model_param"]["num_trees"]), model["tree_info"], model["iteration_indptr"])
    if numbered != (count, [0] * count, list(range(count + 1))):
        raise ValueError("trees of more than one output, or another number of them")
    start = float(str(learner["learner_model_param"]["base_score"]).strip("[]"))  # since XGBoost 3.1 in brackets
    if not 0 <= start <= _HIGHEST_YEARS:
        raise ValueError("trees that start from no age")


def _check_trees(trees: Sequence[Mapping[str, Any]], features: int) -> None:
    """Raise `ValueError` unless every tree can be walked: XGBoost believes the indices in a file and would crash."""
    if not trees:
        raise ValueError("no trees")
    for tree in trees:
        size = int(tree["tree_param"]["num_nodes"])
        _check_nodes(tree, size, features)
        left, right, split = (np.asarray(tree[k]) for k in ("left_children", "right_children", "split_indices"))
        if {len(left), len(right), len(split)} != {size}:
            raise ValueError("a tree with parts of unequal length")
        level, walked = np.zeros(1, np.int64), 0
        while len(level):
            walked += len(level)
            inner = level[left[level] != -1]
            level = np.concatenate([left[inner], right[inner]])
            inside = (level > 0).all() and (level < size).all() and (split[inner] < features).all()
            if walked > size or not inside or (split[inner] < 0).any():  # more steps than nodes: a circle
                raise ValueError("a tree that cannot be walked")


def _check_nodes(tree: Mapping[str, Any], size: int, features: int) -> None:
    """Raise `ValueError` unless every node has one finite number and no categories."""
    sizes = tree["tree_param"]
    if int(sizes["num_feature"]) != features or sizes["size_leaf_vector"] not in ("0", "1"):
        raise ValueError("a tree on other features, or with vectors for leaves")
    if any(len(tree[name]) != size for name in _NODES) or not np.isfinite(tree["split_conditions"]).all():
        raise ValueError("a tree with parts of unequal length, or with a value that is not finite")
    if any(tree["split_type"]) or any(len(tree[name]) for name in tree if name.startswith("categories")):
        raise ValueError("a tree that asks for categories")
