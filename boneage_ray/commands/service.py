"""serve: answer requests over HTTP."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from boneage_ray.commands.options import ReadingFlags
from boneage_ray.commands.words import known_coverage, known_reading, model_places
from boneage_ray.errors import UsageError
from boneage_ray.prediction.runtimes import TORCH
from boneage_ray.runtime import cluster
from boneage_ray.runtime.runs import Run, say
from boneage_ray.serving.arguments import TOKENS, ServiceArguments
from boneage_ray.serving.tls import known_tls
from boneage_ray.serving.tokens import Tokens


@dataclass(frozen=True)
class ServeArguments:
    """Flags of `boneage serve`."""

    models: list[str]
    host: str = "127.0.0.1"
    port: int = 8000
    runtime: str = TORCH
    reading: ReadingFlags = ReadingFlags()  # noqa: RUF009  immutable
    coverage: float | None = None
    tokens: str | None = None
    allow_uris: tuple[str, ...] = ()
    tls_cert: str | None = None
    tls_key: str | None = None


def serve(run: Run, arguments: ServeArguments) -> None:
    """Answer requests until SIGINT or SIGTERM."""
    from boneage_ray.serving.placement import inspect_models

    reading, tls = known_reading(arguments.reading), known_tls(arguments.tls_cert, arguments.tls_key)
    service = ServiceArguments(
        models=model_places(arguments.models),
        runtime=arguments.runtime,
        coverage=known_coverage(arguments.coverage),
        tokens_file=None if arguments.tokens is None else str(Path(arguments.tokens).absolute()),
        allow_uris=list(arguments.allow_uris),
        **reading.model_dump(),
    )
    config = service.web_config()  # a limit that has no use, and a file without tokens, are refused before Ray starts
    guarded = bool(Tokens(config.token_hashes, config.tokens_file).entries())
    check_exposure(arguments.host, guarded)
    check_port(arguments.host, arguments.port)
    places = inspect_models(service.models, service.coverage)
    cluster.connect()
    import ray

    from boneage_ray.serving import app

    cluster.quiet_environment()  # importing ray.serve set up its logger anew
    if app.is_running():
        raise UsageError("Ray Serve runs on this cluster already; end it with `serve shutdown`, or use another cluster")
    with stop_signals() as stop:
        try:
            application = app.build_application(service, places, ray.cluster_resources())
            app.start(application, arguments.host, arguments.port, stop.is_set, tls)
            if not stop.is_set():
                _announce(arguments, [place.info.name for place in places], guarded)
                stop.wait()
            say("stopping")
        finally:
            app.stop()


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
    url = f"{'https' if arguments.tls_cert else 'http'}://{host}:{arguments.port}"
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
