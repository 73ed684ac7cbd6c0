"""What an evaluation of ages shows beyond its figures of error: certainty, a map of the cases, heat maps, the gate by pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from boneage_ray import bundle
from boneage_ray.evaluation.page import Section
from boneage_ray.evaluation.retention import retention_figures, retention_section
from boneage_ray.findings.task_findings import EvaluationOrder
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.records.schema import Row
from boneage_ray.tasks.age.findings.analysis import Predictions
from boneage_ray.tasks.age.findings.feature_map import map_figures, map_section
from boneage_ray.tasks.age.findings.gate_roc import gate_figures, gate_section
from boneage_ray.tasks.age.findings.heat_sheets import heat_sections
from boneage_ray.tasks.age.findings.similar import similar_section

SPREAD, WIDTH = "spread of the members", "width of the interval"


def certainty_figures(predictions: Predictions) -> dict[str, Any] | None:
    """Risk and coverage by the ensemble's spread, or by the width of the intervals where there is no spread; None without both.

    `by` says which; cases without an interval are left out.
    """
    size_N = np.abs(predictions.errors)
    if predictions.spread_months is not None:
        return {"by": SPREAD, **retention_figures(np.asarray(predictions.spread_months, np.float64), size_N)}
    if predictions.bounds is None:
        return None
    known = [k for k, pair in enumerate(predictions.bounds) if pair is not None]
    wide_N = np.array([pair[1] - pair[0] for pair in predictions.bounds if pair is not None], np.float64)
    return {"by": WIDTH, **retention_figures(wide_N, size_N[known])}


def look(order: EvaluationOrder, rows: Sequence[Row], predictions: Predictions) -> tuple[dict[str, Any], list[Section]]:
    """Figures for metrics.json, and the sections of the page; heat maps and the gate are those of the first model."""
    first = order.models.members[0]
    note = f"By the first of {len(order.models.members)} models, {first.name}." if len(order.models.members) > 1 else ""
    predictor = Predictor(bundle.load(first.uri), "cpu", auto=order.compute.auto)
    predictor.tells_features = True
    found = {
        "certainty": certainty_figures(predictions),
        "map": map_figures(rows),
        "gate": gate_figures(predictor, rows),
    }
    sections = []
    if certainty := found["certainty"]:
        sections.append(retention_section(certainty, certainty["by"], "MAE (months)", order.command))
    sections.append(map_section(found["map"] or {}, rows, note, order.command))
    sections += heat_sections(predictor, rows, note, order.command)
    if order.similar:
        sections.append(similar_section(order, rows, note))
    if gate := found["gate"]:
        sections.append(gate_section(gate, order.command))
    # The places of the map are drawn: as figures they would say nothing.
    return found | {"map": {key: value for key, value in (found["map"] or {}).items() if key != "places"}}, sections
