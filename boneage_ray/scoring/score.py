"""The scoring job: archive -> one result row for every input file, by Ray Data, in parts that are committed once.

Killed anywhere, the same command continues: parts that are there are kept, parts in flight are done again. An update does
what became new, changed or vanished since, see archives/updates.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from boneage_ray import PIPELINE_VERSION, storage
from boneage_ray.archives.archive import Archive, Input
from boneage_ray.archives.in_parts import ArchiveParts
from boneage_ray.archives.masks import mask_data
from boneage_ray.archives.notes import say_rows, sum_of_notes
from boneage_ray.archives.read import read_input
from boneage_ray.archives.updates import Unchanged, UpdateTodo, differs, update_in_words, work_of
from boneage_ray.errors import NoUsableInputError
from boneage_ray.findings.task_findings import ScoredFiles, findings_of
from boneage_ray.prediction import members
from boneage_ray.prediction.runtimes import TORCH, Compute
from boneage_ray.preparation.isolated import DecoderPool
from boneage_ray.preparation.prepare import AS_THE_RECIPE_SAYS, PreparedImage, Reading
from boneage_ray.records.schema import Row, from_table
from boneage_ray.runtime import lease, nodes, parts, plan
from boneage_ray.runtime.cluster import run_parts
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.runtime.resources import Resources
from boneage_ray.runtime.runs import say
from boneage_ray.scoring.careful import RETRIES, Suspects
from boneage_ray.scoring.kept import Keep, kept, without_names
from boneage_ray.scoring.metering import ScoreMeter
from boneage_ray.scoring.renewal import Earlier, first_time, update_counts
from boneage_ray.scoring.summary import add_up, watched

if TYPE_CHECKING:
    from boneage_ray.prediction.rows import Loaded

RESULTS = "results"
SHOWN_PROBLEMS = 200


@dataclass(frozen=True)
class ScoreOptions:
    """What the command line says about a scoring run; several models are scored as one.

    `coverage`: of the intervals, if another than that of the bundle's calibration. `given`: flags whose values hold for every
    input, with them. `update`: do what changed since OUT was written. `max_failures`: the share of failed inputs above which the
    run ends. `keep`: what rows keep of names (kept.py).
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
            **self.given,
        }


def score_archive(
    archive: Archive, options: ScoreOptions, on_claimed: Callable[[], None] = lambda: None
) -> tuple[dict[str, Any], list[Row]]:
    """Score every input on the connected cluster; the summary, whose counts add up or it raises, and the first problems.

    `on_claimed` is called once OUT is this run's own.
    """
    models = members.resolve(options.models)
    sha256 = models.sha256
    settings = options.settings(sha256)
    mark = parts.fingerprint(settings)
    listing = ArchiveParts(archive, RESULTS, files_only=True)
    parts.check_not_empty(listing, options.source)
    parts.claim(options.out, mark, options.overwrite, "score", settings)
    on_claimed()
    update = _update(options)
    compute = nodes.device_of_run(options.out, options.gpu, one_device=True)
    nodes.check_places(lease.holding(options.out), [("SOURCE", options.source), *members.read_places(models)])
    todo = partial(_todo, archive=archive, listing=listing, options=options, update=update)
    job = parts.PartsJob("score", options.out, listing, (RESULTS,), options.gpu, todo)
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
        "compute": compute.as_json(),
    }
    storage.write_json(storage.join(options.out, "summary.json"), summary)
    storage.delete_tree(storage.join(options.out, RETRIES))
    if update:
        plan.plan_update(options.out, update, done=True)
    return summary, _problems(options.out, completed.lines)


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
        "places": ScorePlaces(options.source, options.out, options.keep),
        "reading": options.reading,
        "compute": Compute(resources.threads, compute.device, options.runtime, compute.auto, options.coverage),
    }
    return watched(run_parts(rows, ScoreWorker, arguments, resources), options.max_failures)


@dataclass(frozen=True)
class ScorePlaces:
    """Where a worker reads and writes, and what it keeps of names."""

    source: str
    out: str
    keep: Keep


