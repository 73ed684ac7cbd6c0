"""All of it on phantoms in one command: no data, no network, no GPU."""

from __future__ import annotations

from dataclasses import dataclass

from boneage_ray import cluster, parts, storage
from boneage_ray.commands import pipeline
from boneage_ray.runs import Run, say, timed

COUNT, SIZE, SEED = 700, 192, 7
SCORED, SCORED_SEED = 48, 11


@dataclass(frozen=True)
class DemoArguments:
    """Flags of `boneage demo`."""

    out: str
    overwrite: bool


def demo(run: Run, arguments: DemoArguments) -> None:
    """Each station is the very function that its command runs."""
    from boneage_ray.phantoms.archive import write_hand_archive

    out = pipeline.absolute(arguments.out)
    parts.claim(out, parts.fingerprint([], "demo", COUNT, SIZE, SEED), True if arguments.overwrite else False, "demo")
    run.out = out
    archive, unseen, data, model, evaluation, scores = (
        storage.join(out, name) for name in ("archive", "unseen", "data", "model", "evaluation", "scores")
    )
    say("synthetic radiographs, not for use on people")
    with timed(run, "phantoms"):
        _phantoms(lambda: write_hand_archive(archive, COUNT, SEED, SIZE), archive, f"{COUNT} phantoms")
        _phantoms(lambda: write_hand_archive(unseen, SCORED, SCORED_SEED, SIZE, True), unseen, f"{SCORED} more, with bad files")
    cluster.connect()
    pictures = storage.join(archive, "boneage-training-dataset")
    stations = (
        ("prepare", pipeline.prepare, pipeline.PrepareArguments(pictures, "demo", data)),
        ("train", pipeline.train, pipeline.TrainArguments("demo", data, model, resume=True)),
        ("evaluate", pipeline.evaluate, pipeline.EvaluateArguments(model, data, evaluation)),
        ("score", pipeline.score, pipeline.ScoreArguments(unseen, model, scores)),
    )
    answer: dict[str, object] = {}
    for name, body, values in stations:
        say(f"--- boneage {name}")
        inner = Run(name)
        with timed(run, name):
            body(inner, values)  # type: ignore[operator]
        answer[name] = inner.answer
        storage.write_json(storage.join(str(inner.out), "run.json"), inner.record(0, None))
    found = answer["evaluate"]
    run.finish(
        {**answer, "seconds": run.facts["timings"]},
        f"Report: {evaluation}/report.html  Scores: {scores}/report.html  (synthetic, not for use on people)",
        f"Next: boneage score YOUR_FOLDER --model MODEL --out OUT, after training on your data; or boneage serve --model {model}",
    )
    run.note(evaluation=found)


def _phantoms(write: object, uri: str, what: str) -> None:
    if storage.is_empty(uri):
        say(f"--- drawing {what}")
        write()  # type: ignore[operator]
