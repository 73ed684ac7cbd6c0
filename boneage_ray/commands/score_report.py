"""What `boneage score` leaves for people: the page, the work list, and what run.json says of the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from boneage_ray import builtin, storage
from boneage_ray.commands.words import line, model_facts, model_notes, reading_flags, serve_next
from boneage_ray.errors import UsageError
from boneage_ray.findings.task_findings import findings_of
from boneage_ray.prediction.runtimes import TORCH

if TYPE_CHECKING:
    from boneage_ray.prediction.members import Models
    from boneage_ray.scoring.score import ScoreOptions
    from boneage_ray.scoring.tally import Tally


class Wording(NamedTuple):
    """What a page is of: its title, and what a scored input has."""

    title: str
    noun: str


def wording_of(models: Sequence[Models]) -> Wording:
    """By the task of the model; a mixed archive has results of several."""
    if len(models) > 1:
        return Wording("Mixed archive", "result")
    findings = findings_of(models[0].recipe)
    return Wording(findings.title, findings.noun)


def check_thumbnails(thumbnails: bool, keep: str) -> None:
    """Raise `UsageError` where the page shall hide names and show pictures; the files could not be found again either."""
    if thumbnails and keep != "uri":
        raise UsageError(
            f"--thumbnails with --keep {keep}: rejected files are not found again without their names; leave out one"
        )


def write_page(
    options: ScoreOptions, summary: Mapping[str, Any], rows: Tally, models: Sequence[Models], command: str
) -> None:
    """Write OUT/report.html and OUT/work-list.csv."""
    from boneage_ray.scoring.report import ShownRows, score_page
    from boneage_ray.scoring.tally import WORK_LIST, work_list_csv
    from boneage_ray.scoring.thumbnails import with_thumbnails

    facts = {"Archive": options.source, "Place": " ".join(options.models), **facts_of(models)}
    least = rows.least_certain()
    pictures = with_thumbnails(rows.problems, models[0].scored_images(options.reading)[0]) if options.thumbnails else []
    page = score_page(summary, ShownRows(rows.problems, least, pictures), facts, command, wording_of(models))
    storage.write_text(storage.join(options.out, "report.html"), page)
    storage.write_text(storage.join(options.out, WORK_LIST), work_list_csv(least))


def facts_of(models: Sequence[Models]) -> dict[str, str]:
    """What a page says of the model, or of several side by side."""
    if len(models) == 1:
        return model_facts(models[0])
    return {"Models": ", ".join(f"{each.name} {each.sha256[:12]}" for each in models)}


def notes_of(models: Sequence[Models]) -> dict[str, Any]:
    """What run.json says of the model; of several side by side a list of what it says of each."""
    return model_notes(models[0]) if len(models) == 1 else {"models": [model_notes(each) for each in models]}


def next_step(options: ScoreOptions, models: Sequence[Models]) -> str:
    """The command to give next."""
    if len(models) > 1:
        return "Next: " + line("boneage serve", model=[builtin.as_typed(uri) for uri in options.models])
    following = findings_of(models[0].recipe).after_score(options.source, options.out, by_hash=options.keep != "uri")
    return following or serve_next(list(options.models))


def score_line(options: ScoreOptions, metadata: str | None, **typed: object) -> str:
    """The command, as it can be pasted; `typed`: flags that are given on as they were typed."""
    return line(
        "boneage score",
        options.source,
        model=list(options.models),
        out=options.out,
        metadata=metadata,
        **typed,
        gpu=options.gpu or None,
        update=options.update or None,
        route=options.route or None,
        thumbnails=options.thumbnails or None,
        max_failures=options.max_failures,
        runtime=None if options.runtime == TORCH else options.runtime,
        coverage=options.coverage,
        keep=None if options.keep == "uri" else options.keep,
        **reading_flags(options.reading),
    )
