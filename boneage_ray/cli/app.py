"""The application of all commands: how a command runs, and which words one would take."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from boneage_ray import __version__

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


def run_command(name: str, body: Callable[..., None], arguments: Any, json: bool, debug: bool) -> None:  # noqa: ANN401
    """Run a command with the common behaviour of all commands (runtime/runs.py)."""
    from boneage_ray.runtime import runs
    from boneage_ray.runtime.passed import take_passed

    if debug:
        os.environ["BONEAGE_DEBUG"] = "1"
    take_passed()
    run = runs.Run(name, json_output=json, debug=debug)
    raise typer.Exit(runs.execute(run, lambda run: body(run, arguments)))
