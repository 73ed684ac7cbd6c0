"""What `boneage calibrate` makes of a site's predictions: the values of calibration.json, the figures, and words for the card."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from boneage_ray.anatomy.growth import Sex
from boneage_ray.datasets.load import PreparedData
from boneage_ray.errors import UsageError
from boneage_ray.evaluation.bootstrap import bootstrap_interval
from boneage_ray.evaluation.page import percent
from boneage_ray.model_card import CardTable, Chapter
from boneage_ray.prediction.members import Models
from boneage_ray.preparation.geometry import Floats
from boneage_ray.preparation.split import Split
from boneage_ray.records.schema import Row
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.tasks.age.findings.analysis import Predictions
from boneage_ray.tasks.age.findings.coverage import coverage_figures, covered_in_words
from boneage_ray.tasks.age.findings.predictions import bounds_of, predict_ages
from boneage_ray.tasks.age.intervals import cases_needed, lacking_cases
from boneage_ray.tasks.age.site import FEWEST, FOLDS, SiteCases, fit_site, nested, usable_cases

_DIGITS = 3


@dataclass(frozen=True)
class Calibrated:
    """`values` of calibration.json; `answer` for the terminal, with figures before and after; `notes` for people."""

    values: dict[str, Any]
    answer: dict[str, Any]
    notes: Sequence[str]


def predict(models: Models, prepared: PreparedData, split: Split, compute: RunDevice) -> list[Row]:
    """Predictions of a split, as an evaluation makes them."""
    return predict_ages(models, [prepared], split, compute)


def check_count(cases: int, where: str, hint: str, coverage: float) -> None:
    """Raise `UsageError` where there are fewer cases than a correction and an interval of this coverage need."""
    # Every fold of the nested cross-validation must do with the others.
    needed = max(FEWEST, math.ceil(cases_needed(coverage) * FOLDS / (FOLDS - 1)))
    if cases < needed:
        raise UsageError(
            f"not enough cases ({cases} of {needed}) with a sex and an age {where} to calibrate a model"
            f"{'' if needed == FEWEST else f' at a coverage of {coverage:g}'}: {hint}"
        )


def calibrated(rows: Sequence[Row], coverage: float) -> Calibrated:
    """Correction and intervals from predicted rows, and what nested cross-validation says that they gain."""
    sexes = [row["sex"] for row in rows]
    cases = usable_cases(sexes, [r["true_months"] for r in rows], [r["predicted_months"] for r in rows])
    known = [row for row in rows if row["sex"] in ("F", "M")]
    site = fit_site(cases, coverage)
    corrected_N, bounds = nested(cases, coverage)
    own = [bounds_of(row) for row in known]
    levels = [row["interval_coverage"] for row in known if row["interval_coverage"] is not None]
    before = _figures(cases, cases.predicted_N, own if levels else None, next(iter(levels), None))
    after = _figures(cases, corrected_N, bounds, coverage)
    answer: dict[str, Any] = {
        "cases": len(cases.true_N),
        "girls": int((cases.sexes == "F").sum()),
        "boys": int((cases.sexes == "M").sum()),
        "correction": site.correction.in_words(),
    }
    for name in ("mae_months", "rmse_months", "bias_months"):
        answer[name] = {"before": before[name], "after": after[name]}
    answer["mae_95_interval_after"] = "{:.2f} to {:.2f}".format(*after["mae_interval_months"])
    answer["inside_interval_before"] = _covered(before["coverage"])
    answer["inside_interval_after"] = _covered(after["coverage"])
    values = {
        "calibrated": True,
        "fitted_on": f"{len(cases.true_N)} cases of the site",
        "coverage": coverage,
        "correction": site.correction.as_json(),
        "age_intervals": site.groups,
        "measured": {"before": before, "after": after, "by": f"nested cross-validation, {FOLDS} folds"},
    }
    return Calibrated(values, answer, lacking_cases(site.groups, cases.sexes.tolist()))


def _covered(found: dict[str, Any] | None) -> str:
    if found is None:
        return "no intervals"
    return f"{covered_in_words(found)}; {percent(found['level'])} are promised"


def _figures(
    cases: SiteCases, ages_N: Floats, bounds: Sequence[tuple[float, float] | None] | None, level: float | None
) -> dict[str, Any]:
    """Errors (predicted minus true) and coverage of ages, ready for JSON."""
    error_N = ages_N - cases.true_N
    low, high = bootstrap_interval(np.abs(error_N), np.random.default_rng(0)) or (math.nan, math.nan)
    sexes: list[Sex | None] = ["F" if sex == "F" else "M" for sex in cases.sexes.tolist()]
    names = [str(k) for k in range(len(sexes))]
    stages: list[dict[str, str]] = [{} for _ in sexes]
    given = Predictions(names, names, sexes, cases.true_N.tolist(), ages_N.tolist(), stages, bounds=bounds, level=level)
    return {
        "mae_months": round(float(np.abs(error_N).mean()), _DIGITS),
        "mae_interval_months": [round(low, _DIGITS), round(high, _DIGITS)],
        "rmse_months": round(float(np.sqrt((error_N**2).mean())), _DIGITS),
        "bias_months": round(float(error_N.mean()), _DIGITS),
        "coverage": coverage_figures(given),
    }


def chapter(site: str, found: Calibrated, sha256: str) -> Chapter:
    """The chapter of the model card on this site."""
    measured, answer = found.values["measured"], found.answer
    lines = [
        [words, f"{measured['before'][key]:.2f}", f"{measured['after'][key]:.2f}"]
        for words, key in (
            ("mean absolute error, months", "mae_months"),
            ("root mean square error, months", "rmse_months"),
            ("bias (predicted minus true), months", "bias_months"),
        )
    ]
    lines.append(
        ["true age inside the interval", answer["inside_interval_before"], answer["inside_interval_after"]],
    )
    text = (
        f"From {answer['cases']} of its own cases ({answer['girls']} girls, {answer['boys']} boys); made from model "
        f"{sha256[:12]}. Correction of the predicted age: {answer['correction']}."
    )
    table = CardTable([f"by {measured['by']}", "before", "after"], lines)
    notes = ["\n".join(f"- {note}" for note in found.notes)] if found.notes else []
    return Chapter(f"Calibrated for {site}", [text, *notes], [table])
