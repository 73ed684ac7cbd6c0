"""The `boneage` commands with their flags. Heavy imports wait until a command runs."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from boneage_ray import __version__
from boneage_ray.commands import options

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Skeletal maturity from radiographs on Ray: train, evaluate, score archives, serve. For research, not a medical device.",
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def demo(
    out: Annotated[str, typer.Option("--out", help="Folder for the whole tree.")] = "demo",
    overwrite: options.OverwriteOption = False,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Phantoms -> prepare -> train -> evaluate -> score -> report: no data, no network, no GPU."""
    from boneage_ray.commands import demo as command

    _execute("demo", command.demo, command.DemoArguments(out, overwrite), json, debug)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe in full (TOML).")] = None,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """List the recipes, one line each; with NAME, print one recipe."""
    from boneage_ray.commands import tools

    _execute("recipes", tools.recipes, name, json, debug)


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="Tell all of this one.")] = None,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """The built-in models, one line each; with NAME, its errors with their commands, size, terms and hash."""
    from boneage_ray.commands import models as command

    _execute("models", command.models, name, json, debug)


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
    _execute("prepare", pipeline.prepare, arguments, json, debug)


@app.command()
def train(
    recipe: options.RecipeOption,
    data: options.DataOption,
    out: options.OutOption,
    pretrain_data: options.PretrainDataOption = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Data-parallel workers (DDP).")] = 1,
    gpu: options.GpuOption = False,
    set_: options.SetOption = [],  # noqa: B006  typer copies it
    resume: Annotated[bool, typer.Option("--resume", help="Continue a killed run from its last epoch.")] = False,
    overwrite: options.OverwriteOption = False,
    wandb: Annotated[bool, typer.Option("--wandb", help="Log to wandb; offline without a key.")] = False,
    track: options.TrackOption = [],  # noqa: B006
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Prepared data -> model bundle."""
    from boneage_ray.commands import pipeline

    names = (*(["wandb"] if wandb else []), *track)
    arguments = pipeline.TrainArguments(recipe, data, out, pretrain_data, workers, gpu, set_, resume, overwrite, names)
    _execute("train", pipeline.train, arguments, json, debug)


