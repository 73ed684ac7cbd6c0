"""Files to result rows: one row for every file, whatever is in it. Offline and online scoring share this module."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from boneage_ray import __version__
from boneage_ray.archives.archive import Input
from boneage_ray.errors import InputProblem
from boneage_ray.prediction.ensemble import Scorer, image_column
from boneage_ray.preparation.prepare import PreparedImage
from boneage_ray.records.known import Known, known_of
from boneage_ray.records.schema import Row, empty_result
from boneage_ray.tasks.task import Columns


@dataclass(frozen=True)
class Loaded:
    """An input with its prepared image, or with the problem that it met.

    `others`: the images of the further configs, where members of an ensemble want different ones (`Models.images`). `seconds`: to
    read and decode it.
    """

    item: Input
    sha256: str | None
    size: int | None
    outcome: PreparedImage | InputProblem
    others: tuple[PreparedImage, ...] = ()
    seconds: float = 0.0


# Writes a prediction into a row: the row, the values predicted for one case, and the case.
Add = Callable[[Row, Row, Loaded], None]


def load_input(item: Input, data: bytes | InputProblem, *prepares: Callable[[bytes], PreparedImage]) -> Loaded:
    """Decode and prepare one input, once by each of `prepares`; never raises for what is in the file.

    What one of them refuses is refused for all: a mean over some of the members would be another model's answer.
    """
    if isinstance(data, InputProblem):
        return Loaded(item, None, None, data)
    digest = hashlib.sha256(data).hexdigest()
    try:
        first, *others = [prepare(data) for prepare in prepares]
    except InputProblem as problem:
        return Loaded(item, digest, len(data), problem)
    return Loaded(item, digest, len(data), first, tuple(others))


def score_rows(loaded: Iterable[Loaded], predictor: Scorer, add: Add) -> Iterator[Row]:
    """Result rows in the order of the inputs; `add` writes into a row what was predicted, or why nothing could be."""
    waiting: list[Loaded] = []
    for case in loaded:
        waiting.append(case)
        if sum(isinstance(c.outcome, PreparedImage) for c in waiting) >= predictor.batch_size:
            yield from _rows(waiting, predictor, add)
            waiting = []
    yield from _rows(waiting, predictor, add)


def _rows(cases: list[Loaded], predictor: Scorer, add: Add) -> Iterator[Row]:
    columns = _columns(cases)
    predicted = predictor(columns) if columns["sex"] else {}
    scored = 0
    for case in cases:
        row = _common(case, predictor)
        if isinstance(case.outcome, InputProblem):
            add_problem(row, case.outcome)
        else:
            values = {name: column[scored] for name, column in predicted.items()}
            scored += 1
            unlike = values.pop("unlike", None)
            if unlike and case.outcome.pixel_gate:
                add_problem(row, InputProblem("predict", "out_of_distribution", unlike, "rejected"))
            else:
                add(row, values, case)
        yield row


def _columns(cases: list[Loaded]) -> Columns:
    """What the predictor is asked: the usable cases, with an image column for each config."""
    columns: Columns = {"sex": []}
    for case in cases:
        if isinstance(case.outcome, PreparedImage):
            columns["sex"].append(_known(case).sex)
            for number, prepared in enumerate((case.outcome, *case.others)):
                columns.setdefault(image_column(number), []).append(prepared.pixels)
    return columns


def _common(case: Loaded, predictor: Scorer) -> Row:
    """What every row says, scored or not."""
    known = _known(case)
    row = empty_result()
    if isinstance(case.outcome, PreparedImage):
        row |= case.outcome.source.uids
        seen = [flag for prepared in (case.outcome, *case.others) for flag in prepared.flags]
        row["flags"] = [*(flag for flag in dict.fromkeys(seen) if flag not in known.overruled), *known.flags]
    return row | {
        "input_uri": case.item.uri,
        "input_sha256": case.sha256,
        "input_bytes": case.size,
        "sex": known.sex,
        "sex_source": known.sex_source,
        "pixel_spacing_mm": known.pixel_spacing_mm,
        "pixel_spacing_source": known.pixel_spacing_source,
        "chronological_age_months": known.chronological_age_months,
        "model": predictor.name,
        "model_sha256": predictor.sha256,
        "package_version": __version__,
    }


def _known(case: Loaded) -> Known:
    return known_of(case.item, case.outcome.source if isinstance(case.outcome, PreparedImage) else None)


def add_problem(row: Row, problem: InputProblem) -> None:
    """Say in a row why it has no prediction."""
    row |= {"status": problem.status, "step": problem.step, "reason": problem.reason, "message": problem.message}