class ScoreWorker:
    """Fetches, decodes, predicts and writes one part."""

    def __init__(self, models: list[str], sha256: str, places: ScorePlaces, reading: Reading, compute: Compute) -> None:
        # torch is imported here, in the actor; the driver does without.
        import torch

        from boneage_ray.prediction import ensemble, rows

        torch.set_num_threads(compute.threads)
        self.out, self.keep, self.rows = places.out, places.keep, rows
        found = members.resolve(models, sha256)
        self.predictor = ensemble.load_predictor(found, compute.device, compute.runtime, compute.auto, compute.coverage)
        files = ScoredFiles(places.source, self._write, by_hash=places.keep != "uri")
        self.add = findings_of(found.recipe).adder(files)
        self.pools = [DecoderPool(image, processes=compute.threads) for image in found.scored_images(reading)]
        self.meter = ScoreMeter([pool.counts for pool in self.pools])

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Commit the part's rows and return their counts."""
        part = parts.Part(**row)
        work = work_of(part)
        earlier = Earlier.read(self.out, part, work) if work.was else None
        if earlier and earlier.line["mark"] == part.mark:  # committed by a worker that died before it could say so
            return earlier.line
        with self.meter.predicting():
            rows = self._one_by_one(part, work.inputs) if part.careful else self._all(part, work.inputs)
        scored = earlier.renewed(work, rows) if earlier else first_time(work, rows)
        with self.meter.writing():
            # A mark is a hash of a name: whoever guesses the name finds it.
            marks = scored.marks if self.keep == "uri" else b""
            committed = parts.commit(self.out, part, scored.table, scored.line, marks=marks)
        self.meter.record(rows)
        if part.careful:
            Suspects(self.out, part).end()
        return committed

    def _all(self, part: parts.Part, inputs: Sequence[Input]) -> list[Row]:
        loaded = parts.prefetched(self._load, inputs, self.pools[0].readers, ahead=2 * self.predictor.batch_size)
        named = (self._named(case, part, number) for number, case in enumerate(self.meter.waiting(loaded)))
        return list(self.rows.score_rows(named, self.predictor, self.add))

    def _one_by_one(self, part: parts.Part, inputs: Sequence[Input]) -> list[Row]:
        """The rows of a part that has killed its workers, without the inputs that do."""
        suspects = Suspects(self.out, part)
        rows: list[Row] = []
        for number, item in enumerate(inputs):
            problem = suspects.begin(number)
            loaded = self.rows.Loaded(item, None, None, problem) if problem else self._load(item)
            rows += self.rows.score_rows([self._named(loaded, part, number)], self.predictor, self.add)
        return rows

    def _write(self, name: str, data: bytes) -> None:
        storage.write_bytes(storage.join(self.out, name), data)

    def _named(self, case: Loaded, part: parts.Part, number: int) -> Loaded:
        """An input with what its row keeps of its name."""
        return kept(case, self.keep, f"{part.target}:{number}")

    def _load(self, item: Input) -> Loaded:
        def prepared(pool: DecoderPool, data: bytes) -> PreparedImage:
            return pool.prepare(data, mask_data(item))

        data = self.meter.read(read_input, item)
        return self.rows.load_input(item, data, *(partial(prepared, pool) for pool in self.pools))


def results(out: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The committed result rows, a part at a time, in the order of the plan."""
    for info in storage.list_folder(storage.join(out, RESULTS)):
        with storage.open_read(info.uri) as file:
            yield pq.read_table(file, columns=columns)


def _problems(out: str, lines: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The first rows that were rejected or failed, for the report; only parts that have such rows are read."""
    found: list[Row] = []
    for line in lines:
        if line["scored"] < line["inputs"] and len(found) < SHOWN_PROBLEMS:
            with storage.open_read(storage.join(out, line["target"])) as file:
                table = pq.read_table(file, columns=["input_uri", "status", "step", "reason", "message"])
            found += [row for row in from_table(table) if row["status"] != "scored"]
    return found[:SHOWN_PROBLEMS]