@app.command()
def evaluate(
    model: options.ModelsOption,
    data: options.DatasOption,
    out: options.OutOption,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "test",
    max_mae: options.MaxMaeOption = None,
    open_test: options.OpenTestOption = False,
    coverage: options.CoverageOption = None,
    gpu: options.GpuOption = False,
    overwrite: options.OverwriteOption = False,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Bundle + prepared split -> metrics, figures and a one-page report."""
    from boneage_ray.commands import pipeline

    arguments = pipeline.EvaluateArguments(model, data, out, split, gpu, overwrite, max_mae, open_test, coverage)
    _execute("evaluate", pipeline.evaluate, arguments, json, debug)


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
    _execute("calibrate", command.calibrate, arguments, json, debug)


@app.command()
def score(
    source: Annotated[str, typer.Argument(help="Folder or s3:// prefix; every file in it becomes one row.")],
    model: options.ModelsOption,
    out: options.OutOption,
    metadata: Annotated[str | None, typer.Option("--metadata", help="CSV: uri or stem, sex, age, spacing.")] = None,
    column: options.ColumnOption = [],  # noqa: B006  typer copies it
    value: options.ValueOption = [],  # noqa: B006
    sex: Annotated[str | None, typer.Option("--sex", help="F or M, for every input.")] = None,
    pixel_spacing_mm: options.SpacingOption = None,
    gpu: options.GpuOption = False,
    runtime: options.RuntimeOption = "torch",
    voi: options.VoiOption = None,
    header_gate: options.HeaderGateOption = None,
    coverage: options.CoverageOption = None,
    update: options.UpdateOption = False,
    max_failures: options.MaxFailuresOption = None,
    overwrite: options.OverwriteOption = False,
    strict: options.StrictOption = False,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Archive -> one result row for every file; repeat the command to continue a killed run."""
    from boneage_ray.commands import pipeline

    given = (metadata, sex, pixel_spacing_mm, gpu, overwrite, strict, runtime, column, value)
    arguments = pipeline.ScoreArguments(
        source, model, out, *given, voi, header_gate, coverage, update=update, max_failures=max_failures
    )
    _execute("score", pipeline.score, arguments, json, debug)


@app.command()
def explain(
    image: Annotated[str, typer.Argument(help="One radiograph: a file or s3:// object.")],
    model: Annotated[str, typer.Option("--model", help="Built-in model, or a bundle: folder or s3://.")],
    out: Annotated[str, typer.Option("--out", help="The picture: a name that ends in .png.")],
    sex: Annotated[str | None, typer.Option("--sex", help="F or M.")] = None,
    pixel_spacing_mm: options.SpacingOption = None,
    voi: options.VoiOption = None,
    header_gate: options.HeaderGateOption = None,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """One radiograph -> a picture that explains its result: landmarks and lines, a mask's outline, or Grad-CAM."""
    from boneage_ray.commands import explain as command

    arguments = command.ExplainArguments(image, model, out, sex, pixel_spacing_mm, voi, header_gate)
    _execute("explain", command.explain, arguments, json, debug)


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

    _execute("ensemble", command.join_models, command.EnsembleArguments(model, out, name, overwrite), json, debug)


@app.command()
def serve(
    model: Annotated[list[str], typer.Option("--model", help="Built-in model, or a bundle; repeat for several.")],
    host: Annotated[str, typer.Option("--host")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8000,
    runtime: options.RuntimeOption = "torch",
    voi: options.VoiOption = None,
    header_gate: options.HeaderGateOption = None,
    coverage: options.CoverageOption = None,
    debug: options.DebugOption = False,
) -> None:
    """Answer single requests over HTTP: POST /v1/predict."""
    from boneage_ray.commands import service

    arguments = service.ServeArguments(model, host, port, runtime, voi, header_gate, coverage)
    _execute("serve", service.serve, arguments, False, debug)


@app.command()
def submit(
    job: Annotated[str, typer.Argument(help="Job spec (YAML), see jobs/.")],
    address: Annotated[str | None, typer.Option("--address", help="Ray dashboard, e.g. http://head:8265.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show the log; exit as the job does.")] = False,
    pass_env: options.PassEnvOption = [],  # noqa: B006  typer copies it
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the request.")] = False,
    kuberay: Annotated[bool, typer.Option("--kuberay", help="Only print a RayJob for Kubernetes.")] = False,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Submit a job to a Ray cluster (Ray Jobs API)."""
    from boneage_ray.commands import submit as command

    arguments = command.SubmitArguments(job, address, follow, check_words, tuple(pass_env), dry_run, kuberay)
    _execute("submit", command.submit, arguments, json, debug)


@app.command()
def phantoms(
    out: options.OutOption,
    kind: Annotated[str, typer.Option("--kind", help="hand or cephalogram.")] = "hand",
    count: Annotated[int, typer.Option("--count", min=1)] = 32,
    size: Annotated[int, typer.Option("--size", min=64, max=4096, help="Height in pixels.")] = 512,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    bad: Annotated[bool, typer.Option("--bad", help="Add planted bad inputs.")] = False,
    dicom: Annotated[bool, typer.Option("--dicom", help="DICOM in all encodings instead of PNG.")] = False,
    masks: Annotated[bool, typer.Option("--masks", help="Add the true mask of each hand: masks/ID.png.")] = False,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """A synthetic archive with known answers."""
    from boneage_ray.commands import tools

    arguments = tools.PhantomArguments(out, kind, count, size, seed, bad, dicom, masks)
    _execute("phantoms", tools.phantoms, arguments, json, debug)


@app.command()
def doctor(
    model: Annotated[str | None, typer.Option("--model", help="Also verify this bundle.")] = None,
    storage: Annotated[str | None, typer.Option("--storage", help="Also write to and read from this location.")] = None,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Check versions, devices, Ray, storage and a model on this machine."""
    from boneage_ray.commands import tools

    _execute("doctor", tools.doctor, tools.DoctorArguments(model, storage), json, debug)


def check_words(words: list[str]) -> None:
    """Refuse what no command would take (`["score", "s3://hands", "--modle", "m"]`); runs nothing. Raises `UsageError`."""
    from boneage_ray.errors import UsageError

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    name, *flags = words or [""]
    if name not in commands:
        raise UsageError(f"boneage {name}: no such command; known: {', '.join(commands)}")
    wrong_usage: Any = typer.BadParameter.__base__  # typer's UsageError, which it has had under several names
    try:
        commands[name].make_context(f"boneage {name}", [flag for flag in flags if flag != "--help"])
    except wrong_usage as error:
        raise UsageError(f"boneage {name}: {error.format_message()}") from None


def _execute(name: str, body: Callable[..., None], arguments: Any, json: bool, debug: bool) -> None:  # noqa: ANN401
    """Run a command with the common behaviour of all commands (runtime/runs.py)."""
    from boneage_ray.runtime.passed import take_passed
    from boneage_ray.runtime.runs import Run, execute

    if debug:
        os.environ["BONEAGE_DEBUG"] = "1"
    take_passed()
    run = Run(name, json_output=json, debug=debug)
    raise typer.Exit(execute(run, lambda run: body(run, arguments)))


def main(argv: list[str] | None = None) -> int:
    """The console script; returns the exit code (see errors.ExitCode)."""
    arguments = sys.argv[1:] if argv is None else argv
    os.environ.setdefault("BONEAGE_COMMAND", shlex.join(["boneage", *arguments]))
    try:
        app(args=arguments, prog_name="boneage")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    return 0
