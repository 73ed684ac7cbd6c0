"""The scoring job: archive -> one result row for every input file, by Ray Data, in parts that are committed once.

Killed anywhere, the same command continues: parts that are there are kept, parts in flight are done again. An update does
what became new, changed or vanished since, see archives/updates.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from boneage_ray import PIPELINE_VERSION, storage
from boneage_ray.archives.archive import Archive
from boneage_ray.archives.in_parts import ArchiveParts
from boneage_ray.archives.notes import say_rows, sum_of_notes
from boneage_ray.archives.updates import Unchanged, UpdateTodo, differs, update_in_words
from boneage_ray.errors import NoUsableInputError
from boneage_ray.findings.task_findings import findings_of
from boneage_ray.prediction import members, routing
from boneage_ray.prediction.runtimes import TORCH, Compute
from boneage_ray.preparation.prepare import AS_THE_RECIPE_SAYS, Reading
from boneage_ray.runtime import lease, nodes, parts, plan
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.runtime.pages import read_pages
from boneage_ray.runtime.resources import Resources, Shape, in_two_stages
from boneage_ray.runtime.runs import say
from boneage_ray.scoring.careful import RETRIES
from boneage_ray.scoring.costs import summed
from boneage_ray.scoring.kept import Keep, without_names
from boneage_ray.scoring.renewal import update_counts
from boneage_ray.scoring.summary import add_up, watched
from boneage_ray.scoring.tally import Tally, tally
from boneage_ray.scoring.two_stage import run_scoring
from boneage_ray.scoring.worker import ScorePlaces, ScoreWorker

RESULTS = "results"


@dataclass(frozen=True)
class ScoreOptions:
    """What the command line says about a scoring run; several models are scored as one.

    `coverage`: of the intervals, if another than that of the bundle's calibration. `given`: flags whose values hold for every
    input, with them. `update`: do what changed since OUT was written. `max_failures`: the share of failed inputs above which the
    run ends. `keep`: what rows keep of names (kept.py). `route`: the models are of several tasks, and each file goes to the one
    that it fits (prediction/routing.py). `thumbnails`: the page shows rejected inputs. `shape`: whether predictions have
    workers of their own (two_stage.py), which decides no row.
    """

    source: str
    models: Sequence[str]
    out: str
    overwrite: bool = False
    gpu: bool = False
    runtime: str = TORCH
    reading: Reading = AS_THE_RECIPE_SAYS
    coverage: float | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    update: bool = False
    max_failures: float | None = None
    keep: Keep = "uri"
    route: bool = False
    thumbnails: bool = False
    shape: Shape = "auto"

    def settings(self, sha256: str) -> dict[str, str]:
        """What decides the results of an archive, in words."""
        return {
            "pipeline version": str(PIPELINE_VERSION),
            "SOURCE": self.source,
            "model": sha256,
            **({} if self.runtime == TORCH else {"--runtime": self.runtime}),
            **({} if self.reading == AS_THE_RECIPE_SAYS else {"reading": self.reading.model_dump_json()}),
            **({} if self.coverage is None else {"--coverage": f"{self.coverage:g}"}),
            **({} if self.keep == "uri" else {"--keep": self.keep}),
            **({"--route": "given"} if self.route else {}),
            **self.given,
        }


def score_archive(
    archive: Archive, options: ScoreOptions, on_claimed: Callable[[], None] = lambda: None
) -> tuple[dict[str, Any], Tally]:
    """Score every input on the connected cluster; the summary, whose counts add up or it raises, and what the rows say.

    `on_claimed` is called once OUT is this run's own.
    """
    models = routing.resolve_all(options.models, options.route)
    sha256 = routing.sha256_of(models)
    settings = options.settings(sha256)
    mark = parts.fingerprint(settings)
    listing = ArchiveParts(archive, RESULTS, files_only=True)
    parts.check_not_empty(listing, options.source)
    parts.claim(options.out, mark, options.overwrite, "score", settings)
    on_claimed()
    update = _update(options)
    compute = nodes.device_of_run(options.out, options.gpu, one_device=True)
    read = [place for each in models for place in members.read_places(each)]
    nodes.check_places(lease.holding(options.out), [("SOURCE", options.source), *read])
    todo = partial(_todo, archive=archive, listing=listing, options=options, update=update)
    two = in_two_stages(options.shape, options.gpu)
    job = parts.PartsJob("score", options.out, listing, (RESULTS,), options.gpu, todo, two_stages=two)
    completed = parts.complete(job, partial(_run, options=options, sha256=sha256, compute=compute))
    lease.holding(options.out).check()  # what closes a run is written only into its own OUT
    summary = add_up(completed.lines)
    if not summary["inputs"]:
        raise NoUsableInputError(f"{options.source}: there is no file to score")
    said = completed.said if options.keep == "uri" else without_names(completed.said)
    summary["tables"] = sum_of_notes([said], archive.accounts)
    say_rows(options.out, summary["tables"], [said])
    if update:
        summary["update"] = update_counts(completed.lines, update, said.get("closed", {}))
        for text in update_in_words(summary["update"]) if options.update else ():
            say(storage.printable(text))
    summary |= {
        "fingerprint": parts.fingerprint(mark, completed.marks),
        "model_sha256": sha256,
        "compute": compute.as_json() | {"shape": "two-stage" if two else "fused"},
        **summed(completed.lines),
    }
    rows = tally(options.out, completed.lines, {each.name: findings_of(each.recipe) for each in models})
    summary |= {"slowest": rows.slowest, "distribution": rows.as_json()}
    storage.write_json(storage.join(options.out, "summary.json"), summary)
    storage.delete_tree(storage.join(options.out, RETRIES))
    if update:
        plan.plan_update(options.out, update, done=True)
    return summary, rows


def _update(options: ScoreOptions) -> str:
    """The id of the last update of OUT, or of the one that begins; empty for a first run."""
    known = plan.planned_update(options.out)
    held = storage.list_folder(storage.join(options.out, RESULTS)) if known is None and options.update else []
    if options.update and (held if known is None else known["done"]):
        known = {"id": secrets.token_hex(8)}
        plan.plan_update(options.out, known["id"], done=False)
    return str(known["id"]) if known else ""


def _todo(
    done: Mapping[str, str], owner: str, archive: Archive, listing: ArchiveParts, options: ScoreOptions, update: str
) -> parts.Rows:
    """What is to be done: all of a first run that is not there yet, in its order, or whatever an update finds."""
    if options.update and update:
        return UpdateTodo(archive, options.out, RESULTS, update, done, owner)
    if update:
        return Unchanged(archive, options.out, RESULTS, done, owner)
    named = partial(differs, archive, options.out, RESULTS) if options.keep == "uri" else None  # by marks
    return parts.Todo(listing, done, owner, named)


def _run(
    rows: parts.Rows, resources: Resources, options: ScoreOptions, sha256: str, compute: RunDevice
) -> Iterator[dict[str, Any]]:
    say(f"scoring: {resources.describe()}; {compute.describe()}")
    arguments = {
        "models": list(options.models),
        "sha256": sha256,
        "places": ScorePlaces(options.source, options.out, options.keep, options.route),
        "reading": options.reading,
        "compute": Compute(resources.threads, compute.device, options.runtime, compute.auto, options.coverage),
    }
    return watched(run_scoring(rows, ScoreWorker, arguments, resources), options.max_failures)


def results(out: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The committed result rows, a part at a time, in the order of the plan."""
    for info in storage.list_folder(storage.join(out, RESULTS)):
        yield read_pages(info.uri, columns)
