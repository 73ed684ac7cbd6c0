"""Files to result rows: one row for every file, whatever is in it. Offline and online scoring share these lines."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from boneage_ray import __version__
from boneage_ray.archives.archive import Input
from boneage_ray.errors import InputProblem
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.records.prepare import Prepared
from boneage_ray.records.schema import Row, empty_result

# Labels of the published sets end at 228 months; an age outside was never seen in training.
AGE_RANGE_MONTHS = (0.0, 228.0)


@dataclass(frozen=True)
class Loaded:
    """An input with its prepared image, or with the problem that it met."""

    item: Input
    sha256: str | None
    size: int | None
    outcome: Prepared | InputProblem


def load_input(item: Input, data: bytes | InputProblem, prepare: Callable[[bytes], Prepared]) -> Loaded:
    """Decode and prepare one input by `prepare`; never raises for what is in the file."""
    if isinstance(data, InputProblem):
        return Loaded(item, None, None, data)
    digest = hashlib.sha256(data).hexdigest()
    try:
        return Loaded(item, digest, len(data), prepare(data))
    except InputProblem as problem:
        return Loaded(item, digest, len(data), problem)


def score_rows(loaded: Iterable[Loaded], predictor: Predictor) -> Iterator[Row]:
    """Result rows in the order of the inputs."""
    waiting: list[Loaded] = []
    for case in loaded:
        waiting.append(case)
        if sum(isinstance(c.outcome, Prepared) for c in waiting) >= predictor.batch_size:
            yield from _rows(waiting, predictor)
            waiting = []
    yield from _rows(waiting, predictor)


def _rows(cases: list[Loaded], predictor: Predictor) -> Iterator[Row]:
    sexes = [_sex(case)[0] for case in cases if isinstance(case.outcome, Prepared)]
    images = [case.outcome.pixels for case in cases if isinstance(case.outcome, Prepared)]
    predicted = predictor({"image": images, "sex": sexes}) if images else {}
    scored = 0
    for case in cases:
        row = _common(case, predictor)
        if isinstance(case.outcome, InputProblem):
            _add_problem(row, case.outcome)
        else:
            values = {name: column[scored] for name, column in predicted.items()}
            scored += 1
            _add_prediction(row, values)
        yield row


def _common(case: Loaded, predictor: Predictor) -> Row:
    """What every row says, scored or not."""
    sex, sex_source = _sex(case)
    spacing, spacing_source = case.item.pixel_spacing_mm, case.item.pixel_spacing_source
    row = empty_result()
    if isinstance(case.outcome, Prepared):
        source = case.outcome.source
        row |= source.uids
        if spacing is None and source.pixel_spacing_mm is not None:
            spacing, spacing_source = source.pixel_spacing_mm, source.pixel_spacing_source
        unknown = ["sex_unknown"] * (sex is None) + ["spacing_unknown"] * (spacing is None)
        row["flags"] = [*case.outcome.flags, *unknown]
    return row | {
        "input_uri": case.item.uri,
        "input_sha256": case.sha256,
        "input_bytes": case.size,
        "sex": sex,
        "sex_source": sex_source,
        "pixel_spacing_mm": spacing,
        "pixel_spacing_source": spacing_source,
        "model": predictor.recipe.name,
        "model_sha256": predictor.sha256,
        "package_version": __version__,
    }


def _sex(case: Loaded) -> tuple[str | None, str]:
    """Said on the command line or in the metadata, else by the file, else unknown."""
    if case.item.sex is None and isinstance(case.outcome, Prepared) and case.outcome.source.sex:
        return case.outcome.source.sex, "dicom"
    return case.item.sex, case.item.sex_source


def _add_problem(row: Row, problem: InputProblem) -> None:
    row |= {"status": problem.status, "step": problem.step, "reason": problem.reason, "message": problem.message}


def _add_prediction(row: Row, values: Row) -> None:
    if not math.isfinite(values["age_months"]):
        _add_problem(
            row, InputProblem("predict", "internal_error", "the model answered with a number that is not finite")
        )
        return
    row |= {"status": "scored", **values}
    if not AGE_RANGE_MONTHS[0] <= values["age_months"] <= AGE_RANGE_MONTHS[1]:
        row["flags"] = [*row["flags"], "out_of_age_range"]
