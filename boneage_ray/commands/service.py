"""serve: answer requests over HTTP."""

from __future__ import annotations

import ipaddress
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from boneage_ray.commands.options import GuardFlags, ReadingFlags, ScalingFlags
from boneage_ray.commands.words import known_coverage, known_reading, model_places
from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.prediction.runtimes import TORCH, Compute
from boneage_ray.runtime import cluster
from boneage_ray.runtime.runs import Run, say
from boneage_ray.serving.arguments import TOKENS, ServiceArguments, known_arguments
from boneage_ray.serving.tls import known_tls
from boneage_ray.serving.tokens import Tokens

if TYPE_CHECKING:
    from boneage_ray.client import Client
    from boneage_ray.serving.app import Built


@dataclass(frozen=True)
class ServeArguments:
    """Flags of `boneage serve`."""

    models: list[str]
    host: str = "127.0.0.1"
    port: int = 8000
    check: bool = False
    update: bool = False
    scaling: ScalingFlags = ScalingFlags()  # noqa: RUF009  immutable
    guards: GuardFlags = GuardFlags()  # noqa: RUF009  immutable
    runtime: str = TORCH
    reading: ReadingFlags = ReadingFlags()  # noqa: RUF009  immutable
    coverage: float | None = None


def serve(run: Run, arguments: ServeArguments) -> None:
    """Answer requests until SIGINT or SIGTERM; with --check those of the check only; with --update change a running service."""
    from boneage_ray.commands.service_check import client_of_check
    from boneage_ray.serving.placement import inspect_models
    from boneage_ray.serving.tokens import token_hash

    if arguments.update:
        _update(run, arguments)
        return
    service, tls = _service_arguments(arguments), known_tls(arguments.guards.tls_cert, arguments.guards.tls_key)
    config = service.web_config()  # a limit that has no use, and a file without tokens, are refused before Ray starts
    guarded = bool(Tokens(config.token_hashes, config.tokens_file).entries())
    check_exposure(arguments.host, guarded)
    if not cluster.joins():
        check_port(arguments.host, arguments.port)
    places = inspect_models(service.models, service.coverage)
    cluster.connect()
    import ray

    from boneage_ray.serving import app, running

    cluster.quiet_environment()  # importing ray.serve set up its logger anew
    if not running.is_running():
        check_port(arguments.host, arguments.port)
    token = secrets.token_hex(16)
    if arguments.check:  # nobody else is let in
        tls = None
        config = replace(config, token_hashes=(token_hash(token),), tokens_file=None)
    with stop_signals() as stop, running.serve_at(arguments.host, arguments.port, tls):
        built = replace(app.built_for(service, places, ray.cluster_resources()), config=config)
        running.start(app.deployed(built), stop.is_set)
        if arguments.check:
            with client_of_check(arguments.host, arguments.port, token) as client:
                _check(run, built, client, stop.is_set)
        elif not stop.is_set():
            _announce(arguments, [place.info.name for place in places], guarded)
            stop.wait()
        say("stopping")


def _update(run: Run, arguments: ServeArguments) -> None:
    """Change the models of the service that runs on the cluster. Raises `UsageError` for any other change."""
    if arguments != ServeArguments(arguments.models, update=True):
        raise UsageError("--update changes the models of the running service and nothing else: give --model only")
    models = model_places(arguments.models)
    if not cluster.joins():
        raise UsageError(
            "--update: there is no cluster to join, and a Ray that `boneage serve` started for itself cannot be joined: run "
            "`ray start --head` before `boneage serve`, or give RAY_ADDRESS=HOST:6379"
        )
    cluster.connect()
    from boneage_ray.serving import running

    cluster.quiet_environment()
    with stop_signals() as stop:
        places = running.update(models, stop.is_set)
    run.finish({place.info.name: f"serving {place.info.model_sha256}" for place in places})


def _service_arguments(arguments: ServeArguments) -> ServiceArguments:
    """What the flags ask for. Raises `UsageError` for flags that contradict each other."""
    guards = arguments.guards
    return known_arguments(
        {
            "models": model_places(arguments.models),
            "runtime": arguments.runtime,
            "coverage": known_coverage(arguments.coverage),
            "tokens_file": None if guards.tokens is None else str(Path(guards.tokens).absolute()),
            "allow_uris": list(guards.allow_uris),
            **known_reading(arguments.reading).model_dump(),
            **arguments.scaling._asdict(),
        }
    )


def _check(run: Run, built: Built, client: Client, stopped: Callable[[], bool]) -> None:
    """Compare the answers of each served model with `score`. Raises `MismatchError` where they differ."""
    from boneage_ray.commands.service_check import check_model, wait_until_ready

    service, placement = built.arguments, built.placement
    compute = Compute(1, placement.device, service.runtime, placement.auto, service.coverage)
    wait_until_ready(client, stopped)
    found = {}
    for place in built.places:
        if stopped():
            raise KeyboardInterrupt
        found[place.info.name] = check_model(place, compute, service.reading, client)
    run.finish({name: checked.in_words() for name, checked in found.items()})
    if unlike := [name for name, checked in found.items() if not checked.agrees]:
        raise MismatchError(f"{', '.join(unlike)}: the service does not answer as `boneage score` does")


def check_exposure(host: str, has_tokens: bool) -> None:
    """Without tokens only this machine may ask. Raises `UsageError`."""
    if not has_tokens and not _is_loopback(host):
        raise UsageError(
            f"--host {host} would answer anyone who reaches it: give --tokens FILE, set {TOKENS} (comma separated),"
            " or use --host 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_port(host: str, port: int) -> None:
    """Refuse an address that cannot be bound, when Ray runs on this very machine. Raises `UsageError`."""
    if "RAY_ADDRESS" in os.environ:
        return
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise UsageError(f"--host {host} --port {port}: {error.strerror}; give another") from None


def _announce(arguments: ServeArguments, names: list[str], guarded: bool) -> None:
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    url = f"{'https' if arguments.guards.tls_cert else 'http'}://{host}:{arguments.port}"
    say(f"serving {', '.join(names)} on {url} (a page: {url}/, docs: {url}/docs)")
    if guarded:
        say("requests need `Authorization: Bearer` with a token")
    else:
        say(f"neither --tokens nor {TOKENS} is given: open to this machine only")
    header = " -H 'Authorization: Bearer TOKEN'" if guarded else ""
    say(f"try: curl{header} -H 'Content-Type: image/png' --data-binary @HAND.png '{url}/v1/predict?sex=F'")


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT or SIGTERM sets; the earlier handlers come back."""
    stop = threading.Event()
    names = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(name, lambda *_: stop.set()) for name in names]
    try:
        yield stop
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)
