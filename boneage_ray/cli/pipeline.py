"""Commands of the pipeline: from an archive to a model, to results and to a service."""

from __future__ import annotations

from typing import Annotated

import typer

from boneage_ray.cli.app import app, run_command
from boneage_ray.commands import options


@app.command()
def prepare(
    source: Annotated[str, typer.Argument(help="Archive: folder, prefix, zip or tar, with or without labels.")],
    recipe: options.RecipeOption,
    out: options.OutOption,
    labels: Annotated[str | None, typer.Option("--labels", help="Label CSV, if not found next to the images.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Reuse a split: splits.csv of another run.")] = None,
    column: options.ColumnOption = [],  # noqa: B006  typer copies it
    value: options.ValueOption = [],  # noqa: B006
    set_: options.SetOption = [],  # noqa: B006
    update: options.UpdateOption = False,
    overwrite: options.OverwriteOption = False,
    strict: options.StrictOption = False,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Archive -> Parquet shards, manifest.json and rejected.parquet."""
    from boneage_ray.commands import pipeline

    arguments = pipeline.PrepareArguments(
        source, recipe, out, labels, split, set_, overwrite, strict, column, value, update
    )
    run_command("prepare", pipeline.prepare, arguments, json, debug)


@app.command()
def train(
    recipe: options.RecipeOption,
    data: options.DataOption,
    out: options.OutOption,
    pretrain_data: options.PretrainDataOption = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Data-parallel workers (DDP).")] = 1,
    min_workers: Annotated[
        int, typer.Option("--min-workers", min=0, help="Go on with so few while there is no room for all; 0: never.")
    ] = 0,
    gpu: options.GpuOption = False,
    cache_on_gpu: Annotated[
        bool, typer.Option("--cache-on-gpu", help="Keep images that fit on each GPU between epochs.")
    ] = False,
    set_: options.SetOption = [],  # noqa: B006  typer copies it
    sweep: options.SweepOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a killed run from its last epoch.")] = False,
    overwrite: options.OverwriteOption = False,
    wandb: Annotated[bool, typer.Option("--wandb", help="Log to wandb; offline without a key.")] = False,
    track: options.TrackOption = [],  # noqa: B006
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Prepared data -> model bundle; with --sweep -> a table of trials."""
    from boneage_ray.commands import pipeline

    names = (*(["wandb"] if wandb else []), *track)
    arguments = pipeline.TrainArguments(
        recipe, data, out, pretrain_data, workers, min_workers, gpu, cache_on_gpu, set_, resume, overwrite, names, sweep
    )
    if sweep is None:
        run_command("train", pipeline.train, arguments, json, debug)
    else:
        from boneage_ray.commands.sweep import sweep as sweep_command

        run_command("train", sweep_command, arguments, json, debug)


@app.command()
def evaluate(
    model: options.ModelsOption,
    data: options.DatasOption,
    out: options.OutOption,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "test",
    max_mae: options.MaxMaeOption = None,
    open_test: options.OpenTestOption = False,
    coverage: options.CoverageOption = None,
    stability: options.StabilityOption = False,
    similar: options.SimilarOption = False,
    gpu: options.GpuOption = False,
    overwrite: options.OverwriteOption = False,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Bundle + prepared split -> metrics, figures and a one-page report."""
    from boneage_ray.commands import pipeline

    arguments = pipeline.EvaluateArguments(
        model, data, out, split, gpu, overwrite, max_mae, open_test, coverage, stability, similar
    )
    run_command("evaluate", pipeline.evaluate, arguments, json, debug)


@app.command()
def calibrate(
    model: Annotated[str, typer.Option("--model", help="Built-in model, or a bundle: folder or s3://.")],
    data: options.DataOption,
    out: options.OutOption,
    site: Annotated[str | None, typer.Option("--site", help="Its name, which the new bundle bears.")] = None,
    split: Annotated[str, typer.Option("--split", help="train, val, test or all.")] = "test",
    coverage: options.CoverageOption = None,
    max_mae: options.MaxMaeOption = None,
    gpu: options.GpuOption = False,
    overwrite: options.OverwriteOption = False,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Bundle + a site's own cases -> a bundle whose ages are corrected, and whose intervals hold, for this site."""
    from boneage_ray.commands import calibrate as command

    arguments = command.CalibrateArguments(model, data, out, site, split, coverage, gpu, overwrite, max_mae)
    run_command("calibrate", command.calibrate, arguments, json, debug)


@app.command()
def score(
    source: Annotated[
        str, typer.Argument(help="Folder, s3:// prefix or dicomweb+https:// query; every file becomes one row.")
    ],
    model: options.ModelsOption,
    out: options.OutOption,
    metadata: Annotated[str | None, typer.Option("--metadata", help="CSV: uri or stem, sex, age, spacing.")] = None,
    column: options.ColumnOption = [],  # noqa: B006  typer copies it
    value: options.ValueOption = [],  # noqa: B006
    sex: Annotated[str | None, typer.Option("--sex", help="F or M, for every input.")] = None,
    pixel_spacing_mm: options.SpacingOption = None,
    gpu: options.GpuOption = False,
    shape: options.ShapeOption = "auto",
    runtime: options.RuntimeOption = "torch",
    voi: options.VoiOption = None,
    header_gate: options.HeaderGateOption = None,
    coverage: options.CoverageOption = None,
    pixel_gate: options.PixelGateOption = None,
    two_hands: options.TwoHandsOption = None,
    update: options.UpdateOption = False,
    max_failures: options.MaxFailuresOption = None,
    keep: options.KeepOption = "uri",
    route: options.RouteOption = False,
    thumbnails: options.ThumbnailsOption = False,
    overwrite: options.OverwriteOption = False,
    strict: options.StrictOption = False,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Archive -> one result row for every file; repeat the command to continue a killed run."""
    from boneage_ray.commands import pipeline

    arguments = pipeline.ScoreArguments(
        source,
        model,
        out,
        metadata,
        sex,
        pixel_spacing_mm,
        gpu,
        overwrite,
        strict,
        runtime,
        column,
        value,
        options.ReadingFlags(voi, header_gate, pixel_gate, two_hands),
        coverage,
        update,
        max_failures,
        keep,
        route,
        thumbnails,
        shape,
    )
    run_command("score", pipeline.score, arguments, json, debug)


@app.command()
def triage(
    source: Annotated[
        str, typer.Argument(help="Folder, s3:// prefix, zip, tar or DICOMDIR; every file in it is counted.")
    ],
    model: Annotated[
        list[str], typer.Option("--model", help="Whose gates decide; by default hand and cephalogram.")
    ] = [],  # noqa: B006
    out: Annotated[str | None, typer.Option("--out", help="Also write the counts here, as triage.json.")] = None,
    metadata: Annotated[str | None, typer.Option("--metadata", help="CSV: uri or stem, sex, spacing.")] = None,
    column: options.ColumnOption = [],  # noqa: B006
    value: options.ValueOption = [],  # noqa: B006
    sample: options.SampleOption = 1.0,
    site_names: options.SiteNamesOption = False,
    gpu: options.GpuOption = False,
    overwrite: options.OverwriteOption = False,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """What an unknown archive holds: hands, heads, others, unreadable files, copies; nothing is kept of any file."""
    from boneage_ray.commands import triage as command

    arguments = command.TriageArguments(source, model, out, metadata, column, value, sample, site_names, gpu, overwrite)
    run_command("triage", command.triage, arguments, json, debug)


@app.command()
def export(
    out: Annotated[str, typer.Argument(help="What `boneage score` was given as --out.")],
    format_: options.FormatOption,
    to: options.ToOption,
    overwrite: options.ReplaceOption = False,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Result rows -> CSV, Parquet, FHIR, DICOM structured reports and pictures; nothing is scored again."""
    from boneage_ray.commands import export as command

    run_command("export", command.export, command.ExportArguments(out, format_, to, overwrite), json, debug)


@app.command()
def explain(
    image: Annotated[str, typer.Argument(help="One radiograph: a file or s3:// object.")],
    model: Annotated[str, typer.Option("--model", help="Built-in model, or a bundle: folder or s3://.")],
    out: Annotated[str, typer.Option("--out", help="The picture: a name that ends in .png.")],
    sex: Annotated[str | None, typer.Option("--sex", help="F or M.")] = None,
    pixel_spacing_mm: options.SpacingOption = None,
    voi: options.VoiOption = None,
    header_gate: options.HeaderGateOption = None,
    pixel_gate: options.PixelGateOption = None,
    two_hands: options.TwoHandsOption = None,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """One radiograph -> a picture that explains its result: landmarks and lines, a mask's outline, or Grad-CAM."""
    from boneage_ray.commands import explain as command

    reading = options.ReadingFlags(voi, header_gate, pixel_gate, two_hands)
    arguments = command.ExplainArguments(image, model, out, sex, pixel_spacing_mm, reading)
    run_command("explain", command.explain, arguments, json, debug)


@app.command()
def ensemble(
    model: options.ModelsOption,
    out: options.OutOption,
    name: Annotated[str, typer.Option("--name", help="Model name in the result rows.")] = "ensemble",
    overwrite: options.OverwriteOption = False,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Several bundles -> one bundle that predicts their mean and spread."""
    from boneage_ray.commands import ensemble as command

    run_command("ensemble", command.join_models, command.EnsembleArguments(model, out, name, overwrite), json, debug)


@app.command()
def serve(
    model: Annotated[list[str], typer.Option("--model", help="Built-in model, or a bundle; repeat for several.")],
    host: Annotated[str, typer.Option("--host")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8000,
    check: Annotated[
        bool, typer.Option("--check", help="Start, compare answers for synthetic images with `score`, and stop.")
    ] = False,
    update: Annotated[
        bool,
        typer.Option("--update", help="Change the models of the service that runs on this cluster, without a pause."),
    ] = False,
    min_replicas: options.MinReplicasOption = None,
    max_replicas: options.MaxReplicasOption = None,
    target_requests: options.TargetRequestsOption = None,
    runtime: options.RuntimeOption = "torch",
    voi: options.VoiOption = None,
    header_gate: options.HeaderGateOption = None,
    coverage: options.CoverageOption = None,
    pixel_gate: options.PixelGateOption = None,
    two_hands: options.TwoHandsOption = None,
    tokens: Annotated[str | None, typer.Option("--tokens", help="File of token hashes; see `boneage token`.")] = None,
    allow_uri: Annotated[
        list[str], typer.Option("--allow-uri", help="Prefix below which a request may name a file; repeat for several.")
    ] = [],  # noqa: B006  typer copies it
    tls_cert: Annotated[str | None, typer.Option("--tls-cert", help="PEM certificate with its chain: HTTPS.")] = None,
    tls_key: Annotated[str | None, typer.Option("--tls-key", help="PEM key of the certificate.")] = None,
    debug: options.DebugOption = False,
) -> None:
    """Answer single requests over HTTP: POST /v1/predict."""
    from boneage_ray.commands import service

    reading = options.ReadingFlags(voi, header_gate, pixel_gate, two_hands)
    scaling = options.ScalingFlags(min_replicas, max_replicas, target_requests)
    guards = options.GuardFlags(tokens, tuple(allow_uri), tls_cert, tls_key)
    arguments = service.ServeArguments(model, host, port, check, update, scaling, guards, runtime, reading, coverage)
    run_command("serve", service.serve, arguments, False, debug)
