"""The scoring job: archive -> one result row for every input file, by Ray Data, in parts that are committed once.

Killed anywhere, the same command continues: parts that are there are kept, parts in flight are done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from boneage_ray import __version__, bundle, parts, storage
from boneage_ray.archives.archive import Archive, Input
from boneage_ray.cluster import choose_resources, run_parts
from boneage_ray.records.schema import Row, from_table, result_schema, to_table
from boneage_ray.records.shards import read_input
from boneage_ray.runs import say
from boneage_ray.scoring.summary import add_up, part_counts

if TYPE_CHECKING:
    from boneage_ray.prediction.rows import Loaded

RESULTS = "results"
# Short parts first, so that the first results are there soon.
LEAD_PART, SMALL_PART, LARGE_PART, MANY = 8, 64, 256, 8192
SHOWN_PROBLEMS = 200


@dataclass(frozen=True)
class ScoreOptions:
    """What the command line says about a scoring run."""

    model: str
    out: str
    overwrite: bool = False
    gpu: bool = False


def plan_parts(archive: Archive) -> list[parts.Part]:
    """Deterministic parts of an archive: small ones for few inputs, so that little is redone; larger ones for many."""
    inputs = list(archive.inputs())
    return parts.cut(inputs, RESULTS, SMALL_PART if len(inputs) <= MANY else LARGE_PART, lead=LEAD_PART)


def score_archive(
    plan: list[parts.Part], options: ScoreOptions, on_claimed: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Score every input on the connected cluster and return the summary; its counts add up or it raises.

    `on_claimed` is called once OUT is this run's own.
    """
    _, sha256 = bundle.read_manifest(options.model)
    mark = parts.fingerprint(plan, sha256, __version__)
    parts.claim(options.out, mark, options.overwrite, "score")
    on_claimed()
    lines = parts.complete(plan, options.out, "score", lambda todo: _run(todo, options))
    return add_up(lines) | {"fingerprint": mark, "model_sha256": sha256}


def _run(todo: list[parts.Part], options: ScoreOptions) -> Iterator[dict[str, Any]]:
    resources = choose_resources(len(todo), options.gpu)
    say(f"scoring {sum(len(part.inputs) for part in todo)} inputs in {len(todo)} parts: {resources.describe()}")
    gpu = resources.gpus_per_actor > 0
    arguments = {"model": options.model, "out": options.out, "threads": resources.threads, "gpu": gpu}
    return run_parts([part.row() for part in todo], ScoreWorker, arguments, resources)


class ScoreWorker:
    """Fetches, decodes, predicts and writes one part."""

    def __init__(self, model: str, out: str, threads: int, gpu: bool) -> None:
        # torch is imported here, in the actor; the driver does without.
        import torch

        from boneage_ray.prediction import rows
        from boneage_ray.prediction.predictor import Predictor

        torch.set_num_threads(threads)
        self.out, self.rows = out, rows
        self.predictor = Predictor(bundle.load(model), "cuda" if gpu else "cpu")
        self.image = self.predictor.recipe.image
        # Beside the model's own thread, enough to hide a store's latency and, with a GPU, to decode on every core.
        self.readers = max(4, threads)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Commit the part's rows and return their counts."""
        part = parts.read_part(row)
        loaded = parts.prefetched(self._load, part.inputs, self.readers, ahead=2 * self.predictor.batch_size)
        rows = list(self.rows.score_rows(loaded, self.predictor))
        line = {"target": part.target, **part_counts(rows)}
        parts.commit(self.out, part.target, to_table(rows, result_schema()), line)
        return line

    def _load(self, item: Input) -> Loaded:
        return self.rows.load_input(item, read_input(item), self.image)


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
