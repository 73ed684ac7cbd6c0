"""Commands around the pipeline: demo, recipes, models, jobs, phantoms, receive, token, doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from boneage_ray.cli.app import app, check_words, run_command
from boneage_ray.commands import options


@app.command()
def demo(
    out: Annotated[str, typer.Option("--out", help="Folder for the whole tree.")] = "demo",
    overwrite: options.OverwriteOption = False,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Phantoms -> prepare -> train -> evaluate -> score -> report: no data, no network, no GPU."""
    from boneage_ray.commands import demo as command

    run_command("demo", command.demo, command.DemoArguments(out, overwrite), json, debug)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe in full (TOML).")] = None,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """List the recipes, one line each; with NAME, print one recipe."""
    from boneage_ray.commands import tools

    run_command("recipes", tools.recipes, name, json, debug)


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="Tell all of this one.")] = None,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """The built-in models, one line each; with NAME, its errors with their commands, size, terms and hash."""
    from boneage_ray.commands import models as command

    run_command("models", command.models, name, json, debug)


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
    run_command("submit", command.submit, arguments, json, debug)


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
    run_command("phantoms", tools.phantoms, arguments, json, debug)


@app.command()
def receive(
    to: Annotated[str, typer.Option("--to", help="Archive that grows: a folder or s3://bucket/prefix.")],
    allow: options.AllowOption = [],  # noqa: B006  typer copies it
    aet: Annotated[str, typer.Option("--aet", help="Our own AE title.")] = "BONEAGE",
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 11112,
    model: Annotated[str | None, typer.Option("--model", help="Score with this model, too.")] = None,
    out: Annotated[
        str | None, typer.Option("--out", help="Where the results go: a folder or s3://bucket/prefix.")
    ] = None,
    quiet_seconds: Annotated[
        float, typer.Option("--quiet-seconds", min=0.0, help="Score when nothing came for so long.")
    ] = 30.0,
    send: Annotated[
        str | None, typer.Option("--send", help="Send SR and SC: dicom://HOST:PORT/AET or dicomweb+https://...")
    ] = None,
    fetch: Annotated[
        str | None,
        typer.Option("--fetch", help="Have a node send what it finds, then end: dicom://HOST:PORT/AET?Modality=DX"),
    ] = None,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Keep what DICOM nodes send by C-STORE as an archive, until it is stopped; score it, and send the results back."""
    from boneage_ray.commands import receive as command

    arguments = command.ReceiveArguments(to, allow, aet, host, port, model, out, quiet_seconds, send, fetch)
    run_command("receive", command.receive, arguments, json, debug)


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Who will hold it; it stands in the log of each request.")],
    per_minute: Annotated[int | None, typer.Option("--per-minute", min=1, max=999999)] = None,
    at_once: Annotated[int | None, typer.Option("--at-once", min=1, max=999999)] = None,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """A new token for the service: the token on stderr, the line for `serve --tokens FILE` on stdout."""
    from boneage_ray.commands import token as command

    run_command("token", command.make_token, command.TokenArguments(name, per_minute, at_once), json, debug)


@app.command()
def doctor(
    model: Annotated[str | None, typer.Option("--model", help="Also verify this bundle.")] = None,
    storage: Annotated[str | None, typer.Option("--storage", help="Also write to and read from this location.")] = None,
    json: options.JsonOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Check versions, devices, Ray, storage and a model on this machine."""
    from boneage_ray.commands import tools

    run_command("doctor", tools.doctor, tools.DoctorArguments(model, storage), json, debug)
