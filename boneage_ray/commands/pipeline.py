"""prepare, train, evaluate and score: recipe and places in, answer and next command out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from boneage_ray import bundle, cluster, parts, storage
from boneage_ray.anatomy.growth import Sex
from boneage_ray.archives.files import FilesArchive
from boneage_ray.errors import GateMissedError, StrictError, UsageError
from boneage_ray.records.split import SPLITS, Split
from boneage_ray.runs import Run, say, timed


@dataclass(frozen=True)
class PrepareArguments:
    """Flags of `boneage prepare`."""

    source: str
    recipe: str
    out: str
    labels: str | None = None
    splits: str | None = None
    settings: list[str] = field(default_factory=list)
    overwrite: bool = False
    strict: bool = False


def prepare(run: Run, arguments: PrepareArguments) -> None:
    """Archive -> Parquet shards, manifest, rejected rows, report."""
    from boneage_ray.archives.open import open_archive
    from boneage_ray.evaluation.data_report import data_page, pick_excluded
    from boneage_ray.recipes import find_recipe
    from boneage_ray.recipes.recipe import override
    from boneage_ray.records.overview import triage
    from boneage_ray.records.shards import PrepareOptions, prepare_archive, rejected_batches

    recipe = override(find_recipe(arguments.recipe), arguments.settings)
    source, out = storage.absolute(arguments.source), storage.absolute(arguments.out)
    labels = storage.absolute(arguments.labels) if arguments.labels else None
    splits = storage.absolute(arguments.splits) if arguments.splits else None
    _refuse_inside(source, out)
    archive = open_archive(source, labels)
    options = PrepareOptions(out, recipe.image, recipe.split, splits, arguments.overwrite)
    run.note(recipe=recipe.model_dump(mode="json"), source=source, labels=labels)
    _connect(run)
    with timed(run, "prepare"):
        manifest = prepare_archive(archive, source, options, on_claimed=lambda: setattr(run, "out", out))
    counts = manifest["counts"]
    run.note(counts=counts, fingerprint=manifest["fingerprint"])
    command = _line("boneage prepare", source, recipe=arguments.recipe, labels=labels, split=splits, out=out)
    command = " ".join([command, *(f"--set {_quoted(text)}" for text in arguments.settings)])
    facts = {"Archive": source, "Recipe": recipe.name, "Data": f"{out} {manifest['fingerprint']}"}
    excluded = pick_excluded(rejected_batches(out))
    page = data_page(manifest, excluded, facts, command, manifest["duplicates"])
    storage.write_text(storage.join(out, "report.html"), page)
    for text in triage(manifest["overview"]):
        say(text)
    run.finish(
        {**counts, "rejected_by_reason": manifest["rejected_by_reason"]},
        f"Data: {out}  Report: {out}/report.html  Rejected: {out}/rejected.parquet",
        f"Next: boneage train --recipe {_quoted(arguments.recipe)} --data {_quoted(out)} --out MODEL",
    )
    if arguments.strict and counts["rejected"]:
        raise StrictError(f"{counts['rejected']} inputs were rejected, see {out}/rejected.parquet")


@dataclass(frozen=True)
class TrainArguments:
    """Flags of `boneage train`."""

    recipe: str
    data: str
    out: str
    workers: int = 1
    gpu: bool = False
    settings: list[str] = field(default_factory=list)
    resume: bool = False
    overwrite: bool = False
    wandb: bool = False


def train(run: Run, arguments: TrainArguments) -> None:
    """Prepared data -> model bundle."""
    run.to_continue = "give the command again with --resume"
    from boneage_ray.datasets.load import open_prepared
    from boneage_ray.recipes import find_recipe
    from boneage_ray.recipes.recipe import override
    from boneage_ray.training.driver import TrainOptions, fingerprint, run_training

    recipe = override(find_recipe(arguments.recipe), arguments.settings)
    data, out = storage.absolute(arguments.data), storage.absolute(arguments.out)
    prepared = open_prepared(data)
    prepared.check_image(recipe.image)
    for split in SPLITS[:2]:
        prepared.shards(split)
    run.note(recipe=recipe.model_dump(mode="json"), data=data, seed=recipe.seed, workers=arguments.workers)
    mark = fingerprint(recipe, prepared, arguments.workers)
    if parts.claim(out, mark, arguments.overwrite, "train") and not arguments.resume:
        raise parts.held_by_same_run(out)
    run.out = out
    cpus = _connect(run)
    cluster.check_workers(arguments.workers, arguments.gpu, cpus)
    options = TrainOptions(data, out, arguments.workers, arguments.gpu, arguments.wandb)
    with timed(run, "train"):
        progress, sha256 = run_training(recipe, prepared, options)
    best = progress.history[progress.best_epoch - 1]
    seconds = sum(line["train_seconds"] for line in progress.history)
    rate = prepared.rows("train") * len(progress.history) / max(seconds, 1e-9)
    run.note(model_sha256=sha256, data_fingerprint=prepared.manifest["fingerprint"])
    run.finish(
        {
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            "val_mae_months": best["val_mae_months"],
            "val_loss": best["val_loss"],
            "images_per_second": round(rate, 1),
            "model_sha256": sha256,
        },
        f"Model: {out}",
        f"Next: boneage evaluate --model {_quoted(out)} --data {_quoted(data)} --split test --out EVALUATION",
    )


@dataclass(frozen=True)
class EvaluateArguments:
    """Flags of `boneage evaluate`."""

    model: str
    data: str
    out: str
    split: str = "test"
    gpu: bool = False
    overwrite: bool = False
    max_mae: float | None = None


def evaluate(run: Run, arguments: EvaluateArguments) -> None:
    """Bundle + prepared split -> metrics, figures, page."""
    from boneage_ray.datasets.load import open_prepared
    from boneage_ray.evaluation import evaluate as job
    from boneage_ray.evaluation.analysis import analyse
    from boneage_ray.evaluation.report import evaluation_page

    split = _split(arguments.split)
    model, data, out = (
        storage.absolute(arguments.model),
        storage.absolute(arguments.data),
        storage.absolute(arguments.out),
    )
    loaded, prepared = bundle.load(model), open_prepared(data)
    prepared.check_image(loaded.recipe.image)
    prepared.shards(split)
    mark = parts.fingerprint([], loaded.sha256, prepared.manifest["fingerprint"], split)
    parts.claim(out, mark, arguments.overwrite, "evaluate")
    run.out = out
    _connect(run)
    with timed(run, "evaluate"):
        rows = job.predict_split(model, prepared, split, arguments.gpu)
    job.write_predictions(out, rows)
    predictions = job.as_predictions(rows, getattr(loaded.recipe.model, "stage_heads", ()))
    analysis = analyse(predictions, job.median_age(prepared))
    storage.write_json(storage.join(out, "metrics.json"), analysis)
    facts = {
        "Model": f"{loaded.recipe.name} {loaded.sha256[:12]}",
        "Data": f"{data} {prepared.manifest['fingerprint']}",
        "Split": split,
    }
    command = _line("boneage evaluate", model=model, data=data, split=split, out=out, gpu=arguments.gpu or None)
    page = evaluation_page(analysis, predictions, facts, loaded.metrics.get("history", []), command)
    storage.write_text(storage.join(out, "report.html"), page)
    run.note(model_sha256=loaded.sha256, data_fingerprint=prepared.manifest["fingerprint"], split=split)
    run.note(recipe=loaded.recipe.model_dump(mode="json"), seed=loaded.recipe.seed)
    run.finish(
        headline(analysis),
        f"Report: {out}/report.html",
        f"Next: boneage score ARCHIVE --model {_quoted(model)} --out SCORES",
    )
    if arguments.max_mae is not None and analysis["mae_months"] > arguments.max_mae:
        raise GateMissedError(f"MAE {analysis['mae_months']:.2f} months is above --max-mae {arguments.max_mae:g}")


def headline(analysis: dict[str, Any]) -> dict[str, Any]:
    """The few figures that the terminal shows."""
    low, high = analysis["mae_interval_months"]
    shown: dict[str, Any] = {
        "cases": analysis["n"],
        "mae_months": analysis["mae_months"],
        "mae_95_interval": f"{low:.2f} to {high:.2f}",
        "rmse_months": analysis["rmse_months"],
        "bias_months": analysis["bias_months"],
        "r2": analysis["r2"],
    }
    if analysis.get("baseline"):
        shown["always_median_mae_months"] = analysis["baseline"]["mae_months"]
    return shown


@dataclass(frozen=True)
class ScoreArguments:
    """Flags of `boneage score`."""

    source: str
    model: str
    out: str
    metadata: str | None = None
    sex: str | None = None
    pixel_spacing_mm: float | None = None
    gpu: bool = False
    overwrite: bool = False
    strict: bool = False


def score(run: Run, arguments: ScoreArguments) -> None:
    """Bundle + archive -> one result row for every input file."""
    from boneage_ray.scoring.report import score_page
    from boneage_ray.scoring.score import ScoreOptions, problems, score_archive

    if arguments.sex not in (None, "F", "M"):
        raise UsageError(f"--sex {arguments.sex}: F or M is needed; leave it out where it is unknown")
    source, model, out = (
        storage.absolute(arguments.source),
        storage.absolute(arguments.model),
        storage.absolute(arguments.out),
    )
    metadata = storage.absolute(arguments.metadata) if arguments.metadata else None
    _refuse_inside(source, out)
    archive = FilesArchive(source, metadata, cast(Sex | None, arguments.sex), arguments.pixel_spacing_mm)
    options = ScoreOptions(source, model, out, arguments.overwrite, arguments.gpu)
    _connect(run)
    with timed(run, "score"):
        summary = score_archive(archive, options, on_claimed=lambda: setattr(run, "out", out))
    for warning in summary["metadata_warnings"]:
        say(warning)
    storage.write_json(storage.join(out, "summary.json"), summary)
    command = _line(
        "boneage score",
        source,
        model=model,
        out=out,
        metadata=metadata,
        sex=arguments.sex,
        pixel_spacing_mm=arguments.pixel_spacing_mm,
        gpu=arguments.gpu or None,
    )
    facts = {"Archive": source, "Model": f"{model} {summary['model_sha256'][:12]}"}
    storage.write_text(storage.join(out, "report.html"), score_page(summary, problems(out), facts, command))
    recipe = storage.read_json(storage.join(model, bundle.RECIPE))
    run.note(counts=summary, source=source, model=model, model_sha256=summary["model_sha256"])
    run.note(inputs_fingerprint=summary["fingerprint"], recipe=recipe, seed=recipe["seed"])
    run.finish(
        {name: summary[name] for name in ("inputs", "scored", "rejected", "failed", "reasons")},
        f"Results: {out}/results/  Report: {out}/report.html",
        f"Next: boneage serve --model {_quoted(model)}",
    )
    lost = summary["rejected"] + summary["failed"]
    if arguments.strict and lost:
        raise StrictError(f"{lost} of {summary['inputs']} inputs were rejected or failed, see {out}/report.html")


def _refuse_inside(source: str, out: str) -> None:
    """What a run writes must not become its own input."""
    if f"{out}/".startswith(f"{source.rstrip('/')}/"):
        raise UsageError(f"--out {out} lies inside SOURCE {source}: give a place outside, or its files would be inputs")


def _connect(run: Run) -> float:
    """Join or start Ray, and note in run.json what it offers."""
    cpus = cluster.connect()
    run.note(cluster=cluster.offers())
    return cpus


def _split(name: str) -> Split:
    for split in SPLITS:
        if split == name:
            return split
    raise UsageError(f"--split {name}: one of {', '.join(SPLITS)} is needed")


def _line(*words: str, **flags: object) -> str:
    """A command as it can be pasted; flags that are None are left out, True is a flag without a value."""
    import shlex

    given = [word for word in words[1:] if word]
    for name, value in flags.items():
        if value is not None:
            given += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return " ".join([words[0], shlex.join(given)])


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)
