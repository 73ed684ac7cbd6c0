"""The scoring job: archive -> one result row for every input file, by Ray Data, in parts that are committed once.

Killed anywhere, the same command continues: parts that are there are kept, parts in flight are done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from boneage_ray import __version__, storage
from boneage_ray.archives.archive import Archive, Input
from boneage_ray.archives.in_parts import ArchiveParts, inputs_of
from boneage_ray.archives.masks import mask_data
from boneage_ray.archives.notes import line_of_notes, say_rows, sum_of_notes
from boneage_ray.archives.read import read_input
from boneage_ray.errors import NoUsableInputError
from boneage_ray.findings.task_findings import ScoredFiles, findings_of
from boneage_ray.prediction import members
from boneage_ray.prediction.runtimes import TORCH, Compute
from boneage_ray.preparation.isolated import DecoderPool
from boneage_ray.preparation.prepare import AS_THE_RECIPE_SAYS, PreparedImage, Reading
from boneage_ray.records.schema import Row, from_table, result_schema, to_table
from boneage_ray.runtime import lease, nodes, parts
from boneage_ray.runtime.cluster import run_parts
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.runtime.resources import Resources
from boneage_ray.runtime.runs import say
from boneage_ray.scoring.metering import ScoreMeter
from boneage_ray.scoring.summary import add_up, part_counts

if TYPE_CHECKING:
    from boneage_ray.prediction.rows import Loaded

RESULTS = "results"
SHOWN_PROBLEMS = 200


@dataclass(frozen=True)
class ScoreOptions:
    """What the command line says about a scoring run; several models are scored as one.

    `coverage`: of the intervals, if another than that of the bundle's calibration.
    """

    source: str
    models: Sequence[str]
    out: str
    overwrite: bool = False
    gpu: bool = False
    runtime: str = TORCH
    reading: Reading = AS_THE_RECIPE_SAYS
    coverage: float | None = None


def score_archive(
    archive: Archive, options: ScoreOptions, on_claimed: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Score every input on the connected cluster and return the summary; its counts add up or it raises.

    `on_claimed` is called once OUT is this run's own.
    """
    models = members.resolve(options.models)
    sha256 = models.sha256
    other: list[Any] = [] if options.runtime == TORCH else [options.runtime]
    other += [] if options.reading == AS_THE_RECIPE_SAYS else [options.reading.model_dump()]
    other += [] if options.coverage is None else [options.coverage]
    mark = parts.fingerprint(options.source, sha256, __version__, *other)
    listing = ArchiveParts(archive, RESULTS)
    parts.check_not_empty(listing, options.source)
    parts.claim(options.out, mark, options.overwrite, "score")
    on_claimed()
    compute = nodes.device_of_run(options.out, options.gpu, one_device=True)
    nodes.check_places(lease.holding(options.out), [("SOURCE", options.source), *members.read_places(models)])
    job = parts.PartsJob("score", options.out, listing, (RESULTS,), options.gpu)
    completed = parts.complete(job, partial(_run, options=options, sha256=sha256, compute=compute))
    lease.holding(options.out).check()  # what closes a run is written only into its own OUT
    summary = add_up(completed.lines)
    if not summary["inputs"]:
        raise NoUsableInputError(f"{options.source}: there is no file to score")
    summary["tables"] = sum_of_notes(completed.lines, archive.accounts)
    say_rows(options.out, summary["tables"], completed.lines)
    return summary | {
        "fingerprint": parts.fingerprint(mark, completed.marks),
        "model_sha256": sha256,
        "compute": compute.as_json(),
    }


def _run(
    rows: parts.Todo, resources: Resources, options: ScoreOptions, sha256: str, compute: RunDevice
) -> Iterator[dict[str, Any]]:
    say(f"scoring: {resources.describe()}; {compute.describe()}")
    arguments = {
        "models": list(options.models),
        "sha256": sha256,
        "source": options.source,
        "out": options.out,
        "reading": options.reading,
        "compute": Compute(resources.threads, compute.device, options.runtime, compute.auto, options.coverage),
    }
    return run_parts(rows, ScoreWorker, arguments, resources)


class ScoreWorker:
    """Fetches, decodes, predicts and writes one part."""

    def __init__(
        self, models: list[str], sha256: str, source: str, out: str, reading: Reading, compute: Compute
    ) -> None:
        # torch is imported here, in the actor; the driver does without.
        import torch

        from boneage_ray.prediction import ensemble, rows

        torch.set_num_threads(compute.threads)
        self.out, self.rows = out, rows
        found = members.resolve(models, sha256)
        self.predictor = ensemble.load_predictor(found, compute.device, compute.runtime, compute.auto, compute.coverage)
        self.add = findings_of(found.recipe).adder(ScoredFiles(source, self._write))
        self.pools = [DecoderPool(image, processes=compute.threads) for image in found.scored_images(reading)]
        self.meter = ScoreMeter([pool.counts for pool in self.pools])

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Commit the part's rows and return their counts; what is no file (metadata that lead to none) is counted apart."""
        part = parts.Part(**row)
        inputs = inputs_of(part)
        files = [item for item in inputs if item.uri]
        loaded = parts.prefetched(self._load, files, self.pools[0].readers, ahead=2 * self.predictor.batch_size)
        with self.meter.predicting():
            rows = list(self.rows.score_rows(self.meter.waiting(loaded), self.predictor, self.add))
        line = part_counts(rows) | line_of_notes(inputs)
        with self.meter.writing():
            committed = parts.commit(self.out, part, to_table(rows, result_schema()), line)
        self.meter.record(rows)
        return committed

    def _write(self, name: str, data: bytes) -> None:
        storage.write_bytes(storage.join(self.out, name), data)

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


def problems(out: str) -> list[Row]:
    """The first rows that were rejected or failed, for the report."""
    found: list[Row] = []
    for table in results(out, ["input_uri", "status", "step", "reason", "message"]):
        found += [row for row in from_table(table) if row["status"] != "scored"]
        if len(found) >= SHOWN_PROBLEMS:
            break
    return found[:SHOWN_PROBLEMS]
