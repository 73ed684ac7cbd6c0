"""prepare, train, evaluate and score: recipe and places in, answer and next command out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from boneage_ray import storage
from boneage_ray.archives.columns import read_choices
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.notes import cautions
from boneage_ray.archives.pacs import PacsArchive
from boneage_ray.commands.options import ReadingFlags
from boneage_ray.commands.starting import check_group, check_tables, join_ray, say_cautions, wait_for_group
from boneage_ray.commands.words import (
    absolute_places,
    after_prepare,
    after_training,
    check_update,
    for_every_input,
    known_coverage,
    known_reading,
    known_sex,
    known_split,
    line,
    model_facts,
    model_notes,
    model_places,
    refuse_overlap,
)
from boneage_ray.errors import GateMissedError, StrictError, UsageError
from boneage_ray.prediction.runtimes import TORCH, check_runtime
from boneage_ray.runtime import lease, nodes, parts, resources
from boneage_ray.runtime.runs import Run, say, timed
from boneage_ray.storage.dicomweb import is_dicomweb


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
    columns: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    update: bool = False


def prepare(run: Run, arguments: PrepareArguments) -> None:
    """Archive -> Parquet shards, manifest, rejected rows, report."""
    from boneage_ray.archives.open import open_archive
    from boneage_ray.evaluation.data_report import data_page, pick_excluded
    from boneage_ray.preparation.overview import overview_lines
    from boneage_ray.preparation.shards import PrepareOptions, prepare_archive, rejected_batches
    from boneage_ray.recipes import find_recipe
    from boneage_ray.recipes.recipe import override

    check_update(arguments.update, arguments.overwrite)
    recipe = override(find_recipe(arguments.recipe), arguments.settings)
    source, out = storage.absolute(arguments.source), storage.absolute(arguments.out)
    labels = storage.absolute(arguments.labels) if arguments.labels else None
    splits = storage.absolute(arguments.splits) if arguments.splits else None
    refuse_overlap(out, "SOURCE", [source])
    archive = open_archive(source, labels, read_choices(arguments.columns, arguments.values))
    check_tables(run, archive)
    options = PrepareOptions(
        out, recipe.image, recipe.split, splits, arguments.overwrite, recipe.task_kind.region, arguments.update
    )
    run.note(recipe=recipe.model_dump(mode="json"), source=source, labels=labels)
    join_ray(run)
    with timed(run, "prepare"):
        manifest = prepare_archive(archive, source, options, on_claimed=lambda: setattr(run, "out", out))
    counts = manifest["counts"]
    run.note(counts=counts, fingerprint=manifest["fingerprint"])
    given = {"recipe": arguments.recipe, "set": arguments.settings, "labels": labels, "split": splits, "out": out}
    given |= {"column": arguments.columns, "value": arguments.values}
    command = line("boneage prepare", source, **given, update=arguments.update or None)
    facts = {"Archive": source, "Recipe": recipe.name, "Data": f"{out} {manifest['fingerprint']}"}
    page = data_page(manifest, pick_excluded(rejected_batches(out)), facts, command, manifest["duplicates"])
    storage.write_text(storage.join(out, "report.html"), page)
    for text in [*overview_lines(manifest["overview"]), *cautions(archive.accounts)]:
        say(text)
    pretraining = any(stage.data == "pretrain" for stage in recipe.stages)
    run.finish(
        {**counts, "rejected_by_reason": manifest["rejected_by_reason"]},
        f"Data: {out}  Report: {out}/report.html  Rejected: {out}/rejected.parquet",
        after_prepare(arguments.recipe, arguments.settings, out, pretraining, counts),
    )
    if arguments.strict and counts["rejected"]:
        raise StrictError(f"{counts['rejected']} inputs were rejected, see {out}/rejected.parquet")


@dataclass(frozen=True)
class TrainArguments:
    """Flags of `boneage train`."""

    recipe: str
    data: str
    out: str
    pretrain_data: str | None = None
    workers: int = 1
    min_workers: int = 0
    gpu: bool = False
    cache_on_gpu: bool = False
    settings: list[str] = field(default_factory=list)
    resume: bool = False
    overwrite: bool = False
    track: tuple[str, ...] = ()
    sweep: str | None = None


def train(run: Run, arguments: TrainArguments) -> None:
    """Prepared data -> model bundle."""
    run.to_continue = "give the command again with --resume"
    from boneage_ray.commands import ensemble
    from boneage_ray.datasets.load import open_prepared
    from boneage_ray.recipes import find_recipe
    from boneage_ray.recipes.recipe import override
    from boneage_ray.training import driver
    from boneage_ray.training.tracking import check_trackers

    check_trackers(arguments.track)
    recipe = override(find_recipe(arguments.recipe), arguments.settings)
    data, out = storage.absolute(arguments.data), storage.absolute(arguments.out)
    pretrain = storage.absolute(arguments.pretrain_data) if arguments.pretrain_data else None
    refuse_overlap(out, "--data", [data])
    refuse_overlap(out, "--pretrain-data", [pretrain] if pretrain else [])
    prepared = open_prepared(data)
    prepared.check_image(recipe.image)
    driver.check_labels(recipe, prepared)
    say_cautions(prepared.manifest)
    workers, least = arguments.workers, arguments.min_workers
    fewest = {"min_workers": least} if least else {}
    run.note(recipe=recipe.model_dump(mode="json"), data=data, seed=recipe.seed, workers=workers, **fewest)
    driver.check_pretraining(recipe, prepared, pretrain)
    check_group(recipe.batch_size, workers, least)
    if arguments.cache_on_gpu and not arguments.gpu:
        raise UsageError("--cache-on-gpu keeps images on the GPU: give --gpu too, or leave it out")
    options = driver.TrainOptions(
        data, out, pretrain, workers, least, arguments.gpu, arguments.cache_on_gpu, track=arguments.track
    )
    mark = driver.training_fingerprint(recipe, prepared, options)
    if parts.claim(out, mark, arguments.overwrite, "train") and not arguments.resume:
        raise parts.held_by_same_run(out)
    run.out = out
    cpus = join_ray(run)
    wait_for_group(workers, least, arguments.gpu, cpus)
    hold, compute = lease.holding(out), nodes.device_of_run(out, arguments.gpu)
    nodes.check_places(hold, [("--data", data), *([("--pretrain-data", pretrain)] if pretrain else [])])
    options = replace(options, hold=hold, compute=compute)
    run.note(compute=compute.as_json())
    if recipe.members > 1:
        ensemble.train_ensemble(run, recipe, prepared, options)
        return
    with timed(run, "train"):
        progress, sha256 = driver.run_training(recipe, prepared, options)
    best = progress.history[progress.best_epoch - 1]
    seconds = sum(line["train_seconds"] for line in progress.history)
    rate = sum(line["train_cases"] for line in progress.history) / max(seconds, 1e-9)
    run.note(model_sha256=sha256, data_fingerprint=prepared.manifest["fingerprint"])
    run.finish(
        {
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            **{name: best[name] for name in recipe.task_kind.reported if name in best},
            "images_per_second": round(rate, 1),
            "model_sha256": sha256,
        },
        f"Model: {out}",
        after_training(recipe, out, data),
    )


@dataclass(frozen=True)
class EvaluateArguments:
    """Flags of `boneage evaluate`; `model` and `data`: one place, or several."""

    model: str | list[str]
    data: str | list[str]
    out: str
    split: str = "test"
    gpu: bool = False
    overwrite: bool = False
    max_mae: float | None = None
    open_test: bool = False
    coverage: float | None = None
    stability: bool = False
    similar: bool = False


def evaluate(run: Run, arguments: EvaluateArguments) -> None:
    """Bundles + prepared split -> metrics, figures, page. Several bundles are evaluated as one."""
    from boneage_ray.datasets.load import open_prepared
    from boneage_ray.evaluation.learnt import learnt_cases, learnt_in_words, unknown_in_words
    from boneage_ray.evaluation.match import check_same_cases, match_data
    from boneage_ray.findings.task_findings import EvaluationOrder, findings_of
    from boneage_ray.prediction import members

    split = known_split(arguments.split)
    model, data = model_places(arguments.model), absolute_places(arguments.data)
    out = storage.absolute(arguments.out)
    refuse_overlap(out, "--model", model)
    refuse_overlap(out, "--data", data)
    models, datasets = members.resolve(model), [open_prepared(uri) for uri in dict.fromkeys(data)]
    datasets = match_data(models, datasets)
    for prepared in datasets:
        prepared.shards(split)
    check_same_cases(datasets, split)
    prints = [prepared.manifest["fingerprint"] for prepared in datasets]
    level = known_coverage(arguments.coverage)
    command = line(
        "boneage evaluate", model=model, data=data, split=split, out=out, coverage=level, gpu=arguments.gpu or None
    )
    facts = {
        **model_facts(models),
        "Data": ", ".join(f"{data.uri} {mark}" for data, mark in zip(datasets, prints, strict=True)),
        "Split": split,
    }
    order = EvaluationOrder(
        models,
        datasets,
        split,
        out,
        command,
        facts,
        open_test=arguments.open_test,
        max_mae=arguments.max_mae,
        coverage=level,
        stability=arguments.stability,
        similar=arguments.similar,
    )
    findings = findings_of(models.recipe)
    findings.check_evaluation(run, order)
    findings.check_coverage(models, level)
    mark = parts.fingerprint([], models.sha256, prints, split, *([] if level is None else [level]))
    parts.claim(out, mark, arguments.overwrite, "evaluate")
    run.out = out
    join_ray(run)
    compute = nodes.device_of_run(out, arguments.gpu)
    run.note(compute=compute.as_json())
    nodes.check_places(lease.holding(out), [*(("--data", uri) for uri in data), *members.read_places(models)])
    learnt = learnt_cases(models, datasets[0], split)
    for words in (*learnt_in_words(learnt), *unknown_in_words(learnt)):
        say(words)
    evaluated = findings.evaluate(run, replace(order, compute=compute, learnt=learnt))
    run.note(data_fingerprint=prints[0] if len(prints) == 1 else prints, split=split, **model_notes(models))
    following = "Next: " + line("boneage score", "ARCHIVE", model=model, out="SCORES")
    run.finish(evaluated.figures, f"Report: {out}/report.html", following)
    if evaluated.missed:
        raise GateMissedError(evaluated.missed)


@dataclass(frozen=True)
class ScoreArguments:
    """Flags of `boneage score`; `model`: one place, or several that are scored as one."""

    source: str
    model: str | list[str]
    out: str
    metadata: str | None = None
    sex: str | None = None
    pixel_spacing_mm: float | None = None
    gpu: bool = False
    overwrite: bool = False
    strict: bool = False
    runtime: str = TORCH
    columns: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    reading: ReadingFlags = ReadingFlags()  # noqa: RUF009  immutable
    coverage: float | None = None
    update: bool = False
    max_failures: float | None = None
    keep: str = "uri"
    route: bool = False
    thumbnails: bool = False
    shape: str = "auto"


def score(run: Run, arguments: ScoreArguments) -> None:
    """Bundles + archive -> one result row for every input file."""
    from boneage_ray.commands import score_report
    from boneage_ray.findings.task_findings import findings_of
    from boneage_ray.prediction.routing import resolve_all
    from boneage_ray.scoring.kept import check_keep
    from boneage_ray.scoring.score import ScoreOptions, score_archive
    from boneage_ray.scoring.summary import balance, check_failures, check_strict

    check_update(arguments.update, arguments.overwrite)
    score_report.check_thumbnails(arguments.thumbnails, arguments.keep)
    sex, runtime = known_sex(arguments.sex), check_runtime(arguments.runtime, arguments.gpu)
    shape = resources.check_shape(arguments.shape, arguments.gpu)
    reading = known_reading(arguments.reading)
    source, out = storage.absolute(arguments.source), storage.absolute(arguments.out)
    model, keep = model_places(arguments.model), check_keep(arguments.keep, arguments.update, out)
    metadata = storage.absolute(arguments.metadata) if arguments.metadata else None
    choices = read_choices(arguments.columns, arguments.values)
    if choices and not metadata:
        raise UsageError("--column and --value say how to read a table: give one with --metadata CSV")
    refuse_overlap(out, "SOURCE", [source])
    refuse_overlap(out, "--model", model)
    models = resolve_all(model, arguments.route)
    for each in models:
        findings_of(each.recipe).check_coverage(each, known_coverage(arguments.coverage))
    mask_files = any(image.mask == "file" for each in models for image in each.scored_images())
    kind = PacsArchive if is_dicomweb(source) else FilesArchive
    archive = kind(source, metadata, sex, arguments.pixel_spacing_mm, mask_files, choices)
    check_tables(run, archive, learns=False)
    given = for_every_input(sex, arguments.pixel_spacing_mm)
    how = (arguments.overwrite, arguments.gpu, runtime, reading, arguments.coverage, given, arguments.update)
    what = (arguments.max_failures, keep, arguments.route, arguments.thumbnails, shape)
    options = ScoreOptions(source, model, out, *how, *what)
    join_ray(run)
    with timed(run, "score"):
        summary, rows = score_archive(archive, options, on_claimed=lambda: setattr(run, "out", out))
    typed: dict[str, object] = {"column": arguments.columns, "value": arguments.values, "sex": arguments.sex}
    typed |= {"pixel_spacing_mm": arguments.pixel_spacing_mm}
    with timed(run, "report"):
        score_report.write_page(options, summary, rows, models, score_report.score_line(options, metadata, **typed))
    run.note(counts=summary, compute=summary["compute"], runtime=runtime, reading=reading.model_dump())
    run.note(source=source, model=model[0] if len(model) == 1 else model)
    run.note(inputs_fingerprint=summary["fingerprint"], **score_report.notes_of(models))
    run.finish(
        balance(summary, arguments.update),
        f"Results: {out}/results/  Report: {out}/report.html",
        score_report.next_step(options, models),
    )
    check_failures(summary, arguments.max_failures)
    check_strict(summary, arguments.strict, out)
