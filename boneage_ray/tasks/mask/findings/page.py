"""The page of `boneage evaluate` for a hand-mask bundle: figures, the worst images, and overlays from worst to best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
from boneage_ray.records.schema import Row

# Below this an image deserves a look: a finger is missing, or a label belongs to the hand.
DOUBTFUL = 0.9


def mask_page(
    analysis: Mapping[str, Any],
    groups: Mapping[str, Sequence[Row]],
    overlays: Mapping[str, bytes],
    facts: Mapping[str, str],
    command: str,
) -> str:
    """`analysis`, `groups` (`shown_groups`) and `overlays` (record id -> PNG) as predictions.py makes them."""
    pictures = [_overlays(name, rows, overlays) for name, rows in groups.items()]
    page = Page(
        title="Evaluation of hand masks",
        facts={**facts, "Images": str(analysis["n"])},
        status=_status(analysis),
        numbers=_numbers(analysis),
        sections=[_spread(analysis, command), *pictures, _limits()],
        data={"facts": dict(facts), "command": command, "analysis": dict(analysis)},
    )
    return render_page(page)


def _status(analysis: Mapping[str, Any]) -> PageStatus:
    doubtful, learnt = sum(row["dice"] < DOUBTFUL for row in analysis["worst"]), learnt_in_words(analysis.get("learnt"))
    if not doubtful:
        headline = f"Every image has a Dice of {DOUBTFUL:g} or more"
        return PageStatus("caution" if learnt else "good", headline, learnt)
    more = "or more " if doubtful == len(analysis["worst"]) < analysis["n"] else ""
    headline = f"{doubtful} {more}of {analysis['n']} images have a Dice below {DOUBTFUL:g}: check them"
    return PageStatus("caution", headline, learnt)


def _numbers(analysis: Mapping[str, Any]) -> list[Number]:
    found = []
    for name, words in (("dice", "Dice"), ("iou", "Intersection over union")):
        ends = analysis[f"{name}_mean_interval"]
        note = f"95 % interval {shown(ends[0], 4)} to {shown(ends[1], 4)}" if ends else "one image"
        found.append(Number(f"{words}, mean over images", shown(analysis[f"{name}_mean"], 4), note))
        found.append(Number(f"{words}, worst image", shown(analysis[f"{name}_min"], 4)))
    return found


def _spread(analysis: Mapping[str, Any], command: str) -> Section:
    names = {"dice": "Dice", "iou": "IoU"}
    points = list(analysis["dice_percentiles"])
    rows = [
        [words, *(shown(analysis[f"{name}_percentiles"][point], 4) for point in points)]
        for name, words in names.items()
    ]
    spread = PageTable(
        ["", *(f"{point} %" for point in points)], rows, "Percentiles: this share of the images is below"
    )
    worst = [
        [r["record_id"], shown(r["dice"], 4), shown(r["iou"], 4), percent(r["true_part"]), percent(r["predicted_part"])]
        for r in analysis["worst"]
    ]
    header = ["record", "Dice", "IoU", "true mask", "predicted mask"]
    return Section(
        "Overlap with the given masks",
        (),
        [spread, PageTable(header, worst, "The worst; masks as shares of the image")],
        (),
        command,
    )


def _overlays(name: str, rows: Sequence[Row], overlays: Mapping[str, bytes]) -> Section:
    pictures = [
        PagePicture(
            overlays[row["record_id"]],
            f"Radiograph {row['record_id']} with the outline of the given mask in green, of the predicted one in orange",
            f"{row['record_id']}: Dice {shown(row['dice'], 4)}, IoU {shown(row['iou'], 4)}",
        )
        for row in rows
    ]
    return Section(f"{name} images", ["Green: the given mask. Orange: the predicted one."], (), pictures)


def _limits() -> Section:
    text = [
        "The given masks count as true. Where they were found without a model (image.mask=hand), the figures say how well the "
        "network agrees with that method, not how well either finds hands.",
        "The interval covers the images of this split, not other devices or views.",
    ]
    return Section("What this does not show", text)
