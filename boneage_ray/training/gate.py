"""The gate by pixels of a regressor of hands (models/pixel_gate.py), fitted when its training has ended.

Known are pictures of the training split, as prepared and as augmented; the limit comes from the validation split. Other things
are drawn (phantoms/no_hand.py), and known pictures that are cut up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boneage_ray.augment.pipeline import Augment
from boneage_ray.datasets.batch import Batch, as_float, make_batch
from boneage_ray.datasets.load import PreparedData
from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.errors import InputProblem
from boneage_ray.models.pixel_gate import ENOUGH_HELD_OUT, ENOUGH_KNOWN, LOST, PixelGate, fit_gate
from boneage_ray.models.precision import choose_precision
from boneage_ray.models.regressor import Regressor
from boneage_ray.phantoms.no_hand import pictures_without_hand
from boneage_ray.preparation.prepare import prepare_radiograph
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.runtime.devices import Precision, RunDevice
from boneage_ray.runtime.runs import say
from boneage_ray.training.blend import BATCH, clean_batches, trained_regressor

MOST_KNOWN, MOST_HELD_OUT = 800, 1000  # pictures; more change little, and each costs a pass of the network
EACH = 40  # pictures of each kind of other things
_TILES = 4  # a hand that is cut up, a side

Features = NDArray[np.float32]


def fit_training_gate(
    recipe: Recipe, prepared: PreparedData, weights: dict[str, Tensor], compute: RunDevice | None = None
) -> dict[str, Any] | None:
    """gate.json for the bundle; None, which is said where it is a want, for heads, masks, and too few cases."""
    if recipe.task_kind.region != "hand" or recipe.image.mask != "none" or not recipe.image.quality.pixel_gate:
        return None
    learnt, held_out = prepared.rows("train"), prepared.rows("val")
    if learnt < ENOUGH_KNOWN or held_out < ENOUGH_HELD_OUT:
        say(
            f"no gate by pixels: not enough cases (train {learnt} of {ENOUGH_KNOWN}, val {held_out} of {ENOUGH_HELD_OUT}); "
            "a picture of something else may get an age"
        )
        return None
    gpu = compute is not None and compute.device == "cuda" and torch.cuda.is_available()
    auto = compute.auto if compute else None
    model = trained_regressor(recipe, weights, torch.device("cuda" if gpu else "cpu"))
    known = islice(clean_batches(prepared, "train"), MOST_KNOWN // BATCH)
    return gate_of(model, recipe, known, islice(clean_batches(prepared, "val"), MOST_HELD_OUT // BATCH), auto=auto)


def gate_of(
    model: Regressor,
    recipe: Recipe,
    known: Iterable[Batch],
    held_out: Iterable[Batch],
    each: int = EACH,
    auto: Precision | None = None,
) -> dict[str, Any] | None:
    """gate.json, from batches of pictures that the network has learnt from and of others of their kind; `auto` as for
    `choose_precision`: the gate is fitted to features as predictions have them.

    None, which is said, where the features are not finite: such a network did not learn.
    """
    learnt, precision = list(known), choose_precision(recipe.precision, model.mean.device, auto)
    fitted = gate_without_limit(model, recipe, learnt, precision, each)
    held_NF = features_of_pictures(model, held_out, precision)
    if fitted is None or not np.isfinite(held_NF).all():
        say("no gate by pixels: the network's features are not finite")
        return None
    gate = fitted.gate.limited(fitted.gate.likeness(held_NF))
    return gate.as_json() | {
        "known": fitted.known,
        "others": fitted.others,
        "held_out": len(held_NF),
        "held_out_below": LOST,
        "fitted_on": f"{sum(map(len, learnt))} cases of the training split; limit from {len(held_NF)} of the validation split",
    }


class Fitted(NamedTuple):
    """A gate whose limit is not set, and the numbers of pictures behind it."""

    gate: PixelGate
    known: int
    others: int


def gate_without_limit(
    model: Regressor,
    recipe: Recipe,
    learnt: Sequence[Batch],
    precision: torch.dtype | None,
    each: int = EACH,
    heads: Sequence[Batch] = (),
) -> Fitted | None:
    """From pictures that the network has learnt from, as prepared and as augmented; None where features are not finite.

    `heads`: one more kind of other things, beside those that are drawn.
    """
    say(f"fitting the gate by pixels: {sum(map(len, learnt))} known pictures against others")
    known_NF = np.concatenate(
        [features_of_pictures(model, part, precision) for part in (learnt, _augmented(recipe, learnt))]
    )
    drawn = (picture_batches(pictures) for pictures in _others(recipe, learnt, each) if pictures)
    kinds = (*drawn, heads) if heads else drawn
    others = [features_of_pictures(model, batches, precision) for batches in kinds]
    if not all(np.isfinite(part).all() for part in (known_NF, *others)):
        return None
    return Fitted(fit_gate(known_NF, others), len(known_NF), sum(map(len, others)))


@torch.inference_mode()
def features_of_pictures(model: Regressor, batches: Iterable[Batch], precision: torch.dtype | None) -> Features:
    """(N, F) of the encoder, computed in `precision` (None: float32)."""
    device = model.mean.device
    found = []
    for batch in batches:
        on_device = batch.to(device)
        with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
            features_BF = model.features(as_float(on_device.image_B1HW), on_device.sex_B)
        found.append(features_BF[:, : model.encoder_features].float().cpu().numpy())
    return np.concatenate(found)


def _augmented(recipe: Recipe, learnt: Iterable[Batch]) -> Iterator[Batch]:
    """The same pictures as the training has changed them; the global random state is not changed."""
    augment = Augment(recipe.augment)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        drawn = [augment(as_float(batch.image_B1HW)).image_B1HW for batch in learnt]
    for batch, image_B1HW in zip(learnt, drawn, strict=True):
        pictures = (255 * image_B1HW[:, 0]).round().byte().cpu().numpy()
        yield make_batch(list(pictures), [None] * len(batch))


def _others(recipe: Recipe, learnt: Iterable[Batch], each: int) -> Iterator[list[NDArray[np.uint8]]]:
    """Prepared pictures (S, S) of each kind; those that the gate by quality rejects never come to this one."""
    for pictures in pictures_without_hand(range(each)).values():
        yield _prepared(recipe, pictures)
    hands = [picture for batch in learnt for picture in batch.image_B1HW[:, 0].cpu().numpy()][:each]
    rng = np.random.default_rng(recipe.seed)
    yield [_shuffled(rng, hand) for hand in hands]
    yield _prepared(recipe, (_part(rng, hand) for hand in hands))


def _prepared(recipe: Recipe, pictures: Iterable[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    quality = recipe.image.quality.model_copy(update={"pixel_gate": False})
    config = recipe.image.model_copy(update={"quality": quality}).expecting("hand")
    found = []
    for pixels in pictures:
        try:
            found.append(prepare_radiograph(Radiograph(pixels), config).pixels)
        except InputProblem:
            continue
    return found


def picture_batches(pictures: Sequence[NDArray[np.uint8]]) -> Iterator[Batch]:
    """Prepared pictures (S, S) without label or sex, in batches."""
    for start in range(0, len(pictures), BATCH):
        part = pictures[start : start + BATCH]
        yield make_batch(part, [None] * len(part))


def _shuffled(rng: np.random.Generator, hand: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The tiles of a picture (S, S) in another order."""
    side = len(hand) // _TILES
    tiles = [
        hand[y : y + side, x : x + side] for y in range(0, _TILES * side, side) for x in range(0, _TILES * side, side)
    ]
    order = rng.permutation(len(tiles))
    rows = [np.hstack([tiles[k] for k in order[start : start + _TILES]]) for start in range(0, len(tiles), _TILES)]
    shuffled = hand.copy()
    shuffled[: _TILES * side, : _TILES * side] = np.vstack(rows)
    return shuffled


def _part(rng: np.random.Generator, hand: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A ninth of a picture or less, as the whole picture."""
    side = int(len(hand) * rng.uniform(0.2, 0.33))
    y, x = rng.integers(len(hand) // 6, len(hand) - side - len(hand) // 6, 2)
    return np.ascontiguousarray(hand[y : y + side, x : x + side])
