"""What works on the parts of a scoring run: fetches, decodes, predicts, and commits rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from boneage_ray import storage
from boneage_ray.archives.archive import Input
from boneage_ray.archives.masks import mask_data
from boneage_ray.archives.read import read_input
from boneage_ray.archives.updates import work_of
from boneage_ray.errors import InputProblem
from boneage_ray.findings.task_findings import ScoredFiles, findings_of
from boneage_ray.prediction.runtimes import Compute
from boneage_ray.preparation.isolated import DecoderPool
from boneage_ray.preparation.prepare import PreparedImage, Reading
from boneage_ray.records.schema import Row
from boneage_ray.runtime import parts
from boneage_ray.scoring.careful import Suspects
from boneage_ray.scoring.costs import part_costs, with_earlier
from boneage_ray.scoring.kept import Keep, kept
from boneage_ray.scoring.metering import ScoreMeter
from boneage_ray.scoring.renewal import Earlier, first_time
from boneage_ray.scoring.two_stage import Elsewhere, loaded, models_of

if TYPE_CHECKING:
    from boneage_ray.prediction.ensemble import Scorer
    from boneage_ray.prediction.members import Models
    from boneage_ray.prediction.rows import Add, Loaded
    from boneage_ray.tasks.task import Columns

_AHEAD = 8  # files at least that are on their way while one is predicted


@dataclass(frozen=True)
class ScorePlaces:
    """Where a worker reads and writes, what it keeps of names, and whether each file goes to the model that it fits."""

    source: str
    out: str
    keep: Keep
    route: bool = False


class ModelReader:
    """One model of a worker: how it reads files, and what writes what it predicts into a row."""

    def __init__(self, models: Models, predictor: Scorer, add: Add, reading: Reading, processes: int) -> None:
        self.predictor, self.add, self.kind = predictor, add, kind_of(models)
        self.pools = [DecoderPool(image, processes=processes) for image in models.scored_images(reading)]

    def prepares(self, item: Input, spent: list[float]) -> list[partial[PreparedImage]]:
        """How to prepare one input, for each image that the model wants; adds the seconds of each to `spent`."""
        return [partial(self._prepared, pool, item, spent) for pool in self.pools]

    def _prepared(self, pool: DecoderPool, item: Input, spent: list[float], data: bytes) -> PreparedImage:
        try:
            return pool.prepare(data, mask_data(item))
        finally:
            spent.append(getattr(pool.last, "seconds", 0.0))


def kind_of(models: Models) -> str:
    """What the radiographs of a model show, in the plural: hands, heads; else its name."""
    region = models.recipe.task_kind.region
    return models.name if region == "any" else f"{region}s"


class ScoreWorker:
    """Fetches, decodes, predicts and writes one part."""

    def __init__(
        self,
        models: list[str],
        sha256: str,
        places: ScorePlaces,
        reading: Reading,
        compute: Compute,
        ask: Callable[..., Columns] | None = None,
    ) -> None:
        """`ask`: what answers in place of models of its own, see scoring/two_stage.py."""
        # torch is imported here, in the actor; the driver does without.
        import torch

        from boneage_ray.prediction import routing, rows

        torch.set_num_threads(compute.threads)
        self.out, self.keep, self.rows, self.routing = places.out, places.keep, rows, routing
        files = ScoredFiles(places.source, self._write, by_hash=places.keep != "uri")
        found = models_of(models, places.route, sha256)
        scorers = Elsewhere.of(ask, found, compute.device) if ask else loaded(found, compute)
        self.readers = [
            ModelReader(each, scorer, findings_of(each.recipe).adder(files), reading, compute.threads)
            for each, scorer in zip(found, scorers, strict=True)
        ]
        self.pools = [pool for reader in self.readers for pool in reader.pools]
        self.meter = ScoreMeter([pool.counts for pool in self.pools])

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Commit the part's rows and return their counts."""
        part = parts.Part(**row)
        work = work_of(part)
        earlier = Earlier.read(self.out, part, work) if work.was else None
        if earlier and earlier.line["mark"] == part.mark:  # committed by a worker that died before it could say so
            return earlier.line
        seconds: list[float] = []
        with self.meter.predicting():
            rows = list((self._one_by_one if part.careful else self._all)(part, work.inputs, seconds))
        taken = self.meter.taken()
        scored = earlier.renewed(work, rows) if earlier else first_time(work, rows)
        costs = part_costs(taken, part.careful, rows, seconds)
        line = scored.line | (with_earlier(costs, earlier.line, earlier.gone(work)) if earlier else costs)
        with self.meter.writing():
            # A mark is a hash of a name: whoever guesses the name finds it.
            marks = scored.marks if self.keep == "uri" else b""
            committed = parts.commit(self.out, part, scored.table, line, marks=marks)
        self.meter.record(rows, taken)
        if part.careful:
            Suspects(self.out, part).end()
        return parts.without_large(committed)

    def _all(self, part: parts.Part, inputs: Sequence[Input], seconds: list[float]) -> Iterator[Row]:
        ahead = max(_AHEAD, 2 * max(reader.predictor.batch_size for reader in self.readers))
        loaded = parts.prefetched(self._load, inputs, self.pools[0].readers, ahead)
        return self._rows(part, enumerate(self.meter.waiting(loaded)), seconds)

    def _one_by_one(self, part: parts.Part, inputs: Sequence[Input], seconds: list[float]) -> Iterator[Row]:
        """The rows of a part that has killed its workers, without the inputs that do."""
        suspects = Suspects(self.out, part)
        for number, item in enumerate(inputs):
            problem = suspects.begin(number)
            refused = self.rows.Loaded(item, None, None, problem) if problem else None
            loaded = (refused,) * len(self.readers) if refused else self._load(item)
            yield from self._rows(part, [(number, loaded)], seconds)

    def _rows(
        self, part: parts.Part, loaded: Iterable[tuple[int, tuple[Loaded, ...]]], seconds: list[float]
    ) -> Iterator[Row]:
        """The rows of inputs as each model has loaded them; adds the seconds of each to `seconds`."""

        def named() -> Iterator[tuple[Loaded, ...]]:
            for number, cases in loaded:
                seconds.append(cases[0].seconds)
                yield tuple(kept(case, self.keep, f"{part.target}:{number}") for case in cases)

        streams = self.routing.streams_of(named(), len(self.readers))
        each = [
            self.rows.score_rows(stream, reader.predictor, reader.add)
            for stream, reader in zip(streams, self.readers, strict=True)
        ]
        return map(self.routing.routed, zip(*each, strict=True))

    def _write(self, name: str, data: bytes) -> None:
        storage.write_bytes(storage.join(self.out, name), data)

    def _read(self, item: Input) -> bytes | InputProblem:
        return read_input(item)

    def _load(self, item: Input) -> tuple[Loaded, ...]:
        """An input as each model reads it, read once."""
        data, read = self.meter.read(self._read, item)
        spent = [read]
        found = [self.rows.load_input(item, data, *reader.prepares(item, spent)) for reader in self.readers]
        return tuple(replace(case, seconds=sum(spent)) for case in found)
