"""The page of `boneage evaluate` for a cephalogram bundle: errors in mm, each landmark, sigma, stages, and sheets of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from boneage_ray.evaluation import figures
from boneage_ray.evaluation.learnt import learnt_in_words
from boneage_ray.evaluation.page import (
    Number,
    Page,
    PagePicture,
    PageStatus,
    PageTable,
    Section,
    percent,
    render_page,
    shown,
)
from boneage_ray.tasks.cephalogram.findings import figures as landmark_figures
from boneage_ray.tasks.cephalogram.findings.analysis import DETECTED_MM, LandmarkPredictions

Sheets = Mapping[str, Sequence[tuple[bytes, str]]]  # title -> PNG and caption of each image
HEATMAPS = "Heatmaps"  # the title of the sheet that shows no whole images
FEW_IMAGES, POOR_MM = 50, 2.0


def landmark_page(
    analysis: Mapping[str, Any],
    predictions: LandmarkPredictions,
    sheets: Sheets,
    facts: Mapping[str, str],
    command: str,
    more: Sequence[Section] = (),
) -> str:
    """`analysis` of these predictions by `analyse_landmarks`; `sheets` by `sheets_of` and `heatmaps_of`; `more`: sections."""
    sections = [
        _errors(analysis, predictions, command),
        *(_each(name, found) for name, found in analysis["sets"].items() if "landmarks" in found),
        *([_stage(analysis["stage"], command)] if analysis["stage"] else []),
        *([_sigma(analysis["sigma"], command)] if analysis["sigma"] else []),
        *(_sheet(title, pictures) for title, pictures in sheets.items() if pictures),
        *more,
        _limits(),
    ]
    page = Page(
        title="Evaluation of cephalometric landmarks",
        facts={**facts, "Images": str(analysis["n"])},
        status=_status(analysis),
        numbers=_numbers(analysis),
        sections=sections,
        data={"facts": dict(facts), "command": command, "analysis": dict(analysis)},
    )
    return render_page(page)


def _status(analysis: Mapping[str, Any]) -> PageStatus:
    cautions = learnt_in_words(analysis.get("learnt"))
    cautions += [
        f"The {name} points err by {shown(found['mre_mm'], 2)} mm in the mean: too much for measuring."
        for name, found in analysis["sets"].items()
        if found.get("mre_mm", 0) > POOR_MM
    ]
    cautions += [
        f"{count} labelled {name} points were found nowhere: they count as not detected, and are in no mean error."
        for name, count in analysis["missed_points"].items()
        if count
    ]
    if unsure := analysis.get("below_confidence", 0):
        cautions.append(f"{unsure} of these images `boneage score` would reject: their points are not sure enough.")
    if analysis["n"] < FEW_IMAGES:
        cautions.append(f"There are few images ({analysis['n']}): every number here is uncertain.")
    if not analysis["sets"]:
        cautions.append("No image has both a given and a predicted point: there is nothing to compare.")
    elif not any("mre_mm" in found for found in analysis["sets"].values()):
        cautions.append("No image has a pixel spacing: errors are known in pixels only.")
    if cautions:
        return PageStatus("caution", "Evaluated, with cautions", cautions)
    return PageStatus("good", "Evaluated, no caution raised")


def _numbers(analysis: Mapping[str, Any]) -> list[Number]:
    found = []
    for name, values in analysis["sets"].items():
        if "mre_mm" not in values:
            found.append(Number(f"Mean radial error, {name}", f"{shown(values['mre_px'], 2)} px"))
            continue
        found.append(
            Number(f"Mean radial error, {name}", f"{values['mre_mm']:.2f} mm", _interval(values["mre_mm_interval"]))
        )
        near = values["sdr"]["2"]
        found.append(Number(f"Within 2 mm, {name}", percent(near["share"]), _interval(near["interval"], percent=True)))
    if analysis["stage"]:
        stage = analysis["stage"]
        note = _interval(stage["accuracy_interval"], percent=True)
        found.append(Number("Stage as from the given points", percent(stage["accuracy"]), note))
    return found


def _interval(ends: Sequence[float] | None, percent: bool = False) -> str:
    if ends is None:
        return "one image"
    low, high = (f"{end:.1%}" if percent else f"{end:.2f}" for end in ends)
    return f"95 % interval {low} to {high}"


def _errors(analysis: Mapping[str, Any], predictions: LandmarkPredictions, command: str) -> Section:
    rows = []
    for name, found in analysis["sets"].items():
        if "mre_mm" not in found:
            continue
        spread = [shown(found["percentiles_mm"][q], 2) for q in ("50", "90", "95", "100")]
        shares = [percent(found["sdr"][f"{limit:g}"]["share"]) for limit in DETECTED_MM]
        rows.append([name, str(found["n"]), shown(found["mre_mm"], 2), shown(found["sd_mm"], 2), *spread, *shares])
    header = ["points", "images", "mean", "SD", "50 %", "90 %", "95 %", "worst", *(f"≤ {d:g} mm" for d in DETECTED_MM)]
    if not rows:
        pixels = [[name, str(found["n"]), shown(found["mre_px"], 2)] for name, found in analysis["sets"].items()]
        return Section("Errors", [], [PageTable(["points", "images", "mean, px"], pixels)], (), command)
    pictures = [
        PagePicture(
            landmark_figures.radial_histogram(predictions), "Histogram of radial errors", "How far points lie off."
        ),
        PagePicture(
            landmark_figures.detection_curve(predictions), "Share of points within a distance", "Detection rate."
        ),
    ]
    table = PageTable(
        header, rows, "Radial errors in mm: mean over images of their means; SD, percentiles and worst over points"
    )
    return Section("Errors", [], [table], pictures, command)


def _each(name: str, found: Mapping[str, Any]) -> Section:
    rows = [
        [r["name"].replace("_", " "), str(r["n"]), shown(r["mre_mm"], 2), shown(r["sd_mm"], 2), shown(r["sdr_2"], 3)]
        for r in found["landmarks"]
    ]
    return Section(
        f"Each {name} landmark", [], [PageTable(["landmark", "images", "mean, mm", "SD, mm", "share ≤ 2 mm"], rows)]
    )


def _stage(found: Mapping[str, Any], command: str) -> Section:
    text = [
        "The true stage is what the same rules say of the given points: this shows what the errors of the points do to the "
        "stage, not whether the rules are right.",
        *([f"{found['missed']} more have a stage by the given points only."] if found["missed"] else []),
    ]
    table = PageTable(
        ["images", "right", "right or next to it", "weighted kappa", "calibration error"],
        [
            [
                str(found["n"]),
                percent(found["accuracy"]),
                percent(found["adjacent"]),
                shown(found["weighted_kappa"], 3),
                shown(found["calibration_error"], 3),
            ]
        ],
        text_columns=0,
    )
    kappa = found["weighted_kappa"]
    picture = PagePicture(
        figures.confusion_matrix(found["classes"], found["confusion"], kappa, "cvm"),
        f"Confusion matrix of cervical stages, weighted kappa {shown(kappa, 3)}",
        "Stage from the predicted points against the stage from the given ones.",
    )
    return Section("Cervical stage", text, [table], [picture], command)


def _sigma(found: Mapping[str, Any], command: str) -> Section:
    text = [
        f"{percent(found['coverage_95'])} of the {found['n']} points lie within the circle that 95 % should lie in.",
    ]
    picture = PagePicture(
        landmark_figures.sigma_figure(found),
        "Expected against true radial error",
        "Below the line sigma is too large, above too small.",
    )
    return Section("How true sigma is", text, (), [picture], command)


def _sheet(title: str, pictures: Sequence[tuple[bytes, str]]) -> Section:
    if title == HEATMAPS:
        text = "Warm: where a landmark's map is high. Yellow: the given point. Cyan: the one that is read off the map."
    else:
        text = "Yellow: the given points. Cyan: the predicted ones, circles of one sigma."
    shown_here = [
        PagePicture(data, f"{title}: cephalogram with given and predicted points; {said}", said)
        for data, said in pictures
    ]
    return Section(title, [text], (), shown_here)


def _limits() -> Section:
    text = [
        "The intervals are bootstrap intervals over the images of this split. They do not cover other hospitals, devices, "
        "populations or annotators: how the model does there has to be measured there.",
        "The given points are one person's opinion, and share whatever error that has.",
    ]
    return Section("What this does not show", text)
