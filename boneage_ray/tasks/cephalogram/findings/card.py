"""The chapters of the model card on landmarks and the cervical stage, from the analysis of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boneage_ray.evaluation.page import shown
from boneage_ray.findings.evaluation_card import share, with_interval
from boneage_ray.model_card import CardTable, Chapter


def landmark_chapters(analysis: Mapping[str, Any]) -> list[Chapter]:
    """Errors of the sets of points, of each landmark, and of the stage; nothing where the analysis holds none."""
    sets = analysis.get("sets")
    if not sets:
        return []
    text = [f"On {analysis['n']} images; in brackets 95 % intervals."]
    chapters = [Chapter("Errors", text, [CardTable(["figure", "value"], _rows(analysis), 2)])]
    each = [
        [f"{name}: {row['name'].replace('_', ' ')}", str(row["n"]), shown(row["mre_mm"], 2), shown(row["sd_mm"], 2)]
        for name, found in sets.items()
        for row in found.get("landmarks", ())
    ]
    if each:
        chapters.append(
            Chapter("Errors of each landmark", [], [CardTable(["landmark", "images", "mean, mm", "SD, mm"], each)])
        )
    return chapters


def _rows(analysis: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for name, found in analysis["sets"].items():
        if "mre_mm" not in found:
            rows.append([f"{name} points: mean radial error", f"{shown(found['mre_px'], 2)} pixels of the original"])
            continue
        rows.append(
            [f"{name} points: mean radial error", with_interval(found["mre_mm"], found["mre_mm_interval"], 2, " mm")]
        )
        near = found["sdr"]["2"]
        rows.append([f"{name} points: within 2 mm", share(near["share"], near["interval"])])
    if stage := analysis.get("stage"):
        rows.append(["cervical stage: as from the given points", share(stage["accuracy"], stage["accuracy_interval"])])
        rows.append(["cervical stage: equal or next to it", share(stage["adjacent"], None)])
    if sigma := analysis.get("sigma"):
        rows.append(["points inside the circle that 95 % should lie in", share(sigma["coverage_95"], None)])
    return rows
