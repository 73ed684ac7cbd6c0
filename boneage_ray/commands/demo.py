"""All of it on phantoms in one command: no data, no network, no GPU."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from boneage_ray import storage
from boneage_ray.commands import pipeline
from boneage_ray.runtime import cluster, parts
from boneage_ray.runtime.runs import Run, say, timed

COUNT, SIZE, SEED = 700, 192, 7
SCORED, SCORED_SEED = 48, 11


@dataclass(frozen=True)
class DemoArguments:
    """Flags of `boneage demo`."""

    out: str
    overwrite: bool


def demo(run: Run, arguments: DemoArguments) -> None:
    """Each station is the very function that its command runs."""
    from boneage_ray.phantoms.archive import HAND_CSV, HAND_FOLDER, write_hand_archive

    out = storage.absolute(arguments.out)
    parts.claim(out, parts.fingerprint([], "demo", COUNT, SIZE, SEED), arguments.overwrite, "demo")
    run.out = out
    archive, unseen, data, model, evaluation, scores = (
        storage.join(out, name) for name in ("archive", "unseen", "data", "model", "evaluation", "scores")
    )
    say("synthetic radiographs, not for use on people")
    with timed(run, "phantoms"):
        _phantoms(lambda: write_hand_archive(archive, COUNT, SEED, SIZE), archive, f"{COUNT} phantoms")
        _phantoms(
            lambda: write_hand_archive(unseen, SCORED, SCORED_SEED, SIZE, True),
            unseen,
            f"{SCORED} more, with bad files",
        )
    cluster.connect()
    pictures, metadata = storage.join(unseen, HAND_FOLDER), storage.join(unseen, HAND_CSV)
    stations: tuple[tuple[str, Callable[[Run], None]], ...] = (
        ("prepare", lambda inner: pipeline.prepare(inner, pipeline.PrepareArguments(archive, "demo", data))),
        ("train", lambda inner: pipeline.train(inner, pipeline.TrainArguments("demo", data, model, resume=True))),
        ("evaluate", lambda inner: pipeline.evaluate(inner, pipeline.EvaluateArguments(model, data, evaluation))),
        ("score", lambda inner: pipeline.score(inner, pipeline.ScoreArguments(pictures, model, scores, metadata))),
    )
    for name, body in stations:
        say(f"--- boneage {name}")
        inner = Run(name, id=run.id)
        with timed(run, name):
            body(inner)
        run.answer[name] = inner.answer
        storage.write_json(storage.join(str(inner.out), "run.json"), inner.record(0, None))
    run.finish(
        {**run.answer, "seconds": run.facts["timings"]},
        f"Report: {evaluation}/report.html  Scores: {scores}/report.html  (synthetic, not for use on people)",
        f"Next: boneage serve --model {shlex.quote(model)}",
    )


def _phantoms(write: Callable[[], object], uri: str, what: str) -> None:
    """Draw an archive, unless an interrupted demo did so already."""
    done = f"{uri}.drawn"
    if not storage.exists(done):
        say(f"--- drawing {what}")
        write()
        storage.write_text(done, what)
