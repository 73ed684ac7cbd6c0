"""Boosted trees on the features of a trained CNN, for the blend of a recipe.

Every prepared image of a split is used once, in the order of its shards, without augmentation. Sex is that of the record,
also if unknown. Records without a label are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from boneage_ray.anatomy.growth import MONTHS_PER_YEAR
from boneage_ray.datasets.batch import Batch, as_float, collate
from boneage_ray.datasets.load import PreparedData
from boneage_ray.datasets.plan import ordered_slices
from boneage_ray.datasets.read import read_rows
from boneage_ray.errors import BoneageError, NoUsableInputError, UsageError
from boneage_ray.models.backbone import load_checked
from boneage_ray.models.boosted_trees import Cases, Trees, blend_error, check_installed, choose_weight, fit_trees
from boneage_ray.models.precision import choose_precision
from boneage_ray.models.regressor import Regressor
from boneage_ray.preparation.split import Split
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.runtime.runs import ProgressLine, say
from boneage_ray.tasks.build import build_model

BATCH = 16
NOTE = (
    "The validation split chose the CNN's epoch, stopped the trees early and may have chosen the weight: "
    "its figures flatter all three. Only figures on the test split count."
)


def check_blend(recipe: Recipe) -> None:
    """Raise `UsageError` before a training whose trees could not be fitted."""
    if recipe.blend is not None:
        check_installed()


def fit_blend(
    recipe: Recipe, prepared: PreparedData, weights: dict[str, Tensor], compute: RunDevice | None = None
) -> tuple[bytes | None, dict[str, Any]]:
    """(trees for the bundle, their metrics for metrics.json); (None, {}) for a recipe without a blend.

    Raises `NoUsableInputError` if the training or the validation split has no labelled case.
    """
    if recipe.blend is None:
        return None, {}
    gpu = compute is not None and compute.device == "cuda" and torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    model = trained_regressor(recipe, weights, device)
    train, val = (features_of(model, recipe, prepared, split, compute) for split in ("train", "val"))
    say(f"fitting trees: {len(train.true_N)} cases, {train.features_NF.shape[1]} features")
    trees = fit_trees(recipe.blend, train, val, recipe.seed, torch.get_num_threads())
    figures = _figures(recipe, trees, train, val)
    errors = ", ".join(f"{name} {mae:.2f}" for name, mae in figures["val_mae_months"].items())
    say(f"{trees.rounds} trees, CNN weight {trees.cnn_weight:g}; validation MAE in months (not independent): {errors}")
    return trees.to_bytes(), {"blend": figures}


def trained_regressor(recipe: Recipe, weights: dict[str, Tensor], device: torch.device) -> Regressor:
    """A trained network, ready to predict. Raises `UsageError` unless it is a regressor."""
    model = build_model(recipe.model, with_weights=False, size=recipe.image.size)
    if not isinstance(model, Regressor):
        raise UsageError(f"recipe {recipe.name}: only a regressor has features for trees and for a gate")
    load_checked(model, weights, "the best checkpoint")
    return model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]


@torch.inference_mode()
def features_of(
    model: Regressor, recipe: Recipe, prepared: PreparedData, split: Split, compute: RunDevice | None = None
) -> Cases:
    """Features and ages of the labelled cases of a split, in the order of its shards; one shard in memory at a time."""
    device = model.mean.device
    precision = choose_precision(recipe.precision, device, compute.auto if compute else None)
    features, cnn, true = [], [], []
    with ProgressLine(f"features of {split}", prepared.rows(split)) as bar:
        for batch in clean_batches(prepared, split):
            known_B = ~torch.isnan(batch.age_B)
            on_device = batch.to(device)
            with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
                found_BF, outputs = model.with_features(as_float(on_device.image_B1HW), on_device.sex_B)
            features.append(found_BF.float().cpu()[known_B])
            cnn.append(outputs["age_years"].double().cpu()[known_B])
            true.append(batch.age_B.double()[known_B] / MONTHS_PER_YEAR)
            bar.update(bar.done + len(batch))
    return _whole(Cases(*(torch.cat(parts).numpy() for parts in (features, cnn, true))), split)


def clean_batches(prepared: PreparedData, split: Split) -> Iterator[Batch]:
    """Every record of a split once, in order, as prepared; the last batch of a shard may be short."""
    for part in ordered_slices(prepared.shards(split), 0, 1):
        table = read_rows(pa.Table.from_pylist([asdict(part)]))
        for start in range(0, table.num_rows, BATCH):
            yield collate(table.slice(start, BATCH).to_pydict())


def _whole(cases: Cases, split: Split) -> Cases:
    if not len(cases.true_N):
        raise NoUsableInputError(f"the {split} split has no labelled case, which fitting trees needs")
    broken = len(cases.true_N) - int(np.isfinite(cases.features_NF).all(1).sum())
    if broken:
        raise BoneageError(f"the network's features of {broken} {split} images are not finite: it did not learn")
    return cases


def _figures(recipe: Recipe, trees: Trees, train: Cases, val: Cases) -> dict[str, Any]:
    best = choose_weight(val.cnn_N, trees.predict(val.features_NF), val.true_N)
    chosen = recipe.blend is not None and recipe.blend.cnn_weight == "validation"
    return {
        "cnn_weight": trees.cnn_weight,
        "cnn_weight_from": "validation" if chosen else "recipe",
        "best_cnn_weight_on_val": best,
        "rounds": trees.rounds,
        "features": train.features_NF.shape[1],
        "train_cases": len(train.true_N),
        "val_cases": len(val.true_N),
        "train_mae_months": _errors(trees, train),
        "val_mae_months": _errors(trees, val),
        "note": NOTE,
    }


def _errors(trees: Trees, cases: Cases) -> dict[str, float]:
    """Mean absolute errors in months of the CNN, the trees and their blend."""
    own = trees.predict(cases.features_NF)
    weights = {"cnn": 1.0, "trees": 0.0, "blend": trees.cnn_weight}
    return {
        name: round(MONTHS_PER_YEAR * blend_error(weight, cases.cnn_N, own, cases.true_N), 4)
        for name, weight in weights.items()
    }
